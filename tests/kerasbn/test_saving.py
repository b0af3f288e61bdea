"""The layer's configuration, and moving weights to and from Keras's layer."""

import json

import keras
import numpy as np
import pytest

import kerasbn
from kerasbn import BatchNorm

from .saved_models import OPTIONS


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_config_round_trip_keeps_every_option(options):
    layer = BatchNorm(**options)
    config = json.loads(json.dumps(layer.get_config()))
    again = BatchNorm.from_config(config)
    assert json.dumps(again.get_config()) == json.dumps(layer.get_config())
    for name, value in options.items():
        if isinstance(value, (int, float, str, tuple, dict, type(None))) and name != "dtype":
            assert getattr(again, name) == value


def test_config_has_all_of_kerass_entries():
    ours, theirs = (
        layer(name="norm").get_config() for layer in (BatchNorm, keras.layers.BatchNormalization)
    )
    assert {key: ours[key] for key in theirs} == theirs


def test_config_is_json_when_the_options_are_numpys():
    layer = BatchNorm(
        axis=np.int64(1),
        momentum=np.float32(0.5),
        epsilon=np.float64(0.25),
        renorm=True,
        renorm_clipping={"rmax": np.float32(3.0)},
        renorm_momentum=np.float32(0.5),
    )
    config = json.loads(json.dumps(layer.get_config()))
    assert (config["axis"], config["momentum"], config["epsilon"]) == (1, 0.5, 0.25)
    assert (config["renorm_clipping"], config["renorm_momentum"]) == ({"rmax": 3.0}, 0.5)
    ghost = BatchNorm(virtual_batch_size=np.int32(4))
    assert json.loads(json.dumps(ghost.get_config()))["virtual_batch_size"] == 4


def test_registered_name_is_of_the_package():
    assert keras.saving.get_registered_name(BatchNorm) == "kerasbn>BatchNorm"
    assert keras.saving.get_registered_object("kerasbn>BatchNorm") is kerasbn.BatchNorm


@pytest.mark.parametrize("options", [{}, {"renorm": True}, {"center": False}, {"scale": False}])
def test_weights_move_both_ways_between_keras_and_us(features, assert_close, options):
    # Means no larger than the deviations: in Keras's x * multiplier + offset large terms cancel.
    x = features((8, 3, 4), means=(-2, 2), scales=(0.5, 3))
    ours, theirs = BatchNorm(**options), keras.layers.BatchNormalization(**options)
    ours.build(x.shape)
    theirs.build(x.shape)
    weights = [np.random.default_rng(3).uniform(0.5, 2, w.shape) for w in theirs.weights]
    theirs.set_weights(weights)
    ours.set_weights(theirs.get_weights())
    assert_close(ours(x), keras.ops.convert_to_numpy(theirs(x)))
    ours(x, training=True)
    theirs.set_weights(ours.get_weights())
    assert_close(theirs(x), keras.ops.convert_to_numpy(ours(x)))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs tf.train.Checkpoint")
@pytest.mark.parametrize("way", ["to us", "to keras"])
def test_tensorflow_checkpoint_moves_both_ways(features, tmp_path, assert_close, way):
    import tensorflow as tf

    layers = [keras.layers.BatchNormalization, BatchNorm]
    layers = layers if way == "to us" else layers[::-1]
    source, target = (keras.Sequential([keras.Input((4,)), layer()]) for layer in layers)
    source(features((8, 4)), training=True)
    path = tf.train.Checkpoint(model=source).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(model=target).restore(path).assert_existing_objects_matched()
    for weight, expected in zip(target.weights, source.weights, strict=True):
        assert_close(weight, expected, 0)
