"""`recalibrate` sets the statistics that NumPy computes, in every kind of layer and model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasbn

from .recalibrated_models import BATCHES, KINDS, RNG, X, one_norm, population, state, value

pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


class TestStatistics:
    @pytest.mark.parametrize("kind", KINDS)
    def test_of_two_layers_with_dropout_between(self, kind, assert_statistics):
        model = keras.Sequential(
            [
                *(keras.Input((4,)), layers.Dense(5, name="a"), kind(epsilon=0.01, name="first")),
                *(
                    layers.ReLU(),
                    layers.Dropout(0.5),
                    layers.Dense(3, name="b"),
                    kind(name="second"),
                ),
            ]
        )
        gamma, beta = RNG.uniform(0.5, 2, 5), RNG.normal(size=5)
        model.get_layer("first").gamma.assign(gamma)
        model.get_layer("first").beta.assign(beta)
        kerasbn.recalibrate(model, BATCHES)

        (w, b), (v, c) = (map(np.float64, model.get_layer(name).get_weights()) for name in "ab")
        first = [np.float64(x) @ w + b for x in BATCHES]
        normalized = [gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + 0.01) + beta for x in first]
        second = [np.maximum(x, 0) @ v + c for x in normalized]
        assert_statistics(model.get_layer("first"), population(first))
        assert_statistics(model.get_layer("second"), population(second))

    def test_of_one_batch_are_the_sample_mean_and_variance(self, assert_statistics):
        model = one_norm()
        kerasbn.recalibrate(model, [X])
        assert_statistics(model.layers[0], (X.mean(0, "float64"), X.var(0, "float64", ddof=1)))

    def test_of_equal_batches_are_those_of_the_paper(self, assert_statistics):
        model, batches = one_norm(), np.float64(X[:60]).reshape(3, 20, 4)
        kerasbn.recalibrate(model, list(batches))
        assert_statistics(model.layers[0], (batches.mean((0, 1)), 20 / 19 * batches.var(1).mean(0)))

    @pytest.mark.parametrize("kind", KINDS)
    def test_of_images_count_every_position(self, kind, assert_statistics):
        x = X[:64].reshape(8, 2, 4, 4)
        model = one_norm(kind, (4, 2, 4), axis=1)
        kerasbn.recalibrate(model, x.transpose(0, 3, 1, 2), batch_size=5)
        assert_statistics(model.layers[0], population([x[:5], x[5:]]))

    def test_of_several_axes(self, assert_close):
        x = X[:60].reshape(15, 4, 4)
        model = one_norm(shape=(4, 4), axis=(1, 2))
        kerasbn.recalibrate(model, [x])
        assert_close(model.layers[0].moving_mean, x.mean(0, "float64"))
        assert_close(model.layers[0].moving_variance, x.var(0, "float64", ddof=1))

    @pytest.mark.parametrize("kind", KINDS)
    def test_leave_out_what_is_masked(self, kind, assert_statistics):
        x = X[:60].reshape(10, 6, 4).copy()
        x[3:, 4:] = x[:2, 1:] = 0.0
        model = keras.Sequential([keras.Input((6, 4)), layers.Masking(), kind()])
        kerasbn.recalibrate(model, [x[:6], x[6:]])
        seen = [batch[batch.any(-1)] for batch in (x[:6], x[6:])]
        assert_statistics(model.layers[-1], population(seen))

    def test_of_ghost_batches_treat_each_as_a_batch(self, assert_statistics):
        model = one_norm(virtual_batch_size=16)
        kerasbn.recalibrate(model, [X[:40], X[40:]])
        ghosts = [X[:16], X[16:32], X[32:40], X[40:56], X[56:]]
        assert_statistics(model.layers[0], population(ghosts))

    def test_of_a_layer_that_is_called_twice_count_both_calls(self, assert_statistics):
        x, norm = keras.Input((4,)), kerasbn.BatchNorm()
        model = keras.Model(x, [norm(x), norm(3.0 * x)])
        kerasbn.recalibrate(model, [X[:50], X[50:]])
        assert_statistics(norm, population([X[:50], 3.0 * X[:50], X[50:], 3.0 * X[50:]]))

    @pytest.mark.parametrize("kind", KINDS)
    def test_of_renorm_agree_among_each_other(self, kind, assert_statistics, assert_close):
        model = one_norm(kind, renorm=True)
        before = {weight.name: value(weight).copy() for weight in model.weights}
        kerasbn.recalibrate(model, BATCHES)
        norm = model.layers[0]
        assert_statistics(norm, population(BATCHES))
        assert_close(norm.moving_stddev, np.sqrt(value(norm.moving_variance) + 1e-3))
        for name in ("renorm_mean", "renorm_stddev"):
            np.testing.assert_array_equal(value(getattr(norm, name)), before[name])

    @pytest.mark.parametrize("options", [{"momentum": None}, {"debias": True}])
    def test_with_a_count_of_updates_leave_the_count(self, options, assert_statistics):
        model = one_norm(**options)
        model(X, training=True)
        kerasbn.recalibrate(model, BATCHES)
        assert_statistics(model.layers[0], population(BATCHES))
        assert value(model.layers[0].update_count).tolist() == [1, 1, 1, 1]

    def test_are_exact_at_large_offsets(self, assert_statistics):
        x = (RNG.normal(size=(500, 4)) + 1e4).astype("float32")
        model = one_norm()
        kerasbn.recalibrate(model, x, batch_size=50)
        assert_statistics(model.layers[0], population(np.split(x, 10)))

    def test_in_half_precision(self, assert_statistics):
        model = one_norm(dtype="mixed_bfloat16")
        kerasbn.recalibrate(model, BATCHES)
        assert_statistics(model.layers[0], population(BATCHES))


class Subclassed(keras.Model):
    """A subclassed model with batch norms in a list, in a block and in a wrapper."""

    def __init__(self):
        super().__init__()
        self.blocks = [keras.Sequential([layers.Dense(4), kerasbn.BatchNorm()]) for _ in range(2)]
        self.each = layers.TimeDistributed(keras.layers.BatchNormalization())
        self.drop = layers.Dropout(0.5, seed=3)

    def call(self, x, training=None):
        for block in self.blocks:
            x = self.drop(block(x, training=training), training=training)
        return self.each(ops.reshape(x, (-1, 2, 2)), training=training)


class TestModels:
    def test_subclassed_ones_at_any_depth(self, assert_statistics):
        model = Subclassed()
        model(X)
        kerasbn.recalibrate(model, BATCHES)
        first = model.blocks[0]
        w, b = map(np.float64, first.layers[0].get_weights())
        assert_statistics(first.layers[1], population([x @ w + b for x in BATCHES]))
        for norm in (model.blocks[1].layers[1], model.each.layer):
            assert np.all(value(norm.moving_variance) != 1)

    def test_nested_ones_and_frozen_layers(self, assert_statistics):
        norm = kerasbn.BatchNorm(trainable=False)
        inner = keras.Sequential([keras.Input((4,)), norm])
        x = keras.Input((4,))
        model = keras.Model(x, keras.Sequential([inner])(x, training=False))
        with pytest.warns(UserWarning, match="1 frozen batch norm"):
            kerasbn.recalibrate(model, BATCHES)
        assert_statistics(norm, population(BATCHES))
        assert not norm.trainable

    def test_inference_then_uses_the_statistics(self, assert_close):
        model = one_norm()
        kerasbn.recalibrate(model, BATCHES)
        mean, variance = population(BATCHES)
        assert_close(model(X), (X - mean) / np.sqrt(variance + 1e-3))
        assert_close(model.predict(X, verbose=0), (X - mean) / np.sqrt(variance + 1e-3))

    def test_nothing_else_changes(self):
        model = keras.Sequential(
            [
                *(keras.Input((4,)), layers.Dense(4), layers.Dropout(0.5, seed=1)),
                *(kerasbn.BatchNorm(), layers.GaussianNoise(1.0, seed=2)),
            ]
        )
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
        model(X, training=True)
        config, before = model.get_config(), state(model)
        of_optimizer = [value(variable).copy() for variable in model.optimizer.variables]
        kerasbn.recalibrate(model, X)
        changed = [
            variable.name
            for variable, old, new in zip(model.variables, before, state(model), strict=True)
            if not np.array_equal(old, new)
        ]
        assert changed == ["moving_mean", "moving_variance"]
        assert model.get_config() == config
        assert all("call" not in vars(layer) for layer in model.layers)
        for variable, old in zip(model.optimizer.variables, of_optimizer, strict=True):
            np.testing.assert_array_equal(value(variable), old)

    def test_what_other_layers_count_in_inference_stays(self):
        class Counter(layers.Layer):
            def build(self, shape):
                self.calls = self.add_weight(initializer="zeros", trainable=False)

            def call(self, x):
                self.calls.assign(self.calls + 1)
                return x

        model = keras.Sequential([keras.Input((4,)), Counter(name="counter"), kerasbn.BatchNorm()])
        model(X)
        kerasbn.recalibrate(model, BATCHES)
        assert value(model.get_layer("counter").calls) == 1
