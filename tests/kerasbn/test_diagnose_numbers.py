"""The numbers in a report of `diagnose` are those of NumPy, of `evaluate` and of `recalibrate`."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kerasbn
from kerasbn.tools import _findings

from .broken_models import KINDS, X, Y, healthy, network
from .recalibrated_models import population, value

pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")
BATCHES = [X[i : i + 64] for i in range(0, 512, 64)]


def lagging(kind=kerasbn.BatchNorm, **options):
    """A network with random moving averages."""
    model = network(kind, **options)
    for name, seed in (("first", 1), ("second", 2)):
        rng, norm = np.random.default_rng(seed), model.get_layer(name)
        norm.moving_mean.assign(rng.normal(size=norm.moving_mean.shape))
        norm.moving_variance.assign(rng.uniform(0.2, 3, norm.moving_mean.shape))
        norm.gamma.assign(rng.uniform(0.5, 1.5, norm.moving_mean.shape))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def copy_of(model, kind=kerasbn.BatchNorm):
    copy = network(kind)
    copy.set_weights(model.get_weights())
    copy.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return copy


def layer_of(report, name):
    return next(layer for layer in report.layers if layer.layer == name)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_evaluate_before_and_after_recalibrate(kind):
    model = lagging(kind)
    report = kerasbn.diagnose(model, (X, Y), batch_size=64)
    copy = copy_of(model, kind)
    before = copy.evaluate(X, Y, batch_size=64, verbose=0)
    kerasbn.recalibrate(copy, X, batch_size=64)
    after = copy.evaluate(X, Y, batch_size=64, verbose=0)
    assert [report.inference.loss, report.inference.accuracy] == pytest.approx(before, rel=1e-5)
    assert [report.recalibrated.loss, report.recalibrated.accuracy] == pytest.approx(
        after, rel=1e-5
    )
    assert report.summary.startswith(
        f"Accuracy is {before[1]:.1%} in inference mode and would be {after[1]:.1%} after "
        "recalibrate."
    )
    for name in ("first", "second"):
        norm, layer = copy.get_layer(name), layer_of(report, name)
        np.testing.assert_allclose(layer.mean, value(norm.moving_mean), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(layer.variance, value(norm.moving_variance), rtol=1e-5)


def test_the_score_with_batch_statistics_is_that_of_training_mode():
    model = lagging()
    report = kerasbn.diagnose(model, (X, Y), batch_size=64)
    pairs = zip(BATCHES, np.split(Y, 8), strict=True)
    right = np.concatenate([value(model(x, training=True))[range(64), y] for x, y in pairs])
    assert report.batch_statistics.loss == pytest.approx(-np.mean(np.log(right)), rel=1e-4)


def test_drift_is_the_error_of_normalized_values():
    model = lagging()
    layer = layer_of(kerasbn.diagnose(model, BATCHES), "first")
    mean, variance = population(BATCHES)
    moving = [np.float64(value(v)) for v in model.get_layer("first").non_trainable_variables]
    right = (np.float64(X) - mean) / np.sqrt(variance + 1e-3)
    wrong = (np.float64(X) - moving[0]) / np.sqrt(moving[1] + 1e-3)
    assert layer.drift == pytest.approx(np.sqrt(np.mean((wrong - right) ** 2)), rel=0.01)
    shift = (moving[0] - mean) / np.sqrt(variance + 1e-3)
    assert layer.mean_shift == pytest.approx(np.sqrt(np.mean(shift**2)), rel=1e-5)
    np.testing.assert_allclose(layer.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.variance, variance, rtol=1e-5)
    assert layer.values_per_batch == 64
    assert layer.calls == 1


def test_effects_are_those_of_one_norm_at_a_time():
    model = lagging()
    report = kerasbn.diagnose(model, X, batch_size=64)
    right = copy_of(model)
    kerasbn.recalibrate(right, X, batch_size=64)
    expected = right.predict(X, verbose=0)
    spread = np.sqrt(expected.var(0).mean())
    for name in ("first", "second"):
        mixed = copy_of(right)
        mixed.get_layer(name).set_weights(model.get_layer(name).get_weights())
        change = np.sqrt(np.mean((mixed.predict(X, verbose=0) - expected) ** 2)) / spread
        assert layer_of(report, name).effect == pytest.approx(change, rel=1e-3)
    change = np.sqrt(np.mean((model.predict(X, verbose=0) - expected) ** 2)) / spread
    assert report.gap == pytest.approx(change, rel=1e-3)
    assert report.cause == max(report.layers, key=lambda layer: layer.effect).layer


@pytest.mark.parametrize("model", [lagging, lambda: healthy(kerasbn.BatchNorm)])
def test_passes_are_three_and_one_for_each_suspicious_norm(model):
    calls = 0

    class Counting(layers.Layer):
        def call(self, x):
            nonlocal calls
            calls += 1
            return x

    counted = keras.Sequential([keras.Input((6,)), Counting(), model()])
    counted.run_eagerly = True
    calls = 0
    report = kerasbn.diagnose(counted, X, batch_size=128)
    examined = sum(layer.effect is not None for layer in report.layers)
    assert report.passes == calls / 4 == 3 + examined
    assert examined == (2 if model is lagging else 0)


class TestDropout:
    # Mean c and variance v of Li et al. (2019), equation 4, with p = 1 - rate.
    C, V = np.array([0.0, 1.0, -3.0]), np.array([1.0, 4.0, 0.25])

    @pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
    def test_the_shift_is_that_of_the_paper(self, rate):
        p = 1 - rate
        expected = self.V / ((self.C**2 + self.V) / p - self.C**2)
        actual = _findings.dropout_shift(self.V, self.C**2 + self.V, rate)
        np.testing.assert_allclose(actual, expected, rtol=1e-12)

    @pytest.mark.parametrize("between", [False, True], ids=["direct", "dense between"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_predicted_shift_is_that_of_keras_dropout(self, kind, between):
        drop = layers.Dropout(0.4, name="drop", seed=1)
        dense = layers.Dense(4, use_bias=False)
        model = keras.Sequential(
            [keras.Input((6,)), drop, *([dense] if between else []), kind(name="norm")]
        )
        x = np.repeat(np.random.default_rng(1).permutation(X), 20, 0)
        report = kerasbn.diagnose(model, X, batch_size=128)
        (finding,) = [f for f in report.findings if f.fault == "dropout before norm"]
        apply = keras.Sequential([keras.Input((6,)), *model.layers[:-1]])
        ratios = apply.predict(x, verbose=0).var(0) / value(apply(x, training=True)).var(0)
        expected = np.exp(np.mean(np.log(ratios)))
        predicted = float(finding.sentence.split(" times as large (predicted")[0].split()[-1])
        assert predicted == pytest.approx(expected, abs=0.02)

    def test_a_batch_norm_or_a_nonlinear_layer_between_stops_it(self):
        inputs = keras.Input((6,))
        y = layers.Dense(8, activation="tanh")(layers.Dropout(0.5)(inputs))
        model = keras.Model(inputs, kerasbn.BatchNorm()(y))
        kerasbn.recalibrate(model, X)
        assert kerasbn.diagnose(model, X).findings == ()


@pytest.mark.parametrize("share", [0.9, 0.5])
def test_the_share_of_initial_values_is_estimated_without_a_count(share):
    model = keras.Sequential([keras.Input((6,)), kerasbn.BatchNorm(name="norm")])
    mean, variance = population(BATCHES)
    norm = model.get_layer("norm")
    norm.moving_mean.assign((1 - share) * mean)
    norm.moving_variance.assign(share + (1 - share) * variance)
    report = kerasbn.diagnose(model, BATCHES)
    assert report.layers[0].old_share == pytest.approx(share, abs=0.01)
    assert report.layers[0].updates is None
    assert report.findings[0].sentence.startswith(f"About {share:.0%} of their initial values")


def test_updates_are_counted_by_the_layer_or_by_the_optimizer():
    model = network(kerasbn.BatchNorm, kerasbn.BatchNorm(name="second", debias=True))
    model.compile("sgd", "sparse_categorical_crossentropy")
    for x, y in zip(BATCHES[:5], np.split(Y, 8)[:5], strict=True):
        model.train_on_batch(x, y)
    first, second = kerasbn.diagnose(model, X).layers
    assert (first.updates, second.updates) == (5, 5)
    assert first.old_share == pytest.approx(0.8**5)
    assert second.old_share == 0
