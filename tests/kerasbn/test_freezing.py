"""`freeze` and `unfreeze`: the settings that they change, at any depth, and training afterwards."""

from __future__ import annotations

import doctest
import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import kerasbn
from kerasbn import BatchNorm
from kerasbn.tools import batch_norms, freezing

pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")
KERAS = layers.BatchNormalization
AVERAGES, AFFINE = {"moving_mean", "moving_variance"}, {"gamma", "beta"}
RNG = np.random.default_rng(0)
X, Y = RNG.normal(3, 2, (32, 4)).astype("float32"), RNG.normal(size=(32, 2)).astype("float32")


def network(kind=BatchNorm, **options):
    norm = kind(momentum=0.5, name="bn", **options)
    return keras.Sequential([keras.Input((4,)), layers.Dense(3), norm, layers.Dense(2)])


def compiled(kind=BatchNorm, **options):
    model = network(kind, **options)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def values(layer):
    return {w.name: np.array(keras.ops.convert_to_numpy(w)) for w in layer.weights}


def moved_by(model, train=lambda model: model.fit(X, Y, verbose=0)):
    """The names of the batch norm's weights that training changes."""
    norm = model.get_layer("bn")
    before = values(norm)
    train(model)
    return {name for name, v in values(norm).items() if not np.array_equal(v, before[name])}


def settings(norm):
    trained = {w.name for w in norm.trainable_weights}
    return getattr(norm, "statistics", None), norm.trainable, trained


class TestSettings:
    @pytest.mark.parametrize(
        ("kind", "arguments", "expected"),
        [
            (BatchNorm, {}, ("frozen", True, AFFINE)),
            (BatchNorm, {"affine": True}, ("frozen", False, set())),
            (BatchNorm, {"statistics": False, "affine": True}, ("auto", True, set())),
            (KERAS, {"affine": True}, (None, False, set())),
        ],
    )
    def test_table_of_the_docstring(self, kind, arguments, expected):
        model = network(kind)
        before = settings(model.get_layer("bn"))
        kerasbn.freeze(model, **arguments)
        assert settings(model.get_layer("bn")) == expected
        kerasbn.unfreeze(model)
        assert settings(model.get_layer("bn")) == before

    @pytest.mark.parametrize("option", ["scale", "center"])
    def test_without_gamma_or_beta(self, option):
        model = network(**{option: False})
        kerasbn.freeze(model, statistics=False, affine=True)
        assert not model.get_layer("bn").trainable_weights
        kerasbn.unfreeze(model)
        assert len(model.get_layer("bn").trainable_weights) == 1

    def test_two_calls_add_up(self):
        model = network()
        kerasbn.freeze(model, statistics=False, affine=True)
        kerasbn.freeze(model)
        assert settings(model.get_layer("bn")) == ("frozen", True, set())
        kerasbn.freeze(model, affine=True)
        kerasbn.freeze(model)
        assert settings(model.get_layer("bn")) == ("frozen", False, set())
        kerasbn.unfreeze(model)
        assert settings(model.get_layer("bn")) == ("auto", True, AFFINE)

    def test_unfreeze_restores_what_was_set_before(self):
        model = network()
        norm = model.get_layer("bn")
        norm.statistics, norm.gamma.trainable = "batch", False
        kerasbn.freeze(model, affine=True)
        kerasbn.unfreeze(model)
        assert settings(norm) == ("batch", True, {"beta"})
        norm.trainable = False
        kerasbn.freeze(model, affine=True)
        kerasbn.unfreeze(model)
        assert settings(norm) == ("batch", False, set())

    def test_unfreeze_keeps_what_was_set_afterwards(self):
        model = network()
        kerasbn.freeze(model)
        model.get_layer("bn").statistics = "batch"
        kerasbn.unfreeze(model)
        assert model.get_layer("bn").statistics == "batch"

    def test_where(self):
        norms = [BatchNorm(name="a"), KERAS(name="b"), BatchNorm(name="c")]
        model = keras.Sequential([keras.Input((4,)), *norms])
        kerasbn.freeze(model, where=lambda layer: layer.name in "ac")
        assert [settings(norm)[0] for norm in norms] == ["frozen", None, "frozen"]
        kerasbn.unfreeze(model, where=lambda layer: layer.name == "c")
        assert [settings(norm)[0] for norm in norms] == ["frozen", None, "auto"]


@keras.saving.register_keras_serializable(package="test_freezing")
class Cell(layers.Layer):
    """An RNN cell with a batch norm."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.state_size, self.norm = 3, BatchNorm()

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x, states, training=None):
        y = self.norm(x, training=training) + states[0]
        return y, [y]


class Block(layers.Layer):
    """A custom layer that makes its batch norm itself."""

    def build(self, shape):
        self.norm = BatchNorm()
        self.norm.build(shape)

    def call(self, x, training=None):
        return self.norm(x, training=training)


class Subclassed(keras.Model):
    """A model with its own `call`, around a functional one."""

    def __init__(self, inside):
        super().__init__()
        self.inside, self.norms = inside, [BatchNorm()]

    def call(self, x, training=None):
        return self.norms[0](self.inside(x, training=training), training=training)


def test_every_depth():
    inner = keras.Sequential([keras.Input((5, 3)), BatchNorm(), Block()])
    x = keras.Input((5, 3))
    y = layers.TimeDistributed(BatchNorm())(inner(x))
    y = layers.Bidirectional(layers.RNN(Cell()))(y)
    model = Subclassed(keras.Model(x, y))
    data = RNG.normal(size=(4, 5, 3)).astype("float32")
    model(data)
    kerasbn.freeze(model)
    before = values(model)
    model(data, training=True)
    np.testing.assert_equal(values(model), before)
    norms = batch_norms(model)
    assert len(norms) == 6
    assert {norm.statistics for norm in norms} == {"frozen"}
    kerasbn.unfreeze(model)
    assert {norm.statistics for norm in norms} == {"auto"}


class TestFit:
    def test_frozen_statistics_stay_without_compiling_again(self):
        model = compiled()
        assert moved_by(model) == AVERAGES | AFFINE
        kerasbn.freeze(model)
        assert moved_by(model) == AFFINE
        kerasbn.unfreeze(model)
        assert moved_by(model) == AVERAGES | AFFINE

    def test_in_evaluate_and_predict(self):
        model = compiled(statistics="batch")
        averages = network()
        averages.set_weights(model.get_weights())
        model.evaluate(X, Y, verbose=0)
        by_batch = model.predict(X, verbose=0)
        kerasbn.freeze(model)
        expected = averages.predict(X, verbose=0)
        np.testing.assert_allclose(model.predict(X, verbose=0), expected, rtol=1e-5, atol=1e-6)
        assert np.abs(by_batch - expected).max() > 0.1
        loss = model.evaluate(X, Y, verbose=0)
        assert loss == pytest.approx(np.mean((expected - Y) ** 2), rel=1e-5)

    def test_of_a_model_around_a_frozen_part(self):
        inner = network()
        model = keras.Sequential([keras.Input((4,)), inner])
        model.compile("sgd", "mse")

        def train(inner):
            model.fit(X, Y, verbose=0)

        assert moved_by(inner, train) == AVERAGES | AFFINE
        kerasbn.freeze(model, where=lambda layer: layer is inner.get_layer("bn"))
        assert moved_by(inner, train) == AFFINE

    def test_in_a_callback(self):
        averages = []

        class FreezeLater(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 1:
                    kerasbn.freeze(self.model)

            def on_epoch_end(self, epoch, logs=None):
                averages.append(values(self.model.get_layer("bn"))["moving_mean"])

        model = compiled()
        model.fit(X, Y, epochs=3, verbose=0, callbacks=[FreezeLater()])
        first, second, third = averages
        assert np.abs(first).max() > 0
        np.testing.assert_array_equal(second, first)
        np.testing.assert_array_equal(third, first)

    @pytest.mark.parametrize("kind", [BatchNorm, KERAS])
    def test_frozen_with_gamma_and_beta(self, kind):
        model = compiled(kind)
        model.fit(X, Y, verbose=0)
        message = r"weights of model 'seq.*' have changed, but its optimizer was made for the old"
        with pytest.warns(UserWarning, match=message) as caught:
            kerasbn.freeze(model, affine=True)
        assert caught[0].filename == __file__
        model.compile(keras.optimizers.SGD(0.1), "mse")
        assert moved_by(model) == set()
        with pytest.warns(UserWarning, match=message):
            kerasbn.unfreeze(model)
        model.compile(keras.optimizers.SGD(0.1), "mse")
        assert moved_by(model) == AVERAGES | AFFINE

    def test_frozen_gamma_and_beta_with_live_statistics(self):
        model = compiled()
        kerasbn.freeze(model, statistics=False, affine=True)
        assert moved_by(model) == AVERAGES

    def test_nothing_is_compiled_again_without_a_change(self):
        model = compiled()
        kerasbn.freeze(model)
        model.fit(X, Y, verbose=0)
        function = model.train_function
        kerasbn.freeze(model)
        assert model.train_function is function


class TestCopies:
    @staticmethod
    def loaded(tmp_path, **arguments):
        model = network()
        kerasbn.freeze(model, **arguments)
        model.save(tmp_path / "model.keras")
        return keras.models.load_model(tmp_path / "model.keras")

    def test_statistics(self, tmp_path):
        loaded = self.loaded(tmp_path)
        assert loaded.get_layer("bn").statistics == "frozen"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            kerasbn.unfreeze(loaded)
        assert settings(loaded.get_layer("bn")) == ("auto", True, AFFINE)

    def test_trainable(self, tmp_path):
        loaded = self.loaded(tmp_path, affine=True)
        message = r"1 batch norm of model 'seq.*' with trainable=False may still be frozen.*: bn\."
        with pytest.warns(UserWarning, match=message) as caught:
            kerasbn.unfreeze(loaded)
        assert caught[0].filename == __file__
        assert settings(loaded.get_layer("bn")) == ("auto", False, set())


class TestBadInput:
    @pytest.mark.parametrize("tool", [kerasbn.freeze, kerasbn.unfreeze])
    def test_not_a_built_model(self, tool):
        with pytest.raises(ValueError, match=r"Received: .*BatchNorm.* Put a single layer into"):
            tool(BatchNorm())
        model = keras.Sequential([layers.Dense(3), BatchNorm()], name="raw")
        with pytest.raises(ValueError, match="Received: model 'raw', which has no weights yet"):
            tool(model)

    @pytest.mark.parametrize("tool", [kerasbn.freeze, kerasbn.unfreeze])
    def test_without_batch_norm(self, tool):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3)], name="bare")
        with pytest.warns(UserWarning, match="Model 'bare' has no BatchNorm") as caught:
            tool(model)
        assert caught[0].filename == __file__

    @pytest.mark.parametrize("tool", [kerasbn.freeze, kerasbn.unfreeze])
    def test_where(self, tool):
        model = network()
        with pytest.raises(ValueError, match=r"Expected where to be .* Received: 'bn'"):
            tool(model, where="bn")
        with pytest.warns(UserWarning, match="`where` returns false for the only") as caught:
            tool(model, where=lambda layer: False)
        assert caught[0].filename == __file__
        assert settings(model.get_layer("bn")) == ("auto", True, AFFINE)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"statistics": False}, "statistics=False, affine=False, which freezes nothing"),
            ({"statistics": "frozen"}, "Expected statistics to be True or False.*'frozen'"),
            ({"affine": None}, "Expected affine to be True or False.* Received: affine=None"),
        ],
    )
    def test_flags(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            kerasbn.freeze(network(), **arguments)

    @pytest.mark.parametrize("part", ["statistics", "affine"])
    def test_one_part_of_a_batch_norm_of_keras(self, part):
        norms = [BatchNorm(), KERAS(name="theirs")]
        model = keras.Sequential([keras.Input((4,)), *norms])
        flags = {"statistics": part == "statistics", "affine": part == "affine"}
        message = (
            f"Received: {part}=True, .*1 keras.layers.BatchNormalization: 'theirs'.*from_keras"
        )
        with pytest.raises(ValueError, match=message):
            kerasbn.freeze(model, **flags)
        assert settings(norms[0]) == ("auto", True, AFFINE)

    def test_nothing_to_unfreeze(self):
        message = re.escape("`freeze` has frozen no batch norm of model")
        with pytest.warns(UserWarning, match=message) as caught:
            kerasbn.unfreeze(network())
        assert caught[0].filename == __file__


def test_the_examples_of_the_docstrings():
    results = doctest.testmod(freezing)
    assert results.attempted > 5
    assert results.failed == 0


def test_a_model_that_was_compiled_without_an_optimizer():
    model = network()
    model.compile(optimizer=None, loss="mse")
    kerasbn.freeze(model, affine=True)
    assert not model.get_layer("bn").gamma.trainable
