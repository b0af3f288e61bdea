"""`load_weights` reads the file of a model with either class of batch norm."""

from __future__ import annotations

import doctest
import warnings

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import kerasbn
from kerasbn.tools import weights as module

from .weights_models import MIXTURES, MODELS, OURS, THEIRS, assert_same, make, randomized, values

# A file does not say how it orders two classes, so a mixture fits the same mixture only.
WAYS = [(a, b) for a in MIXTURES for b in MIXTURES if a != "mixed" or b == "mixed"]
pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


@pytest.mark.parametrize(("saved", "loaded"), WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_a_file_of_either_class_loads_into_a_model_of_either(tmp_path, name, saved, loaded):
    source, target = make(name, saved, seed=1), make(name, loaded, seed=2)
    source.save_weights(tmp_path / "model.weights.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert kerasbn.load_weights(target, tmp_path / "model.weights.h5") is None
    assert_same(target, source)


@pytest.mark.parametrize("name", ["sequential", "subclassed"])
def test_sharded_files(tmp_path, name):
    source, target = make(name, "theirs", seed=1), make(name, "ours")
    source.save_weights(tmp_path / "model.weights.json", max_shard_size=200 / 1024**3)
    assert len(list(tmp_path.iterdir())) > 3
    kerasbn.load_weights(target, str(tmp_path / "model.weights.json"))
    assert_same(target, source)


def test_the_outputs_are_those_of_the_saved_model(tmp_path, features, assert_close):
    source, target = make("functional", "theirs", seed=1), make("functional", "ours")
    source.save_weights(tmp_path / "model.weights.h5")
    kerasbn.load_weights(target, tmp_path / "model.weights.h5")
    x = features((5, 3, 4))
    assert_close(target(x), keras.ops.convert_to_numpy(source(x)))


@pytest.mark.parametrize("convert", [kerasbn.from_keras, kerasbn.to_keras])
def test_a_file_of_both_classes_loads_by_the_names_of_its_batch_norms(tmp_path, convert):
    source = make("functional", "mixed", seed=1)
    source.save_weights(tmp_path / "model.weights.h5")
    target = randomized(convert(source), seed=2)
    kerasbn.load_weights(target, tmp_path / "model.weights.h5")
    assert_same(target, source)
    # And into the opposite mixture, whose groups have the same paths in another order.
    norms = [OURS(name="a"), THEIRS(name="b")], [THEIRS(name="a"), OURS(name="b")]
    source, target = (
        randomized(keras.Sequential([keras.Input((4,)), *each]), seed)
        for seed, each in enumerate(norms)
    )
    source.save_weights(tmp_path / "opposite.weights.h5")
    kerasbn.load_weights(target, tmp_path / "opposite.weights.h5")
    assert_same(target, source)


def test_layers_without_weights_do_not_count(tmp_path):
    source = keras.Sequential([keras.Input((4,)), THEIRS(), layers.Dense(2)])
    target = keras.Sequential(
        [keras.Input((4,)), OURS(), layers.ReLU(), layers.Dropout(0.5), layers.Dense(2)]
    )
    randomized(source).save_weights(tmp_path / "model.weights.h5")
    kerasbn.load_weights(target, tmp_path / "model.weights.h5")
    assert_same(target.layers[0], source.layers[0])
    assert_same(target.layers[-1], source.layers[-1])


def test_bfloat16_weights(tmp_path):
    source = keras.Sequential([keras.Input((4,)), layers.Dense(4, dtype="bfloat16"), THEIRS()])
    target = keras.Sequential([keras.Input((4,)), layers.Dense(4, dtype="bfloat16"), OURS()])
    randomized(source).save_weights(tmp_path / "model.weights.h5")
    kerasbn.load_weights(target, tmp_path / "model.weights.h5")
    assert_same([v.astype("float32") for v in values(target)], [
        v.astype("float32") for v in values(source)
    ])  # fmt: skip


@pytest.mark.parametrize("norm", [OURS, THEIRS])
def test_the_optimizer_of_a_compiled_model_is_loaded_too(tmp_path, norm):
    def compiled(kind):
        model = keras.Sequential([keras.Input((4,)), kind(), layers.Dense(1)])
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
        return model

    other = {OURS: THEIRS, THEIRS: OURS}[norm]
    source, target = compiled(norm), compiled(other)
    source.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
    source.save_weights(tmp_path / "model.weights.h5")
    kerasbn.load_weights(target, tmp_path / "model.weights.h5")
    for actual, desired in zip(target.optimizer.variables, source.optimizer.variables, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (actual, desired)))
    # A file of a compiled model fits a model that is not compiled, without a warning.
    target = keras.Sequential([keras.Input((4,)), other(), layers.Dense(1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        kerasbn.load_weights(target, tmp_path / "model.weights.h5")
    assert_same(target, source)


@pytest.mark.parametrize("options", [{"renorm": True}, {"center": False}, {"scale": False}])
def test_options_that_both_layers_have(tmp_path, options):
    source, target = (
        keras.Sequential([keras.Input((4,)), kind(**options)]) for kind in (THEIRS, OURS)
    )
    randomized(source).save_weights(tmp_path / "model.weights.h5")
    kerasbn.load_weights(target, tmp_path / "model.weights.h5")
    assert_same(target, source)


def test_files_of_keras_2_13(tmp_path):
    source, target = make("functional", "theirs", seed=1), make("functional", "ours")
    source.save_weights(tmp_path / "model.weights.h5")
    with h5py.File(tmp_path / "model.weights.h5", "a") as file:
        file.move("layers", "_layer_checkpoint_dependencies")
        time_distributed = file["_layer_checkpoint_dependencies/time_distributed/layer"]
        time_distributed.move("layers", "_layer_checkpoint_dependencies")
    kerasbn.load_weights(target, tmp_path / "model.weights.h5")
    assert_same(target, source)


def test_keras_names_groups_after_classes(tmp_path):
    """If this fails, Keras's files have changed, and `_weights_files` may be simpler or gone."""
    paths = {OURS: "layers/batch_norm_1/vars/0", THEIRS: "layers/batch_normalization_1/vars/0"}
    for kind, path in paths.items():
        model = keras.Sequential([keras.Input((4,)), kind(), kind()])
        model.save_weights(tmp_path / "model.weights.h5")
        with h5py.File(tmp_path / "model.weights.h5") as file:
            assert path in file, "Keras's weights files name groups in another way."


def test_example_in_the_docstring_runs():
    results = doctest.testmod(module)
    assert results.attempted
    assert not results.failed
