"""Data and models for the tests of `recalibrate`, and the statistics to expect."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

import kerasbn

KINDS = [keras.layers.BatchNormalization, kerasbn.BatchNorm]
RNG = np.random.default_rng(0)
# Features with different means and scales, in batches of different sizes.
X = (RNG.normal(size=(70, 4)) * [0.5, 1, 10, 50] + [3, -40, 0, 100]).astype("float32")
BATCHES = [X[:30], X[30:60], X[60:]]


def population(batches):
    """Mean and variance by the formula in `recalibrate`'s docstring, in float64. Features last."""
    batches = [np.float64(batch).reshape(-1, batch.shape[-1]) for batch in batches]
    m = [len(batch) for batch in batches]
    mean = sum(n * batch.mean(0) for n, batch in zip(m, batches, strict=True)) / sum(m)
    biased = sum(n * batch.var(0) for n, batch in zip(m, batches, strict=True)) / sum(m)
    mean_m = sum(m) / len(m)
    return mean, mean_m / (mean_m - 1) * biased


def one_norm(kind=kerasbn.BatchNorm, shape=(4,), **options):
    return keras.Sequential([keras.Input(shape), kind(name="bn", **options)])


def value(weight):
    return ops.convert_to_numpy(weight)


def state(model):
    return [np.array(value(variable)) for variable in model.variables]
