"""Batch norm in `keras.ops`, differentiated by the backend: simple, and correct everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras import ops

from kerasbn.kernels import in_rank_of, scale_and_shift
from kerasbn.moments import Moments, Tensor, at_least, count_values, move_average

reshape = ops.reshape


def batch_normalize(
    x: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    *,
    axes: tuple[int, ...],
    epsilon: float,
    mask: Tensor | None = None,
) -> tuple[Tensor, Moments]:
    """See `kerasbn.kernels.batch_normalize`."""
    gamma, beta = in_rank_of(x, gamma, beta)
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


def normalize(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    *,
    epsilon: float,
) -> Tensor:
    """See `kerasbn.kernels.normalize`.

    It computes one product and one sum, because converters fold these two into the convolution
    before them.
    """
    a = ops.rsqrt(variance + epsilon)
    if gamma is not None:
        a = a * gamma
    b = -mean * a if beta is None else beta - mean * a
    return x * a + b


def move_averages(
    averages: Sequence[Tensor], values: Sequence[Tensor], rate: Tensor | float
) -> Sequence[Tensor]:
    """See `kerasbn.kernels.move_averages`."""
    return [move_average(a, v, rate) for a, v in zip(averages, values, strict=True)]


def pivot_value(x: Tensor, axes: tuple[int, ...], mask: Tensor | None) -> Tensor:
    """The pivot of each feature, see `kerasbn.kernels`. It is 0 for features without values."""
    if mask is None:
        first = x[tuple(slice(0, 1) if a in axes else slice(None) for a in range(len(x.shape)))]
        return ops.sum(first, axes, keepdims=True)  # the sum of one value, or of none if empty
    counted = ops.where(mask, x, -math.inf)
    largest = ops.max(counted, axes, keepdims=True, initial=-math.inf)  # -inf for an empty batch
    return ops.where(largest > -math.inf, largest, 0.0)
