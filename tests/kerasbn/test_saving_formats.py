"""Every option of the layer, through every format that Keras has for files and copies."""

from __future__ import annotations

import copy
import pickle

import keras
import numpy as np
import pytest
from keras import layers

from kerasbn import BatchNorm
from kerasbn.tools import batch_norms

from .saved_models import OPTIONS, assert_same, trained, untrained

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
TENSORFLOW = keras.backend.backend() == "tensorflow"
only_tensorflow = pytest.mark.skipif(not TENSORFLOW, reason="a format of TensorFlow")


def keras_file(model, options, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def legacy_file(model, options, folder):
    model.save(folder / "model.h5")
    return keras.models.load_model(folder / "model.h5")


def weights_file(model, options, folder):
    model.save_weights(folder / "model.weights.h5")
    again = untrained(options)
    again.load_weights(folder / "model.weights.h5")
    return again


def checkpoint(model, options, folder):
    import tensorflow as tf

    path = tf.train.Checkpoint(model=model).save(folder / "checkpoint")
    again = untrained(options)
    tf.train.Checkpoint(model=again).restore(path).assert_existing_objects_matched()
    return again


def clone(model, options, folder):
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())  # `clone_model` is documented to make new weights
    return again


def deepcopy(model, options, folder):
    return copy.deepcopy(model)


def pickled(model, options, folder):
    return pickle.loads(pickle.dumps(model))


def deepcopy_of_the_layer(model, options, folder):
    return keras.Sequential([keras.Input((3, 4)), copy.deepcopy(model.layers[0])])


def pickle_of_the_layer(model, options, folder):
    layer = pickle.loads(pickle.dumps(model.layers[0]))
    return keras.Sequential([keras.Input((3, 4)), layer])


FORMATS = [keras_file, legacy_file, weights_file, clone, deepcopy, pickled]
FORMATS += [deepcopy_of_the_layer, pickle_of_the_layer] + [checkpoint] * TENSORFLOW
# These change the weights, their shapes or the arithmetic. The others need --full.
BY_DEFAULT = ("axes", "one_axis_in_a_tuple", "cumulative", "renorm_clipping", "virtual_batch_size")
NAMES = [n if n in BY_DEFAULT else pytest.param(n, marks=pytest.mark.full) for n in OPTIONS]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("through", FORMATS, ids=lambda f: f.__name__)
def test_a_copy_has_the_same_options_weights_and_outputs(features, tmp_path, through, name):
    options = OPTIONS[name]
    model = trained(features, options)
    again = through(model, options, tmp_path)
    if through in (weights_file, checkpoint):  # neither holds names
        again.layers[0].name = model.layers[0].name
    assert_same(model, again, features((8, 3, 4), axis=(1, 2), seed=1))
    again.layers[0].moving_mean.assign(np.zeros(again.layers[0].moving_mean.shape))
    assert keras.ops.convert_to_numpy(model.layers[0].moving_mean.value).any()


def exported(model, folder):
    import tensorflow as tf

    model.export(folder, verbose=False)
    loaded = tf.saved_model.load(folder)
    return lambda x: loaded.serve(x)


def exported_as_a_layer(model, folder):
    model.export(folder, verbose=False)
    return keras.layers.TFSMLayer(folder, call_endpoint="serve")


def saved_by_tensorflow(model, folder):
    import tensorflow as tf

    tf.saved_model.save(model, str(folder))
    function = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return lambda x: next(iter(function(tf.constant(x)).values()))


@only_tensorflow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "through", [exported, exported_as_a_layer, saved_by_tensorflow], ids=lambda f: f.__name__
)
def test_a_saved_model_has_the_same_outputs(features, tmp_path, assert_close, through, name):
    model = trained(features, OPTIONS[name])
    function = through(model, tmp_path / "saved")
    for batch in (1, 5):
        x = features((batch, 3, 4), axis=(1, 2), seed=1)
        tolerance = 1e-2 if name == "dtype" else 1e-6
        assert_close(
            keras.ops.cast(function(x), "float32"), keras.ops.cast(model(x), "float32"), tolerance
        )


def test_several_axes_in_a_legacy_file_at_any_depth(features, tmp_path):
    x = keras.Input((2, 3, 4))
    inner = keras.Sequential([keras.Input((3, 4)), BatchNorm(axis=(1, 2), name="inner")])
    y = layers.TimeDistributed(BatchNorm(axis=(1, -1), name="wrapped"))(x)
    y = layers.TimeDistributed(inner)(BatchNorm(axis=[-1, 1], name="outer")(y))
    model = keras.Model(x, y)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 2.0, weight.shape))
    again = legacy_file(model, {}, tmp_path)
    assert again.get_layer("outer").axis == (-1, 1)
    assert again.layers[1].layer.axis == (1, -1)
    x = features((5, 2, 3, 4))
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(m(x)) for m in (model, again)))
    configs = [[norm.get_config() for norm in batch_norms(m)] for m in (again, model)]
    assert configs[0] == configs[1]
    assert "axes" not in again.get_layer("outer").get_config()
