"""The native kernel: exact, the same bits in every run, and dispensable."""

import os
import shutil
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow's kernel", allow_module_level=True)

import tensorflow as tf

from kerasbn import BatchNorm, kernels, reference
from kerasbn.kernels import native
from kerasbn.kernels.native import sources

needs_library = pytest.mark.skipif(
    not kernels.native_status().used, reason=f"no native kernel: {kernels.native_status().reason}"
)
EPSILON = 1e-3


def gradients(x, dy, gamma, beta, axis):
    """y, moments, dx, dgamma and dbeta of the kernel that is in use."""
    axes = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
    shape = [1 if a in axes else n for a, n in enumerate(x.shape)]
    x, gamma, beta = tf.constant(x), tf.reshape(gamma, shape), tf.reshape(beta, shape)
    with tf.GradientTape() as tape:
        tape.watch([x, gamma, beta])
        y, moments = kernels.batch_normalize(x, gamma, beta, axes=axes, epsilon=EPSILON)
    return y, moments, *tape.gradient(y, [x, gamma, beta], tf.constant(dy))


@st.composite
def shapes(draw):
    channels = draw(st.one_of(st.integers(1, 10), st.sampled_from([17, 63, 64, 65, 130, 2000])))
    batch = draw(st.sampled_from([1, 2, 3, 7, 33, 129, 500, 4096]))
    axis = draw(st.sampled_from([-1, 1]))
    sizes = draw(st.lists(st.integers(1, 9), max_size=2))
    while np.prod([batch, channels, *sizes]) > 300_000:
        batch = batch // 2
    return (batch, *sizes, channels) if axis == -1 else (batch, channels, *sizes), axis


@needs_library
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    case=shapes(),
    dtype=st.sampled_from(["float32", "float64"]),
    mean=st.sampled_from([0.0, 100.0, 1e4]),
    seed=st.integers(0, 1000),
)
def test_kernel_is_the_reference(assert_close, case, dtype, mean, seed):
    tolerance = {"float32": 1e-5, "float64": 1e-11}[dtype]
    shape, axis = case
    rng = np.random.default_rng(seed)
    per_feature = [shape[a] if a == axis % len(shape) else 1 for a in range(len(shape))]
    scale = np.exp(rng.uniform(-2, 3, per_feature))
    x = (mean * rng.uniform(-1, 1, per_feature) + scale * rng.standard_normal(shape)).astype(dtype)
    dy = rng.standard_normal(shape).astype(dtype)
    gamma, beta = rng.uniform(0.5, 2, (2, shape[axis])).astype(dtype)
    y, moments, dx, dgamma, dbeta = gradients(x, dy, gamma, beta, axis)
    expected, cache = reference.forward(x, gamma, beta, EPSILON, axis=axis)
    d_x, d_gamma, d_beta = reference.backward(dy, cache)
    m = cache.m.ravel()
    largest = np.max(np.abs(cache.x_hat), cache.axes) + 1
    steepness = cache.gamma * np.abs(dy).max() / np.sqrt(cache.sigma2 + EPSILON)
    assert_close(y, expected, tolerance, axes=cache.axes, at_least=np.abs(cache.gamma))
    assert_close(dx, d_x, tolerance, axes=cache.axes, at_least=steepness)
    assert_close(np.ravel(dgamma), d_gamma, tolerance, axes=(), at_least=np.sqrt(m) * largest)
    assert_close(np.ravel(dbeta), d_beta, tolerance, axes=(), at_least=np.sqrt(m))
    assert_close(moments.mean, cache.mu, tolerance, axes=(), at_least=np.abs(x).max())
    # Of the difference of two values that are rounded to float32, as in a batch of two, no more
    # than this can be known.
    spacing = np.finfo(dtype).eps * np.abs(x).max()
    assert_close(moments.variance, cache.sigma2, tolerance, axes=(), at_least=spacing**2)
    assert moments.count == cache.m.ravel()[0]


@needs_library
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_spoils_only_its_feature(features, bad):
    x, dy = features((40, 5, 4)), features((40, 5, 4), seed=1)
    spoiled = x.copy()
    spoiled[3, 2, 0] = bad
    ones = np.ones(4, "float32")
    right, got = (gradients(values, dy, ones, ones, -1) for values in (x, spoiled))
    for a, b in ((right[0], got[0]), (right[2], got[2])):
        assert np.isnan(b.numpy()[..., 0]).all()
        np.testing.assert_array_equal(b.numpy()[..., 1:], a.numpy()[..., 1:])


@pytest.fixture
def symbols():
    """The C functions; afterwards, the library is as it was."""
    functions = native.load().symbols
    threads = functions.kerasbn_threads()
    yield functions
    functions.kerasbn_set_threads(threads)
    functions.kerasbn_use_instruction_set(functions.kerasbn_instruction_sets() - 1)


@needs_library
@pytest.mark.parametrize(
    ("shape", "axis"), [((3000, 25), -1), ((70, 2000), -1), ((64, 30, 40), 1)], ids=str
)
def test_threads_and_instruction_sets_give_the_same_bits(features, symbols, shape, axis):
    x, dy = features(shape, axis, means=(-1e4, 1e4)), features(shape, axis, seed=1)
    gamma, beta = features((2, shape[axis]))

    def bits():
        y, moments, *rest = gradients(x, dy, gamma, beta, axis)
        return [t.numpy().tobytes() for t in (y, moments.mean, moments.variance, *rest)]

    expected = bits()
    for instruction_set in range(symbols.kerasbn_instruction_sets()):
        for threads in (1, 2, 5):
            symbols.kerasbn_use_instruction_set(instruction_set)
            symbols.kerasbn_set_threads(threads)
            assert bits() == expected


@needs_library
def test_threads_are_tensorflows():
    script = """
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(3)
from kerasbn import kernels
print(kernels.native_status())
"""
    assert "threads 3" in in_a_process(script)


class TestTransforms:
    """The operation under TensorFlow's transforms, against the plain formula."""

    @pytest.fixture
    def both(self, features):
        """Calls a function of a layer and an input with the native and with the plain kernel."""

        def call(function, shape=(6, 3, 5)):
            results = []
            for on in (True, False):
                kernels.use_native(on)
                layer = BatchNorm()
                layer.build(shape)
                results.append(function(layer, tf.constant(features(shape, means=(-1, 1)))))
            return results

        yield call
        kernels.use_native(True)

    @needs_library
    @pytest.mark.parametrize("graph", [False, True])
    def test_recompute_grad(self, both, assert_close, graph):
        def gradient(layer, x):
            def run(x):
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    y = tf.recompute_grad(lambda x: layer(x, training=True))(x)
                    loss = tf.reduce_sum(y**3)
                return tape.gradient(loss, x)

            return tf.function(run)(x) if graph else run(x)

        assert_close(*both(gradient), 1e-4)

    @needs_library
    def test_jacobian(self, both, assert_close):
        def jacobian(layer, x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
            return tape.jacobian(y, x)

        assert_close(*both(jacobian), 1e-4)

    @needs_library
    @pytest.mark.parametrize("graph", [False, True])
    def test_forward_over_reverse(self, both, assert_close, graph):
        def product(layer, x):
            def run(x):
                with tf.autodiff.ForwardAccumulator(x, tf.square(x)) as accumulator:
                    with tf.GradientTape() as tape:
                        tape.watch(x)
                        loss = tf.reduce_sum(layer(x, training=True) ** 3)
                    gradient = tape.gradient(loss, x)
                return accumulator.jvp(gradient)

            return tf.function(run)(x) if graph else run(x)

        assert_close(*both(product), 1e-4)

    @needs_library
    def test_vectorized_map_runs_it_in_a_loop(self, both, assert_close):
        def mapped(layer, x):
            return tf.vectorized_map(lambda x: layer(x, training=True), tf.stack([x, 2.0 * x]))

        assert_close(*both(mapped))

    @needs_library
    def test_unknown_batch_size_and_an_empty_batch(self, assert_close, features):
        layer = BatchNorm(momentum=0.5)
        layer.build((None, 4))
        step = tf.function(
            lambda x: layer(x, training=True), input_signature=[tf.TensorSpec([None, 4])]
        )
        assert operations_of(step) == {"KerasbnForward", "KerasbnMove"}
        x = features((9, 4))
        assert_close(step(x), reference.forward(x)[0], axes=0)
        averages = [w.numpy() for w in (layer.moving_mean, layer.moving_variance)]
        assert_close(averages[0], x.mean(0) / 2)
        assert step(x[:0]).shape == (0, 4)
        for weight, value in zip((layer.moving_mean, layer.moving_variance), averages, strict=True):
            np.testing.assert_array_equal(weight.numpy(), value)


@pytest.mark.parametrize("shape", [(640, 30), (60, 200), (64, 8, 8, 6), (32, 20, 40)], ids=str)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_layers_in_a_row(features, assert_close, shape, jit_compile):
    """XLA may recompute a layer's output wherever it is used."""
    x = features(shape, means=(-1e4, 1e4), scales=(0.5, 20))
    dy = features(shape, seed=1)
    gamma, beta = (features((shape[-1],), seed=seed) for seed in (7, 8))
    layers = [BatchNorm(epsilon=EPSILON) for _ in range(3)]
    for layer, offset in zip(layers, (1e4, -3e3, 0), strict=True):  # the next layer's mean
        layer.build(shape)
        layer.gamma.assign(gamma)
        layer.beta.assign(beta + offset)

    @tf.function(jit_compile=jit_compile)
    def step(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for layer in layers:
                y = layer(y, training=True)
        return y, tape.gradient(y, [x, layers[0].gamma.value, layers[2].beta.value], dy)

    y, (dx, dgamma, dbeta) = step(tf.constant(x), tf.constant(dy))
    caches, expected = [], x.astype("float64")
    for layer in layers:
        expected, cache = reference.forward(expected, gamma, layer.beta.numpy(), epsilon=EPSILON)
        caches.append(cache)
    gradients, upstream = [], dy.astype("float64")
    for cache in reversed(caches):
        gradients.append(reference.backward(upstream, cache))
        upstream = gradients[-1][0]
    # The later layers get float32 values near 1e4, rounded to 1e-3 of their deviation.
    axes = caches[0].axes
    steepness = np.abs(gamma) / np.sqrt(EPSILON)
    assert_close(y, expected, 5e-3 / np.abs(gamma).min(), axes=axes)
    assert_close(dx, upstream, 5e-3, axes=axes, at_least=steepness)
    assert_close(dgamma, gradients[2][1].ravel(), 5e-3, at_least=np.abs(dy).sum())
    assert_close(dbeta, gradients[0][2].ravel(), 1e-5, at_least=np.abs(dy).sum())


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("examples", [0, 1, 37])
def test_xla_with_any_number_of_examples(features, assert_close, examples, jit_compile):
    x = features((37, 4, 6))[:examples]
    layer = BatchNorm(epsilon=EPSILON)
    layer.build((None, 4, 6))
    y = tf.function(lambda x: layer(x, training=True), jit_compile=jit_compile)(tf.constant(x))
    assert y.shape == x.shape
    assert np.isfinite(layer.moving_variance).all()
    if examples:
        assert_close(y, reference.forward(x)[0], 1e-5, axes=(0, 1))


def operations_of(function, *arguments):
    graph = function.get_concrete_function(*arguments).graph
    return {o.type for o in graph.get_operations() if o.type.startswith("Kerasbn")}


@needs_library
class TestChoice:
    """Which calls use the native kernel."""

    def operations(self, layer, shape, jit_compile=False, **options):
        @tf.function(jit_compile=jit_compile)
        def step(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, **options)
            return tape.gradient(y, x)

        layer.build(shape)
        return operations_of(step, tf.TensorSpec(shape))

    @pytest.mark.parametrize(
        ("shape", "axis"), [((8, 4), -1), ((None, 5, 6, 4), -1), ((8, 4, 5, 6), 1), ((3, 4), 0)]
    )
    def test_training(self, shape, axis):
        native = {"KerasbnForward", "KerasbnBackward", "KerasbnMove"}
        assert self.operations(BatchNorm(axis), shape, training=True) == native

    def test_inference_is_portable(self):
        for shape in ((8, 4), (8, 5, 6, 4)):
            assert not self.operations(BatchNorm(), shape)

    def test_plain_cases(self):
        mask = tf.ones((8, 5), bool)
        assert not self.operations(BatchNorm(), (8, 5, 4), training=True, mask=mask)
        moves = {"KerasbnMove"}  # for any axes
        assert self.operations(BatchNorm((0, 2)), (8, 5, 4), training=True) == moves
        assert not self.operations(BatchNorm(), (8, 4), jit_compile=True, training=True)

    def test_switch(self):
        kernels.use_native(False)
        try:
            assert kernels.native_status()[:2] == (
                False,
                "switched off by kerasbn.kernels.use_native",
            )
            assert not self.operations(BatchNorm(), (8, 4), training=True)
        finally:
            kernels.use_native(True)

    def test_function_traced_outside_xla_needs_the_switch(self, features):
        x = tf.constant(features((8, 4)))

        def call_inside(layer):
            traced = tf.function(lambda x: layer(x, training=True))
            traced(x)
            return tf.function(lambda x: traced(x), jit_compile=True)(x)

        with pytest.raises(tf.errors.InvalidArgumentError, match="KerasbnForward"):
            call_inside(BatchNorm())
        kernels.use_native(False)
        try:
            assert call_inside(BatchNorm()).shape == x.shape
        finally:
            kernels.use_native(True)

    def test_exported_model_has_no_custom_operation(self, tmp_path):
        layers = [keras.layers.Conv2D(3, 3), BatchNorm(), keras.layers.Flatten(), BatchNorm()]
        model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
        model.compile("sgd", "mse")
        model.fit(np.ones((4, 8, 8, 3)), np.ones((4, 108)), verbose=0)
        model.export(tmp_path / "model", verbose=False)
        assert b"Kerasbn" not in (tmp_path / "model" / "saved_model.pb").read_bytes()


class TestWithoutLibrary:
    """Every way to be without it: a warning, and the plain formula."""

    @staticmethod
    def damaged(how):
        content = sources.LIBRARY.read_bytes() if sources.LIBRARY.exists() else b""
        return {
            "missing": None,
            "empty": b"",
            "no library": b"not a library",
            "cut short": content[: len(content) * 9 // 10],
            "built from other sources": content.replace(sources.mark(), b"0" * len(sources.mark())),
            # The machine that an ELF file is for; 0xF3 is RISC-V.
            "for another processor": content[:18] + b"\xf3" + content[19:],
        }[how]

    @needs_library
    @pytest.mark.parametrize(
        "how",
        [
            *("missing", "empty", "no library", "cut short"),
            *("built from other sources", "for another processor"),
        ],
    )
    def test_one_warning_and_the_plain_formula(self, features, assert_close, load_from, how):
        load_from(self.damaged(how))
        x = features((8, 4))
        layer = BatchNorm()
        with pytest.warns(UserWarning, match="without its native kernel"):
            y = layer(x, training=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            layer(x, training=True)
        assert_close(y, reference.forward(x)[0], axes=0)
        assert not kernels.native_status().used
        assert str(sources.LIBRARY) in kernels.native_status().reason

    @needs_library
    def test_tensorflow_without_the_c_interface(self, load_from, monkeypatch):
        load_from(sources.LIBRARY.read_bytes())
        monkeypatch.setattr(tf, "load_op_library", lambda path: object())
        assert "C interface" in kernels.native_status().reason

    def test_environment_variable(self):
        script = """
import warnings
warnings.simplefilter("error")
import numpy as np, kerasbn
from kerasbn import kernels
kerasbn.BatchNorm()(np.ones((8, 4), "float32"), training=True)
print(kernels.native_status())
"""
        assert "switched off by the variable KERASBN_NATIVE" in in_a_process(
            script, KERASBN_NATIVE="0"
        )


def in_a_process(script, **environment):
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        cwd=os.sep,
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.full
@pytest.mark.parametrize("compiler", ["without", "with"])
def test_install(tmp_path, compiler):
    """A real install, from a copy of the sources."""
    if compiler == "with" and shutil.which("cc") is None:
        pytest.skip("no C compiler")
    root, copy, target = sources.FOLDER.parents[2], tmp_path / "source", tmp_path / "installed"
    if not (root / "setup.py").exists():
        pytest.skip("not a checkout")
    copy.mkdir()
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, copy)
    shutil.copytree(root / "kerasbn", copy / "kerasbn", ignore=shutil.ignore_patterns("*.so"))
    pip = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps"]
    environment = {**os.environ, **({"CC": "/no/compiler"} if compiler == "without" else {})}
    done = subprocess.run(
        [*pip, "--target", target, copy], env=environment, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    script = "from kerasbn import kernels; print(kernels.__file__, kernels.native_status())"
    paths = os.pathsep.join([str(target), *sys.path])
    printed = in_a_process(script, PYTHONPATH=paths)
    assert str(target) in printed
    assert ("used=True" if compiler == "with" else "was not built") in printed
