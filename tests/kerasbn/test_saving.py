"""Saving, loading, copying, and moving weights to and from Keras's layer."""

import copy
import json
import pickle

import keras
import numpy as np
import pytest

import kerasbn
from kerasbn import BatchNorm

OPTIONS = {
    "axis": {"axis": 1},
    "axes": {"axis": (1, -1)},
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
    "trainable": {"trainable": False},
    "name": {"name": "norm"},
}
if keras.backend.backend() == "tensorflow":
    OPTIONS["synchronized"] = {"synchronized": True}


def trained(features, options):
    """Builds a model whose layer has no weight at its initial value."""
    layer = BatchNorm(**options)
    model = keras.Sequential([keras.Input((3, 4)), layer])
    layer(features((8, 3, 4), axis=(1, 2)), training=True)
    for weight in layer.trainable_weights:
        weight.assign(np.random.default_rng(3).uniform(1, 2, weight.shape))
    return model


def assert_same(model, other):
    assert other.layers[0].get_config() == model.layers[0].get_config()
    for weight, expected in zip(other.weights, model.weights, strict=True):
        assert weight.path.split("/")[-1] == expected.path.split("/")[-1]
        np.testing.assert_array_equal(
            *(keras.ops.convert_to_numpy(w.value) for w in (weight, expected))
        )


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_config_round_trip_keeps_every_option(options):
    layer = BatchNorm(**options)
    config = json.loads(json.dumps(layer.get_config()))
    again = BatchNorm.from_config(config)
    assert json.dumps(again.get_config()) == json.dumps(layer.get_config())
    for name, value in options.items():
        if isinstance(value, (int, float, str, tuple, dict, type(None))) and name != "dtype":
            assert getattr(again, name) == value


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_keras_file_keeps_options_and_weights(features, tmp_path, options):
    model = trained(features, options)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_same(model, again)
    x = features((8, 3, 4), axis=(1, 2), seed=1)
    # Not `predict`, which would compile both models.
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(m(x)) for m in (model, again)))


@pytest.mark.parametrize("name", ["axes", "cumulative", "renorm", "debias", "scale"])
def test_weights_file_keeps_the_weights(features, tmp_path, name):
    model = trained(features, OPTIONS[name])
    model.save_weights(tmp_path / "model.weights.h5")
    again = keras.Sequential([keras.Input((3, 4)), BatchNorm(**OPTIONS[name])])
    again.load_weights(tmp_path / "model.weights.h5")
    for weight, expected in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(
            *(keras.ops.convert_to_numpy(w.value) for w in (weight, expected))
        )


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


@pytest.mark.parametrize("name", ["axes", "cumulative", "renorm", "virtual_batch_size"])
@pytest.mark.parametrize(
    "duplicate", [keras.models.clone_model, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],
    ids=["clone", "deepcopy", "pickle"],
)  # fmt: skip
def test_copy_of_a_model_is_its_equal(features, duplicate, name):
    model = trained(features, OPTIONS[name])
    again = duplicate(model)
    if duplicate is keras.models.clone_model:  # documented to make new weights
        again.set_weights(model.get_weights())
    assert_same(model, again)
    again.layers[0].moving_mean.assign(np.zeros(again.layers[0].moving_mean.shape))
    assert keras.ops.convert_to_numpy(model.layers[0].moving_mean.value).any()


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


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModel is TensorFlow's")
@pytest.mark.parametrize("name", ["axes", "cumulative", "renorm", "virtual_batch_size"])
def test_exported_saved_model_gives_the_same_outputs(features, tmp_path, assert_close, name):
    import tensorflow as tf

    model = trained(features, OPTIONS[name])
    model.export(tmp_path / "exported", verbose=False)
    again = tf.saved_model.load(tmp_path / "exported")
    for batch in (1, 5):
        x = features((batch, 3, 4), axis=(1, 2), seed=1)
        assert_close(again.serve(x), model.predict(x, verbose=0), 1e-6)
