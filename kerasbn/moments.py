"""The arithmetic of batch statistics around the kernels: pure functions on any backend's tensors.

Statistics have the rank of the tensor that they describe, with size 1 on the reduced axes, so that
they broadcast without a reshape. `m` is the number of values that count, for each feature.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from keras import ops

Tensor = Any


class Moments(NamedTuple):
    """Batch statistics: for the moving averages, so no gradient flows through them.

    Attributes:
        mean: Batch mean.
        variance: Biased batch variance (divided by m).
        count: m, the number of values behind each; broadcasts to the shape of `mean`. 0 where a
            feature had no value at all (fully masked, or an empty batch), and then mean and
            variance are 0 and must not be used.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor


def count_values(x: Tensor, axes: tuple[int, ...], mask: Tensor | None) -> Tensor:
    """m: how many values of each feature count.

    A Python number where the shape is known and nothing is masked; else a tensor like `x`.
    """
    if mask is not None:
        # Broadcast only along the reduced axes: the kept ones may stay 1 where the mask is.
        full, own = ops.shape(x), ops.shape(mask)
        target = [full[a] if a in axes else own[a] for a in range(len(full))]
        return ops.sum(ops.cast(ops.broadcast_to(mask, target), x.dtype), axes, keepdims=True)
    shape = ops.shape(x)
    count = math.prod(shape[a] for a in axes)
    return float(count) if isinstance(count, int) else ops.cast(count, x.dtype)


def at_least(x: Tensor | float, bound: float) -> Tensor | float:
    """The larger, in the dtype of `x`: on PyTorch `ops.maximum` and `clip` go by way of float32."""
    if isinstance(x, float):
        return max(x, bound)
    return ops.where(x < bound, ops.convert_to_tensor(bound, x.dtype), x)


def _clip(x, low, high):
    x = x if low is None else at_least(x, low)
    return x if high is None else -at_least(-x, -high)


def position_mask(mask: Tensor) -> Tensor:
    """Keras's mask, an entry for each position of all axes but the last, as full-rank booleans."""
    return ops.expand_dims(ops.cast(mask, "bool"), -1)


def unbiased(moments: Moments) -> Tensor:
    """m/(m-1) times the variance: the estimate of the population's (paper, algorithm 2, step 10).

    A single value says nothing of the spread; its variance, 0, stays 0.
    """
    return moments.variance * (moments.count / at_least(moments.count - 1.0, 1.0))


def renorm_correction(
    moments: Moments, renorm_mean: Tensor, renorm_stddev: Tensor, epsilon: float, clipping: dict
) -> tuple[Tensor, Tensor]:
    """r and d of Batch Renormalization (Ioffe 2017, algorithm 1), clipped, as constants.

    x_hat * r + d is what normalizing with the moving statistics would have given, up to the
    clipping.
    """
    stddev = ops.sqrt(moments.variance + epsilon)
    # A moving standard deviation of less than sqrt(epsilon) can only be an initial zero.
    renorm_stddev = at_least(renorm_stddev, math.sqrt(epsilon))
    r = stddev / renorm_stddev
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
        debias: Whether the average is kept free of its initial value.
        updates: t, the number of updates including this one; needed unless the rate is constant.

    Returns:
        1 - momentum; 1/t for the cumulative average; (1 - momentum) / (1 - momentum^t) debiased,
        which makes the t batches' weights sum to one, and is 1 at t = 1.
    """
    if momentum is None or (debias and momentum == 1.0):  # 1/t is also the limit for momentum -> 1
        return 1.0 / at_least(updates, 1.0)
    if not debias or momentum == 0.0:
        return 1.0 - momentum
    # expm1 keeps the digits that 1 - momentum^t loses when momentum is near 1.
    return (1.0 - momentum) / -ops.expm1(at_least(updates, 1.0) * math.log(momentum))


def move_average(
    average: Tensor, value: Tensor, rate: Tensor | float, counted: Tensor | None
) -> Tensor:
    """One step of a moving average; where `counted` is given and false, the old one stays."""
    moved = average * (1.0 - rate) + value * rate
    return moved if counted is None else ops.where(counted, moved, average)


def to_groups(x: Tensor, size: int, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Views a batch as ghost batches: (n, ...) -> (groups, size, ...), the last padded and masked.

    Args:
        x: Tensor of shape (n, ...).
        size: Examples a group.
        mask: `None`, or booleans of the rank of `x` that broadcast to its shape.

    Returns:
        The groups, and the mask of their real values; `None` where all are.
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
    """The inverse of `to_groups`: (groups, size, ...) -> the shape of `like`, padding dropped."""
    shape = ops.shape(like)
    flat = ops.reshape(y, [ops.shape(y)[0] * ops.shape(y)[1], *shape[1:]])
    return flat[: shape[0]]


def pool_groups(moments: Moments) -> Moments:
    """Mean over groups of their means and variances, weighted by their counts (axis 0)."""
    count = ops.broadcast_to(ops.cast(moments.count, moments.mean.dtype), ops.shape(moments.mean))
    total = ops.sum(count, 0)
    share = count / at_least(ops.expand_dims(total, 0), 1.0)
    return Moments(ops.sum(moments.mean * share, 0), ops.sum(moments.variance * share, 0), total)


def _pad_examples(t, padding):
    return ops.concatenate([t, ops.zeros([padding, *ops.shape(t)[1:]], t.dtype)], 0)
