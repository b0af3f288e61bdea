"""A model for each option of the layer, for the tests of files and copies."""

from __future__ import annotations

import keras
import numpy as np

from kerasbn import BatchNorm

OPTIONS = {
    "default": {},
    "axis": {"axis": 1},
    "axes": {"axis": (1, -1)},
    "axes_in_another_order": {"axis": (-1, 1)},
    "one_axis_in_a_tuple": {"axis": (1,)},
    "momentum": {"momentum": 0.7},
    "cumulative": {"momentum": None},
    "epsilon": {"epsilon": 0.02},
    "center": {"center": False},
    "scale": {"scale": False},
    "beta_initializer": {"beta_initializer": keras.initializers.Constant(0.5)},
    "gamma_initializer": {"gamma_initializer": keras.initializers.Constant(0.5)},
    "moving_mean_initializer": {"moving_mean_initializer": keras.initializers.Constant(0.5)},
    "moving_variance_initializer": {
        "moving_variance_initializer": keras.initializers.Constant(2.0)
    },
    "beta_regularizer": {"beta_regularizer": keras.regularizers.L2(0.5)},
    "gamma_regularizer": {"gamma_regularizer": keras.regularizers.L1(0.5)},
    "beta_constraint": {"beta_constraint": keras.constraints.MaxNorm(3.0)},
    "gamma_constraint": {"gamma_constraint": keras.constraints.NonNeg()},
    "renorm": {"renorm": True, "renorm_momentum": 0.5},
    "renorm_clipping": {"renorm": True, "renorm_clipping": {"rmax": 3.0, "rmin": 0.2, "dmax": 5.0}},
    "virtual_batch_size": {"virtual_batch_size": 3},
    "unbiased_variance": {"unbiased_variance": True},
    "debias": {"debias": True},
    "dtype": {"dtype": "mixed_bfloat16"},
    "activity_regularizer": {"activity_regularizer": keras.regularizers.L2(0.1)},
    "trainable": {"trainable": False},
    "name": {"name": "norm"},
}
if keras.backend.backend() == "tensorflow":
    OPTIONS["synchronized"] = {"synchronized": True}


def untrained(options):
    return keras.Sequential([keras.Input((3, 4)), BatchNorm(**options)])


def trained(features, options):
    """Builds a model whose layer has no weight at its initial value."""
    model = untrained(options)
    model.layers[0](features((8, 3, 4), axis=(1, 2)), training=True)
    for weight in model.layers[0].trainable_weights or model.weights:
        weight.assign(np.random.default_rng(3).uniform(1, 2, weight.shape))
    return model


def assert_same_weights(model, other):
    for weight, expected in zip(other.weights, model.weights, strict=True):
        assert weight.path.split("/")[-1] == expected.path.split("/")[-1]
        assert weight.dtype == expected.dtype
        np.testing.assert_array_equal(*map(_array, (weight.value, expected.value)))


def assert_same(model, other, x):
    """Compares configurations, weights, and outputs in both modes."""
    config = other.layers[0].get_config()
    assert config == model.layers[0].get_config()
    assert type(config["axis"]) is type(model.layers[0].axis)
    assert other.trainable == model.trainable
    assert_same_weights(model, other)
    for training in (False, True):
        np.testing.assert_array_equal(
            *(_array(each(x, training=training)) for each in (model, other))
        )
    assert_same_weights(model, other)  # the training step changed both alike


def _array(tensor):
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")))
