"""`fold`: same outputs with fewer layers, and what prevents it."""

from __future__ import annotations

import doctest
import re

import keras
import numpy as np
import pytest
from keras import layers

import kerasbn
from kerasbn import folding

KINDS = [keras.layers.BatchNormalization, kerasbn.BatchNorm]
BACKEND = keras.backend.backend()
only_once = pytest.mark.skipif(BACKEND != "tensorflow", reason="large networks, on one backend")
# JAX compiles each model anew, half a second an example.
WITH_AND_WITHOUT_BIAS = [False] if BACKEND == "jax" else [True, False]
pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


def randomized(model, seed=0):
    """Statistics, gammas, betas and biases as after a training, not the initial ones."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        for weight in layer.weights if isinstance(layer, tuple(KINDS)) else []:
            positive = weight.name in ("gamma", "moving_variance", "moving_stddev")
            value = (
                rng.uniform(0.5, 2.0, weight.shape) if positive else rng.normal(size=weight.shape)
            )
            weight.assign(value)
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(size=layer.bias.shape))
    return model


def sequential(shape, *stack, seed=0):
    return randomized(keras.Sequential([keras.Input(shape), *stack]), seed)


def inputs_for(model, examples=3):
    rng = np.random.default_rng(1)
    return [rng.normal(1.0, 2.0, (examples, *t.shape[1:])).astype("float32") for t in model.inputs]


def outputs(model, x):
    def call(x):
        return model(x if len(x) > 1 else x[0], training=False)

    if BACKEND == "jax":  # which else compiles every operation by itself
        import jax

        call = jax.jit(call)
    result = call(x)
    return [
        keras.ops.convert_to_numpy(keras.ops.cast(y, "float32")) for y in keras.tree.flatten(result)
    ]


def norms_in(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, tuple(KINDS))]


@pytest.fixture
def assert_folds(assert_close):
    """Folds, compares the outputs with the model's, counts what is left; returns the folded."""

    def check(model, kept=0, tolerance=1e-5):
        folded = kerasbn.fold(model)
        x = inputs_for(model)
        for actual, desired in zip(outputs(folded, x), outputs(model, x), strict=True):
            assert_close(actual, desired, tolerance)
        assert len(norms_in(folded)) == kept
        assert sum(not d.into for d in folding.plan(model)) == kept
        return folded

    return check


AFFINE = {
    "dense": ((5,), lambda **k: layers.Dense(4, **k)),
    "dense_of_sequences": ((3, 5), lambda **k: layers.Dense(4, **k)),
    "conv1d": ((9, 4), lambda **k: layers.Conv1D(6, 3, dilation_rate=2, **k)),
    "conv1d_causal": ((9, 4), lambda **k: layers.Conv1D(6, 3, padding="causal", **k)),
    "conv2d": ((8, 7, 4), lambda **k: layers.Conv2D(6, 3, strides=2, padding="same", **k)),
    "conv2d_of_groups": ((8, 7, 4), lambda **k: layers.Conv2D(6, 3, groups=2, **k)),
    "conv3d": ((4, 5, 6, 2), lambda **k: layers.Conv3D(3, 2, **k)),
    "depthwise1d": ((9, 4), lambda **k: layers.DepthwiseConv1D(3, depth_multiplier=2, **k)),
    "depthwise2d": ((8, 7, 4), lambda **k: layers.DepthwiseConv2D(3, depth_multiplier=2, **k)),
    "separable1d": ((9, 4), lambda **k: layers.SeparableConv1D(6, 3, depth_multiplier=2, **k)),
    "separable2d": ((8, 7, 4), lambda **k: layers.SeparableConv2D(6, 3, depth_multiplier=2, **k)),
    "transposed1d": ((5, 4), lambda **k: layers.Conv1DTranspose(6, 3, strides=2, **k)),
    "transposed2d": ((5, 4, 3), lambda **k: layers.Conv2DTranspose(6, 3, strides=2, **k)),
    "transposed3d": ((3, 4, 3, 2), lambda **k: layers.Conv3DTranspose(3, 2, **k)),
}
FORWARD = [n for n in AFFINE if "transposed" not in n and n not in ("conv1d_causal", "conv2d")]


class TestWhatIsFolded:
    @pytest.mark.parametrize("use_bias", WITH_AND_WITHOUT_BIAS)
    @pytest.mark.parametrize("name", AFFINE)
    def test_into_the_layer_before(self, name, use_bias, assert_folds):
        shape, layer = AFFINE[name]
        folded = assert_folds(sequential(shape, layer(use_bias=use_bias), KINDS[use_bias]()))
        assert [type(inner) for inner in folded.layers] == [type(layer())]

    @pytest.mark.parametrize("use_bias", WITH_AND_WITHOUT_BIAS)
    @pytest.mark.parametrize("name", FORWARD)
    def test_into_the_layer_after(self, name, use_bias, assert_folds):
        shape, layer = AFFINE[name]
        model = sequential(shape, KINDS[use_bias](), layer(use_bias=use_bias, activation="relu"))
        assert len(assert_folds(model).layers) == 1

    @pytest.mark.parametrize("padding", ["same", "valid"])
    def test_into_a_one_by_one_convolution_after_since_it_never_pads(self, padding, assert_folds):
        conv = layers.Conv2D(4, 1, strides=2, padding=padding)
        assert_folds(sequential((7, 6, 3), kerasbn.BatchNorm(), conv))

    @pytest.mark.parametrize("name", ["conv1d", "conv2d_of_groups", "depthwise2d", "separable2d"])
    @pytest.mark.parametrize("back", [True, False])
    def test_channels_first(self, name, back, assert_folds):
        (*sizes, channels), layer = AFFINE[name]
        conv = layer(data_format="channels_first")
        pair = [conv, kerasbn.BatchNorm(axis=1)] if back else [kerasbn.BatchNorm(axis=1), conv]
        try:
            model = sequential((channels, *sizes), *pair)
            outputs(model, inputs_for(model))
        except Exception as error:  # TensorFlow has no such convolution for groups on a CPU
            pytest.skip(f"not on this backend and device: {type(error).__name__}")
        assert_folds(model)

    @pytest.mark.parametrize("options", [{"center": False}, {"scale": False}, {"epsilon": 0.1}])
    @pytest.mark.parametrize("kind", KINDS)
    def test_with_the_options_of_the_batch_norm(self, kind, options, assert_folds):
        assert_folds(sequential((5,), layers.Dense(4), kind(**options), layers.ReLU()))

    @pytest.mark.parametrize("axis", [-1, 3, (3,)])
    def test_on_the_channel_axis_however_it_is_named(self, axis, assert_folds):
        assert_folds(sequential((5, 5, 2), layers.Conv2D(4, 3), kerasbn.BatchNorm(axis=axis)))

    @pytest.mark.parametrize(
        "options", [{"renorm": True}, {"virtual_batch_size": 2}, {"debias": True}]
    )
    def test_whatever_its_training_mode(self, options, assert_folds):
        assert_folds(sequential((5,), layers.Dense(4), kerasbn.BatchNorm(**options)))

    def test_from_both_sides_into_one_layer(self, assert_folds):
        stack = kerasbn.BatchNorm(), layers.Dense(4), layers.BatchNormalization()
        assert len(assert_folds(sequential((5,), *stack)).layers) == 1

    @pytest.mark.parametrize("back", [True, False])
    def test_two_in_a_row(self, back, assert_folds):
        norms = [kerasbn.BatchNorm(), layers.BatchNormalization()]
        dense = [layers.Dense(4)]
        assert_folds(sequential((5,), *(dense + norms if back else norms + dense)))

    def test_between_two_layers_into_the_first(self):
        model = sequential(
            (5,), layers.Dense(4, name="a"), kerasbn.BatchNorm(name="bn"), layers.Dense(3, name="b")
        )
        assert folding.plan(model) == [folding.Decision("bn", into=("a",))]

    def test_past_masks(self, assert_close):
        x = keras.Input((6,))
        y = layers.Embedding(5, 4, mask_zero=True)(x)
        y = kerasbn.BatchNorm()(layers.Dense(3)(layers.BatchNormalization()(y)))
        model = randomized(keras.Model(x, layers.GlobalAveragePooling1D()(y)))
        folded = kerasbn.fold(model)
        tokens = [np.array([[1, 2, 0, 0, 0, 0], [3, 4, 1, 2, 0, 0]])]
        assert not norms_in(folded)
        assert_close(outputs(folded, tokens)[0], outputs(model, tokens)[0])


def preventing(build):
    """A model of one batch norm between layers that are given."""
    return lambda: randomized(build())


class Doubled(kerasbn.BatchNorm):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


class Block(layers.Layer):
    """A user's layer that holds its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.norm = layers.Dense(4), kerasbn.BatchNorm(name="inner")

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build((*shape[:-1], 4))

    def call(self, x, training=None):
        return self.norm(self.dense(x), training=training)


def _two_users():
    x = keras.Input((5,))
    y = layers.Dense(4, name="dense")(x)
    return keras.Model(
        x, layers.Add(name="add")([layers.ReLU()(kerasbn.BatchNorm(name="bn")(y)), y])
    )


def _unfolded_is_returned():
    x = keras.Input((5,))
    y = layers.Dense(4, name="dense")(x)
    return keras.Model(x, [kerasbn.BatchNorm(name="bn")(y), y])


def _layer_after_has_two_sources():
    x = keras.Input((5,))
    dense = layers.Dense(4, name="dense")
    return keras.Model(x, [dense(kerasbn.BatchNorm(name="bn")(x)), dense(x)])


def _two_layers_after():
    x = keras.Input((5,))
    y = kerasbn.BatchNorm(name="bn")(x)
    return keras.Model(x, [layers.Dense(4, name="a")(y), layers.Dense(4, name="b")(y)])


def _in_training():
    x = keras.Input((5,))
    y = layers.Dense(4)(x)
    return keras.Model(x, kerasbn.BatchNorm(name="bn")(y, training=True))


def _twice_but_once_without():
    x = keras.Input((5,))
    dense = layers.Dense(5, name="dense")
    return keras.Model(x, layers.ReLU(name="relu")(dense(kerasbn.BatchNorm(name="bn")(dense(x)))))


def _behind_a_layer_and_an_activation():
    x = keras.Input((5,))
    norm = kerasbn.BatchNorm(name="bn")
    return keras.Model(x, [norm(layers.Dense(5)(x)), norm(layers.ReLU(name="relu")(x))])


def _a_nested_model_returns_both():
    x = keras.Input((5,))
    y = layers.Dense(4, name="dense")(x)
    inner = keras.Model(x, [kerasbn.BatchNorm(name="bn")(y), y], name="inner")
    x = keras.Input((5,))
    return keras.Model(x, inner(x)[0])


def _lora():
    dense = layers.Dense(4, name="dense")
    model = keras.Sequential([keras.Input((5,)), dense, kerasbn.BatchNorm(name="bn")])
    dense.enable_lora(2)
    return model


def _in_a_model_in_training():
    x = keras.Input((5,))
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(4), kerasbn.BatchNorm(name="bn")])
    return keras.Model(x, inner(x, training=True))


def _stack(shape, stack):
    return lambda: keras.Sequential([keras.Input(shape), *stack()])


def _bn(**options):
    return kerasbn.BatchNorm(name="bn", **options)


PREVENTED = {
    "activation": (
        _stack((5,), lambda: [layers.Dense(4, activation="relu", name="dense"), _bn()]),
        r"bn: kept: before it, dense \(Dense\) applies relu; it is an output of the model",
    ),
    "activation layer": (
        _stack((5,), lambda: [layers.Dense(4), layers.ReLU(name="relu"), _bn(), layers.Softmax()]),
        r"before it, relu \(ReLU\) is not a Dense or conv.*; after it, softmax.* is not a Dense",
    ),
    "dropout between": (
        _stack((5,), lambda: [layers.Dense(4), layers.Dropout(0.5, name="drop"), _bn()]),
        r"before it, drop \(Dropout\) is not a Dense",
    ),
    "flatten between": (
        _stack((4, 4, 2), lambda: [_bn(), layers.Flatten(name="flat"), layers.Dense(3)]),
        r"it takes an input of the model; after it, flat \(Flatten\) is not a Dense",
    ),
    "padding between": (
        _stack((4, 4, 2), lambda: [_bn(), layers.ZeroPadding2D(name="pad"), layers.Conv2D(3, 3)]),
        r"after it, pad \(ZeroPadding2D\)",
    ),
    "padding": (
        _stack((4, 4, 2), lambda: [_bn(), layers.Conv2D(3, 3, padding="same", name="conv")]),
        r"after it, conv \(Conv2D\) pads its input \(padding='same'\)",
    ),
    "depthwise padding": (
        _stack((4, 4, 2), lambda: [_bn(), layers.DepthwiseConv2D(3, padding="same", name="conv")]),
        r"after it, conv \(DepthwiseConv2D\) pads",
    ),
    "causal padding": (
        _stack((6, 2), lambda: [_bn(), layers.Conv1D(3, 3, padding="causal", name="conv")]),
        r"pads its input \(padding='causal'\)",
    ),
    "transposed after": (
        _stack((4, 4, 2), lambda: [_bn(), layers.Conv2DTranspose(3, 3, name="conv")]),
        r"after it, conv \(Conv2DTranspose\) is transposed",
    ),
    "other axis": (
        _stack((6, 5), lambda: [layers.Dense(4, name="dense"), _bn(axis=1)]),
        r"dense \(Dense\) has its channels on axis 2, not 1",
    ),
    "other axis after": (
        _stack((6, 5), lambda: [_bn(axis=1), layers.Conv1D(4, 3, name="conv")]),
        r"conv \(Conv1D\) has its channels on axis 2, not 1",
    ),
    "several axes": (
        _stack((6, 5), lambda: [layers.Dense(4), _bn(axis=(1, 2))]),
        r"it normalizes several axes, \(1, 2\)",
    ),
    "subclass": (
        _stack((5,), lambda: [layers.Dense(4), Doubled(name="bn")]),
        "its class Doubled may compute something else",
    ),
    "wrapper": (
        _stack((3, 5), lambda: [layers.TimeDistributed(_bn(), name="each"), layers.Dense(4)]),
        r"each/bn: kept: it is inside each \(TimeDistributed\)",
    ),
    "user's layer": (
        _stack((5,), lambda: [Block(name="block")]),
        r"block/inner: kept: it is inside block \(Block\)",
    ),
    "other precision": (
        _stack((5,), lambda: [layers.Dense(4, dtype="mixed_bfloat16", name="dense"), _bn()]),
        r"dense \(Dense\) computes in bfloat16, but the batch norm computes in float32",
    ),
    "second use": (_two_users, r"before it, dense \(Dense\) also feeds add \(Add\)"),
    "second use as output": (_unfolded_is_returned, r"dense \(Dense\) is an output of the model"),
    "returned by a nested model": (_a_nested_model_returns_both, "inner/dense .* is an output"),
    "two layers after": (_two_layers_after, r"it feeds a \(Dense\) and b \(Dense\)"),
    "other inputs of the layer after": (
        _layer_after_has_two_sources,
        r"after it, dense \(Dense\) takes other inputs too",
    ),
    "training=True": (_in_training, "it is called with training=True"),
    "training=True of the model": (_in_a_model_in_training, "it is called with training=True"),
    "shared layer": (_twice_but_once_without, r"dense \(Dense\) also feeds relu \(ReLU\)"),
    "shared batch norm": (_behind_a_layer_and_an_activation, r"before it, relu \(ReLU\) is no"),
    "lora": (_lora, r"dense \(Dense\) has LoRA weights"),
}


class TestWhatIsKept:
    @pytest.mark.parametrize("case", PREVENTED)
    def test_and_why(self, case, assert_folds):
        build, reason = PREVENTED[case]
        model = randomized(build())
        (decision,) = folding.plan(model)
        assert re.search(reason, str(decision))
        if BACKEND != "jax":
            assert_folds(model, kept=1)

    def test_weights_that_would_overflow_float16(self, assert_folds):
        dense = layers.Dense(4, dtype="mixed_float16", name="dense")
        model = sequential((5,), dense, kerasbn.BatchNorm(dtype="mixed_float16"), layers.Softmax())
        model.layers[1].gamma.assign(np.full(4, 1e6))
        (decision,) = folding.plan(model)
        assert "the weights of dense (Dense) would leave the range of its dtype" in decision.reason
        assert len(norms_in(kerasbn.fold(model))) == 1

    @pytest.mark.skipif(
        not hasattr(layers.Dense, "quantize"), reason="no quantization in this Keras"
    )
    def test_behind_a_quantized_layer(self):
        dense = layers.Dense(4, name="dense")
        model = sequential((16,), dense, kerasbn.BatchNorm(), layers.Softmax())
        dense.quantize("int8")
        assert "dense (Dense) is quantized to int8" in folding.plan(model)[0].reason


class TestSharedLayers:
    def test_called_twice_with_one_batch_norm_behind(self, assert_folds):
        a, b = keras.Input((5,)), keras.Input((5,))
        dense, norm = layers.Dense(4), kerasbn.BatchNorm()
        towers = [layers.ReLU()(norm(dense(x))) for x in (a, b)]
        folded = assert_folds(randomized(keras.Model([a, b], layers.Subtract()(towers))))
        assert sum(isinstance(layer, layers.Dense) for layer in folded.layers) == 1

    def test_a_batch_norm_of_two_layers_is_folded_into_each(self, assert_folds):
        x = keras.Input((5,))
        norm = kerasbn.BatchNorm(name="bn")
        branches = [norm(layers.Dense(4, name=name)(x)) for name in "ab"]
        model = randomized(keras.Model(x, layers.Multiply()(branches)))
        assert folding.plan(model) == [folding.Decision("bn", into=("a", "b"))]
        assert_folds(model)

    def test_called_twice_with_two_batch_norms_behind(self, assert_folds):
        x = keras.Input((5,))
        dense = layers.Dense(5)
        y = layers.ReLU()(kerasbn.BatchNorm()(dense(x)))
        y = layers.ReLU()(kerasbn.BatchNorm()(dense(y)))
        assert_folds(randomized(keras.Model(x, y)), kept=2)

    def test_called_twice_behind_one_batch_norm(self, assert_folds):
        a, b = keras.Input((5,)), keras.Input((5,))
        norm, dense = kerasbn.BatchNorm(), layers.Dense(4)
        assert_folds(randomized(keras.Model([a, b], [dense(norm(a)), dense(norm(b))])))

    def test_recurrently(self, assert_folds):
        x = keras.Input((5,))
        dense, norm, relu = layers.Dense(5), kerasbn.BatchNorm(), layers.ReLU()
        assert_folds(randomized(keras.Model(x, relu(norm(dense(relu(norm(dense(x)))))))))

    def test_in_a_nested_model_called_twice(self, assert_folds):
        tower = keras.Sequential([keras.Input((5,)), layers.Dense(4), kerasbn.BatchNorm()])
        a, b = keras.Input((5,)), keras.Input((5,))
        folded = assert_folds(
            randomized(keras.Model([a, b], layers.Subtract()([tower(a), tower(b)])))
        )
        assert sum(isinstance(layer, layers.Dense) for layer in folded._flatten_layers()) == 1

    def test_of_two_models_stay_one_layer(self, assert_folds):
        shared = layers.Dense(5, name="shared")
        inner = keras.Sequential([keras.Input((5,)), shared, layers.ReLU()], name="inner")
        x = keras.Input((5,))
        norm = kerasbn.BatchNorm()
        model = keras.Model(x, shared(norm(layers.Dense(5)(inner(x)))))
        folded = assert_folds(randomized(model))
        assert folded.get_layer("inner").get_layer("shared") is folded.get_layer("shared")


def half(t):
    return t / 2


class TestNestedModels:
    def test_functional_and_sequential_in_each_other(self, assert_folds):
        x = keras.Input((5,))
        functional = keras.Model(x, kerasbn.BatchNorm()(layers.Dense(4)(x)), name="functional")
        within = keras.Sequential([keras.Input((5,)), functional, layers.ReLU()], name="within")
        last = keras.Sequential([layers.Dense(3), layers.BatchNormalization()], name="last")
        x = keras.Input((5,))
        model = randomized(keras.Model(x, keras.Sequential([within, last], name="outer")(x)))
        folded = assert_folds(model)
        assert folded.get_layer("outer").get_layer("within").get_layer("functional")
        assert [str(decision) for decision in folding.plan(model)] == [
            f"outer/within/functional/{norms_in(functional)[0].name}: folded into "
            f"outer/within/functional/{functional.layers[1].name}",
            f"outer/last/{last.layers[1].name}: folded into outer/last/{last.layers[0].name}",
        ]

    @pytest.mark.parametrize("functional", [True, False])
    def test_across_their_borders(self, functional, assert_folds, tmp_path):
        def nested(shape, layer):
            model = keras.Sequential([keras.Input(shape), layer])
            return keras.Model(model.inputs[0], model.outputs[0]) if functional else model

        model = keras.Sequential(
            [
                *(keras.Input((5,)), nested((5,), layers.Dense(4)), kerasbn.BatchNorm()),
                *(layers.ReLU(), nested((4,), kerasbn.BatchNorm()), layers.Dense(3)),
            ]
        )
        folded = assert_folds(randomized(model))
        # One of the nested models is empty now.
        folded.save(tmp_path / "folded.keras")
        loaded = keras.models.load_model(tmp_path / "folded.keras")
        x = inputs_for(model)
        np.testing.assert_array_equal(outputs(loaded, x)[0], outputs(folded, x)[0])

    def test_several_inputs_and_outputs_in_dictionaries(self, assert_close):
        a, b = keras.Input((5,), name="a"), keras.Input((4,), name="b")
        y = kerasbn.BatchNorm()(layers.Dense(4)(a))
        inner = keras.Model({"a": a, "b": b}, {"sum": layers.Add()([y, b]), "b": b}, name="inner")
        a, b = keras.Input((5,), name="a"), keras.Input((4,), name="b")
        y = inner({"b": b, "a": a})
        last = kerasbn.BatchNorm(name="last")(layers.Dense(2)(y["sum"]))
        model = randomized(keras.Model({"b": b, "a": a}, {"z": last, "b": y["b"]}))
        folded = kerasbn.fold(model)
        x = {"a": np.ones((2, 5), "float32"), "b": np.full((2, 4), 3.0, "float32")}
        assert not norms_in(folded)
        for key, desired in model(x).items():
            assert_close(folded(x)[key], desired)

    def test_subclassed_ones_stay_and_are_said(self, assert_folds):
        @keras.saving.register_keras_serializable(package="test_folding")
        class Subclassed(keras.Model):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.dense, self.norm = layers.Dense(4), kerasbn.BatchNorm(name="bn")

            def call(self, x, training=None):
                return self.norm(self.dense(x), training=training)

        x = keras.Input((5,))
        y = kerasbn.BatchNorm(name="outside")(layers.Dense(3, name="dense")(x))
        model = randomized(keras.Model(x, Subclassed(name="sub")(y)))
        assert [str(decision) for decision in folding.plan(model)] == [
            "outside: folded into dense",
            "sub/bn: kept: it is inside sub (Subclassed)",
        ]
        assert_folds(model, kept=1)

    def test_with_operations_and_lambdas_in_the_graph(self, assert_folds):
        x = keras.Input((6, 5))
        y = kerasbn.BatchNorm()(layers.Dense(4)(x))
        y = 2.0 * y[:, 1:3] + keras.ops.sin(y[:, ::3]) + np.arange(4, dtype="float32")
        assert_folds(randomized(keras.Model(x, layers.Lambda(lambda t: half(t))(y))))

    def test_a_functional_class_of_its_own_keeps_its_class(self, assert_folds):
        class Trainer(keras.Model):
            def train_step(self, data):
                raise NotImplementedError

        x = keras.Input((5,))
        model = Trainer(x, kerasbn.BatchNorm()(layers.Dense(4)(x)))
        assert type(assert_folds(randomized(model))) is Trainer

    def test_a_functional_class_with_other_arguments_becomes_a_plain_model(self, assert_folds):
        class Network(keras.Model):
            def __init__(self, units):
                x = keras.Input((5,))
                super().__init__(x, kerasbn.BatchNorm()(layers.Dense(units)(x)))
                self.units = units

            def get_config(self):
                return {"units": self.units}

        assert_folds(randomized(Network(4)))


class TestTheFoldedModel:
    def model(self, **options):
        options = {"kernel_regularizer": "l2", "kernel_constraint": "max_norm", **options}
        stack = layers.Conv2D(4, 3, name="conv", **options), _bn(), layers.ReLU()
        tail = layers.Dropout(0.5, seed=1), layers.Flatten(), layers.Dense(2, name="out")
        return sequential((6, 6, 2), *stack, *tail)

    def test_leaves_the_original_as_it_was(self):
        model = self.model()
        config, weights = model.get_config(), model.get_weights()
        folded = kerasbn.fold(model)
        for weight in folded.weights:
            weight.assign(keras.ops.zeros(weight.shape))
        assert model.get_config() == config
        for actual, desired in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(actual, desired)

    @pytest.mark.parametrize("use_bias", [True, False])
    def test_keeps_regularizers_and_drops_constraints(self, use_bias):
        conv = kerasbn.fold(self.model(use_bias=use_bias)).get_layer("conv")
        assert conv.use_bias
        assert isinstance(conv.kernel_regularizer, keras.regularizers.L2)
        assert conv.kernel_constraint is None

    @pytest.mark.parametrize("back", [True, False])
    def test_activity_regularizer_goes_only_with_the_output_that_it_is_about(self, back):
        dense, norm = layers.Dense(4, activity_regularizer="l2"), kerasbn.BatchNorm()
        folded = kerasbn.fold(sequential((5,), *((dense, norm) if back else (norm, dense))))
        assert (folded.layers[0].activity_regularizer is None) == back

    def test_saves_loads_and_trains(self, tmp_path):
        folded = kerasbn.fold(self.model())
        folded.save(tmp_path / "folded.keras")
        loaded = keras.models.load_model(tmp_path / "folded.keras")
        x = inputs_for(folded, 8)
        np.testing.assert_array_equal(outputs(loaded, x)[0], outputs(folded, x)[0])
        loaded.compile("sgd", "mse")
        before = loaded.get_weights()
        loaded.fit(x[0], np.ones((8, 2)), verbose=0)
        assert all(np.any(a != b) for a, b in zip(before, loaded.get_weights(), strict=True))

    def test_is_not_compiled_even_with_a_loss_that_is_not_registered(self):
        model = self.model()
        model.compile("adam", loss=lambda y, p: keras.ops.mean(p - y))
        assert not kerasbn.fold(model).compiled

    def test_keeps_the_names_of_outputs(self, tmp_path):
        x = keras.Input((5,))
        y = kerasbn.BatchNorm(name="logits")(layers.Dense(3)(x))
        model = randomized(keras.Model(x, [y, layers.Dense(2, name="other")(x)]))
        folded = kerasbn.fold(model)
        assert folded.output_names == model.output_names == ["logits", "other"]
        folded.save(tmp_path / "folded.keras")
        assert keras.models.load_model(tmp_path / "folded.keras").output_names == model.output_names

    def test_keeps_what_is_frozen(self):
        model = self.model()
        inner = keras.Sequential(
            [keras.Input((2,)), layers.Dense(2), layers.Dense(2)], name="inner"
        )
        model.add(inner)
        inner.trainable = False
        inner.layers[1].trainable = True
        folded = kerasbn.fold(model)
        assert len(folded.trainable_weights) == len(model.trainable_weights) - 2
        assert not folded.get_layer("inner").trainable

    @pytest.mark.parametrize(
        ("dtype", "tolerance"),
        [("float64", 1e-6), ("mixed_bfloat16", 2e-2), ("bfloat16", 3e-2), ("mixed_float16", 2e-3)],
    )  # of the lower precisions: a few roundings of 2^-9 and 2^-11
    def test_in_other_precisions(self, dtype, tolerance, assert_folds):
        stack = (
            layers.Dense(4, dtype=dtype),
            kerasbn.BatchNorm(dtype=dtype),
            layers.ReLU(dtype=dtype),
        )
        folded = assert_folds(sequential((5,), *stack), tolerance=tolerance)
        assert folded.layers[0].dtype_policy.name == dtype

    def test_is_computed_in_float64_and_cast_once(self):
        model = sequential((5,), layers.Dense(4), layers.BatchNormalization())
        weights = [np.float64(weight) for weight in model.get_weights()]
        kernel, bias, gamma, beta, mean, variance = weights
        s = gamma / np.sqrt(variance + 1e-3)
        folded = kerasbn.fold(model).get_weights()
        np.testing.assert_array_equal(folded[0], (kernel * s).astype("float32"))
        np.testing.assert_array_equal(folded[1], (s * bias + (beta - s * mean)).astype("float32"))

    @only_once
    def test_keeps_what_preprocessing_layers_have_learned(self, assert_close):
        import tensorflow as tf

        words, numbers = keras.Input((1,), dtype="string"), keras.Input((3,))
        lookup, scale = layers.StringLookup(output_mode="one_hot"), layers.Normalization()
        lookup.adapt(["a", "b", "c"])
        scale.adapt(np.random.default_rng(0).normal(5, 3, (50, 3)))
        y = layers.Concatenate()([lookup(words), scale(numbers)])
        model = keras.Model([words, numbers], kerasbn.BatchNorm()(layers.Dense(4)(y)))
        x = [tf.constant([["b"], ["?"]]), tf.constant([[1.0, 2, 3], [4, 5, 6]])]
        assert_close(kerasbn.fold(randomized(model))(x), model(x))


class TestReport:
    def test_verbose_prints_each_decision_and_the_count(self, capsys):
        stack = layers.Dense(4, name="a"), _bn(), layers.ReLU(), kerasbn.BatchNorm(name="last")
        kerasbn.fold(sequential((5,), *stack), verbose=True)
        first, second, last = capsys.readouterr().out.splitlines()
        assert first == "bn: folded into a"
        assert second.startswith("last: kept: before it, ")
        assert last == "1 of 2 batch norm layers folded."

    def test_silent_otherwise(self, capsys):
        kerasbn.fold(sequential((5,), layers.Dense(4), kerasbn.BatchNorm()))
        assert capsys.readouterr().out == ""

    def test_the_examples_of_the_docstrings(self):
        results = doctest.testmod(kerasbn.tools.folding)
        assert results.attempted > 5
        assert results.failed == 0


class TestBadInput:
    def test_not_built(self):
        model = keras.Sequential([layers.Dense(3), kerasbn.BatchNorm()], name="raw")
        with pytest.raises(ValueError, match="Received: model 'raw', which has no weights yet"):
            kerasbn.fold(model)

    def test_no_model(self):
        with pytest.raises(
            ValueError, match=r"Expected a built keras\.Model\. Received: .*BatchNorm"
        ):
            kerasbn.fold(kerasbn.BatchNorm())

    def test_without_batch_norm_comes_back_as_it_is(self):
        model = keras.Sequential([keras.Input((5,)), layers.Dense(3)], name="plain")
        with pytest.warns(
            UserWarning, match="Model 'plain' has no BatchNorm or BatchNormalization"
        ):
            assert kerasbn.fold(model) is model

    def test_subclassed(self):
        class Subclassed(keras.Model):
            def __init__(self):
                super().__init__()
                self.norm = kerasbn.BatchNorm()

            def call(self, x):
                return self.norm(x)

        model = Subclassed()
        model(np.ones((2, 3), "float32"))
        with pytest.raises(ValueError, match="of the class Subclassed, which has its own `call`"):
            kerasbn.fold(model)

    def test_functional_with_a_call_of_its_own(self):
        class Twice(keras.Model):
            def call(self, x, **kwargs):
                return 2 * super().call(x, **kwargs)

        x = keras.Input((5,))
        with pytest.raises(ValueError, match="of the class Twice, which has its own `call`"):
            kerasbn.fold(Twice(x, kerasbn.BatchNorm()(layers.Dense(4)(x))))

    @pytest.mark.parametrize("functional", [True, False])
    def test_a_layer_that_cannot_be_cloned(self, functional):
        class Opaque(layers.Layer):
            def __init__(self, table):
                super().__init__(name="opaque")
                self.table = table

            def call(self, x):
                return x

        model = sequential((5,), Opaque(object()), layers.Dense(4), kerasbn.BatchNorm())
        model = keras.Model(model.inputs, model.outputs) if functional else model
        with pytest.raises(ValueError, match=r"Opaque cannot be cloned.*Implement `get_config`"):
            kerasbn.fold(model)

    def test_a_layer_whose_configuration_lacks_its_size(self):
        class Forgetful(layers.Layer):
            def __init__(self, size=2, **kwargs):
                super().__init__(**kwargs)
                self.size = size

            def build(self, shape):
                self.table = self.add_weight(shape=(self.size,))

            def get_config(self):
                return super().get_config()

            def call(self, x):
                return x + keras.ops.sum(self.table)

        model = sequential((5,), Forgetful(3, name="f"), layers.Dense(4), kerasbn.BatchNorm())
        with pytest.raises(ValueError, match=r"Layer 'f'.* shapes \[\(3,\)\], .* gives \[\(2,\)\]"):
            kerasbn.fold(model)


def lenet():
    """The network of study 4, with batch norm."""

    def normed(layer):
        return layer, kerasbn.BatchNorm(), layers.Activation("sigmoid")

    return sequential(
        (28, 28, 1),
        *(*normed(layers.Conv2D(6, 5, padding="same")), layers.AveragePooling2D(2)),
        *(*normed(layers.Conv2D(16, 5)), layers.AveragePooling2D(2), layers.Flatten()),
        *(*normed(layers.Dense(120)), *normed(layers.Dense(84)), layers.Dense(10)),
    )


def settled(model, seed=0):
    """Statistics near those of data, so that a deep network's outputs depend on its inputs.

    With arbitrary ones the signal fades from layer to layer until the outputs are constant, and so
    the same whatever becomes of the first layers. Variances are up to twice the data's: with less,
    random weights amplify rounding errors until float32 itself is 1e-5 and more off float64.
    """
    rng = np.random.default_rng(seed)
    x = inputs_for(model, 16)[0]
    for norm in norms_in(model):
        norm.momentum = 0.0  # the moving averages become the batch's statistics
    model(x, training=True)
    for norm in norms_in(model):
        norm.momentum = 0.99
        variance = np.float64(keras.ops.convert_to_numpy(norm.moving_variance))
        mean = keras.ops.convert_to_numpy(norm.moving_mean)
        offset = 0.3 * rng.normal(size=mean.shape)
        norm.moving_mean.assign(mean + np.sqrt(variance) * offset)
        norm.moving_variance.assign(variance * rng.uniform(1, 2, mean.shape))
        norm.gamma.assign(rng.uniform(0.5, 1.5, mean.shape))
        norm.beta.assign(0.3 * rng.normal(size=mean.shape))
    y = outputs(model, [x])[0]
    assert np.ptp(y, axis=0).max() > 0.01 * np.abs(y).max()
    return model


RANDOM = {"weights": None, "classes": 10, "classifier_activation": None}


class TestNetworks:
    def test_lenet(self, assert_folds):
        model = settled(lenet())
        assert_folds(model)
        assert len(norms_in(model)) == 4

    @only_once
    def test_mobilenet(self, assert_folds):
        model = settled(keras.applications.MobileNetV2(input_shape=(96, 96, 3), **RANDOM))
        assert len(norms_in(model)) == 52
        assert_folds(model)

    @only_once
    def test_resnet_converted(self, assert_folds):
        model = keras.applications.ResNet50(input_shape=(64, 64, 3), **RANDOM)
        model = settled(kerasbn.from_keras(model))
        assert [type(norm) for norm in norms_in(model)] == [kerasbn.BatchNorm] * 53
        assert_folds(model)
