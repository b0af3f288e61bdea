"""`fold`: what prevents it, its report, and bad input."""

from __future__ import annotations

import doctest
import re

import keras
import numpy as np
import pytest
from keras import layers

import kerasbn
from kerasbn import folding

from .folded_models import BACKEND, norms_in, randomized, sequential
from .folded_models import bn as _bn

pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


class Doubled(kerasbn.BatchNorm):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


class Block(layers.Layer):
    """A user-defined layer with a dense layer and a batch norm inside."""

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


class TestReport:
    def test_verbose_prints_each_decision_and_the_count(self, capsys):
        stack = layers.Dense(4, name="a"), _bn(), layers.ReLU(), kerasbn.BatchNorm(name="last")
        kerasbn.fold(sequential((5,), *stack), verbose=True)
        first, second, last, *_ = capsys.readouterr().out.splitlines()
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
