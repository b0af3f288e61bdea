"""`recalibrate` computes in float64 for float64 layers, on every backend."""

import keras
import numpy as np
import pytest

import kerasbn


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (kerasbn.BatchNorm, {}),
        (kerasbn.BatchNorm, {"virtual_batch_size": 100}),
        (keras.layers.BatchNormalization, {}),
    ],
    ids=["BatchNorm", "ghost batches", "BatchNormalization"],
)
def test_statistics_at_a_large_mean_are_those_of_numpy(double, kind, options):
    x = np.random.default_rng(0).normal(1e4, 0.01, (1000, 4))
    with double():
        model = keras.Sequential(
            [keras.Input((4,), dtype="float64"), kind(dtype="float64", name="bn", **options)]
        )
        kerasbn.recalibrate(model, x, batch_size=100)
        layer = model.get_layer("bn")
        mean, variance = (
            keras.ops.convert_to_numpy(w) for w in (layer.moving_mean, layer.moving_variance)
        )
    batches = x.reshape(10, 100, 4)
    expected = batches.var(1, ddof=1).mean(0)
    assert np.max(np.abs(mean - x.mean(0))) < 1e-9
    assert np.max(np.abs(variance / expected - 1)) < 1e-9


@pytest.mark.parametrize("kind", [kerasbn.BatchNorm, keras.layers.BatchNormalization])
def test_a_second_layer_gets_inputs_normalized_in_float64(double, kind):
    x = np.random.default_rng(0).normal(1e4, 0.01, (1000, 4))
    with double():
        model = keras.Sequential(
            [
                keras.Input((4,), dtype="float64"),
                kind(dtype="float64"),
                keras.layers.Rescaling(1.0, 1e3, dtype="float64"),
                kind(dtype="float64"),
            ]
        )
        kerasbn.recalibrate(model, [x])
        variance = keras.ops.convert_to_numpy(model.layers[-1].moving_variance)
    expected = x.var(0) / (x.var(0) + 1e-3) * 1000 / 999
    assert np.max(np.abs(variance / expected - 1)) < 1e-9
