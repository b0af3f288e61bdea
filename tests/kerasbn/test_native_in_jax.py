"""The native kernel under JAX's transformations, and the programs that JAX makes of it."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("JAX's kernel", allow_module_level=True)

import jax
import jax.numpy as jnp

from kerasbn import kernels, reference
from kerasbn.kernels import native

needs_library = pytest.mark.skipif(
    not kernels.native_status().used, reason=f"no native kernel: {kernels.native_status().reason}"
)
EPSILON = 1e-3


def normalize(x, gamma, beta, axes=(0,)):
    return kernels.batch_normalize(x, gamma, beta, axes=axes, epsilon=EPSILON)[0]


def by_definition(x, gamma, beta, axes=(0,)):
    mean = x.mean(axes, keepdims=True)
    variance = jnp.square(x - mean).mean(axes, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + EPSILON) * gamma + beta


@needs_library
@pytest.mark.parametrize(
    ("shape", "kept"),
    [((40, 6), (1,)), ((500, 1), (1,)), ((8, 3, 5, 7), (3,)), ((8, 3, 5, 7), (1,)), ((1, 4), (1,))],
    ids=str,
)
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_kernel_is_the_reference(features, assert_close, shape, kept, mean):
    axes = tuple(a for a in range(len(shape)) if a not in kept)
    per_feature = [1 if a in axes else size for a, size in enumerate(shape)]
    x, dy = features(shape, kept[0], means=(mean, mean + 1)), features(shape, seed=1)
    gamma, beta = (features(per_feature, seed=seed) for seed in (2, 3))
    y, pullback = jax.vjp(jax.jit(lambda *a: normalize(*a, axes)), x, gamma, beta)
    expected, cache = reference.forward(x, gamma.ravel(), beta.ravel(), EPSILON, axis=kept[0])
    d_x, d_gamma, d_beta = reference.backward(dy, cache)
    dx, dgamma, dbeta = pullback(dy)
    assert_close(y, expected, 1e-5, axes=axes, at_least=np.abs(cache.gamma))
    steepness = np.abs(cache.gamma) * np.abs(dy).max() / np.sqrt(cache.sigma2 + EPSILON)
    assert_close(dx, d_x, 1e-5, axes=axes, at_least=steepness)
    many = 1e-5 * np.sqrt(cache.m.max()) * np.abs(cache.x_hat).max()
    np.testing.assert_allclose(np.ravel(dgamma), d_gamma, atol=many, rtol=1e-5)
    np.testing.assert_allclose(np.ravel(dbeta), d_beta, atol=many, rtol=1e-5)


def _loss(function):
    return lambda x, gamma, beta: jnp.sum(jnp.tanh(function(x, gamma, beta)) ** 3)


def _directions(x, gamma, beta):
    return x[::-1] ** 2, gamma + 1, beta - 2


TRANSFORMS = {
    "jvp": lambda f: lambda *a: jax.jvp(f, a, _directions(*a))[1],
    "grad": lambda f: jax.grad(f, (0, 1, 2)),
    "jit": lambda f: jax.jit(jax.grad(f, (0, 1, 2))),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f), (0, 1, 2)),
    "forward over reverse": lambda f: jax.jacfwd(jax.jacrev(f, (0, 1)), (0, 1)),
    "reverse over reverse": lambda f: jax.jacrev(jax.jacrev(f, (0, 1)), (0, 1)),
    "reverse over forward": lambda f: jax.jacrev(jax.jacfwd(f, (0, 2)), (0, 1)),
    "forward over forward": lambda f: jax.jacfwd(jax.jacfwd(f)),
    "gradient of a norm": lambda f: jax.grad(lambda *a: jnp.sum(jax.grad(f)(*a) ** 2)),
    "vmap of x": lambda f: (
        lambda x, g, b: jax.vmap(jax.grad(f, (0, 1)), (0, None, None))(
            jnp.stack([x, x**2, -x]), g, b
        )
    ),
    "vmap of gamma": lambda f: (
        lambda x, g, b: jax.vmap(jax.grad(f, (0, 1)), (None, 1, None), 1)(
            x, jnp.stack([g, g**2], 1), b
        )
    ),
}


@needs_library
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transformations(features, name):
    """In float64, the layer's derivatives are those that JAX finds for the definition."""
    with jax.enable_x64(True):
        x, gamma, beta = (
            jnp.asarray(features(shape, seed=seed), "float64")
            for seed, shape in enumerate([(5, 3), (1, 3), (1, 3)])
        )
        got = jax.jit(TRANSFORMS[name](_loss(normalize)))(x, gamma, beta)
        expected = jax.jit(TRANSFORMS[name](_loss(by_definition)))(x, gamma, beta)
        got, expected = jax.tree.leaves(got), jax.tree.leaves(expected)
        assert len(got) == len(expected)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def _program(platform):
    def loss(x):
        y, moments = kernels.batch_normalize(x, None, None, axes=(0, 1), epsilon=EPSILON)
        return (y**3).sum() + moments.mean.sum() + moments.variance.sum()

    x = jax.ShapeDtypeStruct((64, 5, 7), "float32")
    traced = jax.jit(jax.grad(loss)).trace(x)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@needs_library
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_only_programs_for_the_cpu_call_the_native_kernel(platform):
    program = _program(platform)
    for name in ("kerasbn_xla_forward", "kerasbn_xla_backward"):
        assert (name in program) == (platform == "cpu")


@pytest.fixture
def plain():
    kernels.use_native(False)
    yield
    kernels.use_native(True)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_statistics_are_no_matrix_products(plain, platform):
    """The factors of a product may be rounded to TF32 or bfloat16."""
    program = _program(platform)
    assert "dot_general" not in program
    assert "kerasbn" not in program.replace("kerasbn/", "")


@needs_library
def test_threads_and_instruction_sets_give_the_same_bits(features):
    functions = native.load().symbols
    threads = functions.kerasbn_threads()
    x, dy, vector = features((3000, 25)), features((3000, 25), seed=1), features((1, 25), seed=2)

    def bits():
        y, pullback = jax.vjp(normalize, x, vector, vector)
        return [np.asarray(t).tobytes() for t in (y, *pullback(dy))]

    expected = bits()
    try:
        for instruction_set in range(functions.kerasbn_instruction_sets()):
            functions.kerasbn_use_instruction_set(instruction_set)
            for number in (1, 2, 5):
                functions.kerasbn_set_threads(number)
                assert bits() == expected
    finally:
        functions.kerasbn_set_threads(threads)
        functions.kerasbn_use_instruction_set(functions.kerasbn_instruction_sets() - 1)


@needs_library
@pytest.mark.parametrize(
    ("variables", "expected"),
    [({"NPROC": "3"}, "threads 3"), ({"KERASBN_NATIVE": "0"}, "switched off by")],
)
def test_variables(variables, expected):
    script = "from kerasbn import kernels; print(kernels.native_status().reason)"
    environment = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert expected in done.stdout, done.stderr


@needs_library
def test_several_cpu_devices_get_the_plain_formula():
    """XLA would give each of them the whole batch."""
    script = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from kerasbn import kernels
def normalize(x):
    return kernels.batch_normalize(x, None, None, axes=(0,), epsilon=1e-3)[0]
x = np.random.default_rng(0).normal(5, 2, (64, 3)).astype("float32")
mesh = Mesh(np.array(jax.devices()), ("batch",))
sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))
y = jax.jit(normalize)(sharded)
assert "kerasbn_xla" not in jax.jit(normalize).lower(sharded).as_text()
np.testing.assert_allclose(y, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3), atol=1e-5)
print("right on", len(jax.devices()))
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert "right on 4" in done.stdout, done.stderr


def test_other_platforms_only_get_the_plain_formula(features, monkeypatch):
    """As with JAX_PLATFORMS=cuda, where JAX has no CPU backend."""

    def no_cpu(backend=None):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "devices", no_cpu)
    x = jnp.asarray(features((8, 3)))
    y, _ = kernels.batch_normalize(x, None, None, axes=(0,), epsilon=EPSILON)
    np.testing.assert_allclose(y, reference.forward(x, epsilon=EPSILON)[0], atol=1e-5)
