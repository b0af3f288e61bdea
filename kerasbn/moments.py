"""Batch statistics and moving averages: pure functions on the tensors of any backend.

Statistics have the rank of the tensor that they describe and size 1 on the reduced axes. So they
broadcast without a reshape. m is the number of unmasked values of a feature.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from keras import ops

Tensor = Any


class Moments(NamedTuple):
    """Batch statistics for the moving averages. They carry no gradient.

    In an empty or fully masked batch, a feature has a count of 0. Its mean and variance are then 0
    and must not be used.

    Attributes:
        mean: Batch mean.
        variance: Biased batch variance (divided by m).
        count: Number m of values per feature. It broadcasts to the shape of `mean`.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor


def count_values(x: Tensor, axes: tuple[int, ...], mask: Tensor | None) -> Tensor:
    """The number m of unmasked values of each feature.

    It is a Python number if the shape is known and there is no mask, and otherwise a tensor in the
    dtype of `x`.
    """
    if mask is not None:
        # Broadcast along the reduced axes only. Along the kept axes, the count may have size 1.
        full, own = ops.shape(x), ops.shape(mask)
        target = [full[a] if a in axes else own[a] for a in range(len(full))]
        return ops.sum(ops.cast(ops.broadcast_to(mask, target), x.dtype), axes, keepdims=True)
    shape = ops.shape(x)
    count = 1
    for a in axes:  # torch.compile cannot trace `math.prod` of unknown sizes
        count = count * shape[a]
    return float(count) if isinstance(count, int) else ops.cast(count, x.dtype)


def at_least(x: Tensor | float, bound: float) -> Tensor | float:
    """max(x, bound) in the dtype of `x`. On PyTorch, `ops.maximum` and `clip` round to float32."""
    if isinstance(x, float):
        return max(x, bound)
    return ops.where(x < bound, ops.convert_to_tensor(bound, x.dtype), x)


def _clip(x, low, high):
    x = x if low is None else at_least(x, low)
    return x if high is None else -at_least(-x, -high)


def position_mask(mask: Tensor) -> Tensor:
    """Turns a Keras mask, with one entry per position, into booleans of the rank of the input."""
    return ops.expand_dims(ops.cast(mask, "bool"), -1)


def unbiased(moments: Moments) -> Tensor:
    """m/(m-1) times the variance, the unbiased estimate of the population variance.

    This is step 10 of algorithm 2 of Ioffe & Szegedy (2015). A single value keeps the variance 0.
    """
    return moments.variance * (moments.count / at_least(moments.count - 1.0, 1.0))


def stddev_of(variance: Tensor, epsilon: float) -> Tensor:
    """The standard deviation that normalization divides by: sqrt(variance + epsilon)."""
    return ops.sqrt(variance + epsilon)


def variance_of(stddev: Tensor, epsilon: float) -> Tensor:
    """The inverse of `stddev_of`: stddev^2 - epsilon, but at least 0."""
    return at_least(ops.square(stddev) - epsilon, 0.0)


def renorm_correction(
    moments: Moments,
    renorm_mean: Tensor,
    renorm_stddev: Tensor,
    *,
    epsilon: float,
    clipping: Mapping[str, float | None],
) -> tuple[Tensor, Tensor]:
    """r and d of Batch Renormalization (Ioffe 2017, algorithm 1), clipped and without gradient.

    Without clipping, x_hat * r + d equals x normalized with the moving statistics.

    Args:
        moments: Statistics of the batch.
        renorm_mean: Moving average of the mean, in the shape of the statistics.
        renorm_stddev: Moving average of the standard deviation, in the same shape.
        epsilon: Number added to the variance.
        clipping: Bounds by name: `"rmin"`, `"rmax"` and `"dmax"`. A missing one does not clip.

    Returns:
        r and d in the shape of the statistics.
    """
    # A moving standard deviation below sqrt(epsilon) can only be an initial zero.
    renorm_stddev = at_least(renorm_stddev, math.sqrt(epsilon))
    r = stddev_of(moments.variance, epsilon) / renorm_stddev
    d = (moments.mean - renorm_mean) / renorm_stddev
    r = _clip(r, clipping.get("rmin"), clipping.get("rmax"))
    dmax = clipping.get("dmax")
    if dmax is not None:
        d = _clip(d, -dmax, dmax)
    return ops.stop_gradient(r), ops.stop_gradient(d)


def update_rate(momentum: float | None, debias: bool, updates: Tensor | None) -> Tensor | float:
    """The weight of the newest batch in a moving average.

    Args:
        momentum: Weight of the old average, or `None` for the cumulative average.
        debias: Whether to remove the initial value from the average.
        updates: Number t of updates, including this one. `None` is enough for a constant rate.

    Returns:
        1/t for a cumulative average, (1 - momentum) / (1 - momentum^t) for a debiased one, and
        1 - momentum otherwise. With the debiased rate, the weights of the t batches sum to one.
    """
    if momentum is None or (debias and momentum == 1.0):  # 1/t is also the limit for momentum -> 1
        return 1.0 / at_least(updates, 1.0)
    if not debias or momentum == 0.0:
        return 1.0 - momentum
    # 1 - momentum^t loses digits if momentum is near 1. expm1 keeps them.
    return (1.0 - momentum) / -ops.expm1(at_least(updates, 1.0) * math.log(momentum))


def move_average(average: Tensor, value: Tensor, rate: Tensor | float) -> Tensor:
    """One step of a moving average. At a rate of 0, the average stays."""
    return average * (1.0 - rate) + value * rate


def to_groups(x: Tensor, size: int, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Splits a batch into ghost batches: (n, ...) -> (groups, size, ...).

    The last group is padded with zeros, and the padding is masked.

    Args:
        x: Tensor of shape (n, ...).
        size: Number of examples in a group.
        mask: Booleans of the rank of `x` that broadcast to its shape, or `None`.

    Returns:
        The groups and their mask. The mask is `None` if all values count.
    """
    n = ops.shape(x)[0]
    groups = -(-n // size)
    padding = groups * size - n
    if not isinstance(padding, int) or padding > 0:
        real = ops.reshape(ops.arange(groups * size) < n, [-1] + [1] * (len(x.shape) - 1))
        if mask is not None:
            mask = ops.broadcast_to(mask, [n, *ops.shape(mask)[1:]])
            real = ops.logical_and(_pad_examples(mask, padding), real)
        x, mask = _pad_examples(x, padding), real
    elif mask is not None:
        mask = ops.broadcast_to(mask, [n, *ops.shape(mask)[1:]])

    def split(t):
        return ops.reshape(t, [groups, size, *ops.shape(t)[1:]])

    return split(x), None if mask is None else split(mask)


def from_groups(y: Tensor, like: Tensor) -> Tensor:
    """The inverse of `to_groups`: joins the groups to the shape of `like` and drops the padding."""
    shape = ops.shape(like)
    flat = ops.reshape(y, [ops.shape(y)[0] * ops.shape(y)[1], *shape[1:]])
    return flat[: shape[0]]


def pool_groups(moments: Moments) -> Moments:
    """Averages the means and the variances of groups (axis 0), weighted by their counts."""
    count = ops.broadcast_to(ops.cast(moments.count, moments.mean.dtype), ops.shape(moments.mean))
    total = ops.sum(count, 0)
    share = count / at_least(ops.expand_dims(total, 0), 1.0)
    return Moments(ops.sum(moments.mean * share, 0), ops.sum(moments.variance * share, 0), total)


def _pad_examples(t, padding):
    return ops.concatenate([t, ops.zeros([padding, *ops.shape(t)[1:]], t.dtype)], 0)
