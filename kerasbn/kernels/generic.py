"""Batch norm in `keras.ops`, differentiated by the backend: plain, and right everywhere."""

from __future__ import annotations

import math

from keras import ops

from kerasbn.kernels import scale_and_shift
from kerasbn.moments import Moments, at_least, count_values

reshape = ops.reshape


def batch_normalize(x, gamma, beta, *, axes, epsilon, mask=None, synchronized=False):
    """See `kerasbn.kernels.batch_normalize`; `synchronized` is for TensorFlow's kernel alone."""
    if synchronized:
        raise ValueError("synchronized statistics need the TensorFlow backend.")
    count = count_values(x, axes, mask)
    m = at_least(count, 1.0)

    def mean_of(values):
        counted = values if mask is None else ops.where(mask, values, 0.0)
        return ops.sum(counted, axes, keepdims=True) / m

    pivot = ops.stop_gradient(pivot_value(x, axes, mask))
    d = x - pivot
    delta = mean_of(d)
    centered = d - delta
    variance = mean_of(ops.square(centered))
    y = scale_and_shift(centered * ops.rsqrt(variance + epsilon), gamma, beta)
    return y, Moments(ops.stop_gradient(pivot + delta), ops.stop_gradient(variance), count)


def normalize(x, mean, variance, gamma, beta, *, epsilon):
    """See `kerasbn.kernels.normalize`."""
    multiplier = ops.rsqrt(variance + epsilon)
    if gamma is not None:
        multiplier = multiplier * gamma
    # Not x * multiplier + (beta - mean * multiplier): at large means its two terms cancel.
    y = (x - mean) * multiplier
    return y if beta is None else y + beta


def pivot_value(x, axes, mask):
    """One of each feature's values, see `kerasbn.kernels`; 0 where a feature has none."""
    if mask is None:
        first = x[tuple(slice(0, 1) if a in axes else slice(None) for a in range(len(x.shape)))]
        return ops.sum(first, axes, keepdims=True)  # of the one value, or of none
    counted = ops.where(mask, x, -math.inf)
    largest = ops.max(counted, axes, keepdims=True, initial=-math.inf)  # of an empty batch too
    return ops.where(largest > -math.inf, largest, 0.0)
