"""`fold` puts a batch norm into the layer before or after it, and keeps the outputs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kerasbn
from kerasbn import folding

from .folded_models import BACKEND, KINDS, inputs_for, norms_in, outputs, randomized, sequential

# JAX takes half a second to compile a model.
slow_on_jax = [pytest.mark.full] if BACKEND == "jax" else []
WITH_AND_WITHOUT_BIAS = [False, pytest.param(True, marks=slow_on_jax)]
pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


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
        except Exception as error:  # TensorFlow lacks some of them on a CPU
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
