"""Normalization of a batch by its own statistics: the arithmetic of a training step.

`BatchNorm`, `recalibrate` and `diagnose` share these functions, so they use the same axes, dtypes
and ghost batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from kerasbn import kernels, moments
from kerasbn._arguments import positive_axes
from kerasbn.moments import Moments, Tensor


@dataclasses.dataclass(frozen=True)
class Axes:
    """The axes of an input, divided into feature axes and reduced axes.

    Attributes:
        features: Feature axes, ascending. Each index combination has its own statistics.
        reduced: All other axes, ascending.
        statistics_shape: Shape of the statistics: the rank of the input, size 1 on reduced axes.
    """

    features: tuple[int, ...]
    reduced: tuple[int, ...]
    statistics_shape: tuple[int, ...]

    @classmethod
    def of(cls, axis: int | tuple[int, ...], input_shape: Sequence[int | None]) -> Axes:
        """Divides the axes of an input by a layer's `axis`. The feature sizes must be known."""
        features = positive_axes(axis, input_shape)
        reduced = tuple(a for a in range(len(input_shape)) if a not in features)
        # `positive_axes` has checked that the sizes of features are known.
        sizes = (1 if a in reduced or n is None else n for a, n in enumerate(input_shape))
        return cls(features, reduced, tuple(sizes))

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of the weights: the sizes of the feature axes."""
        return tuple(self.statistics_shape[a] for a in self.features)

    @property
    def last_only(self) -> bool:
        """Whether the last axis is the only feature axis."""
        return self.features == (len(self.statistics_shape) - 1,)


def statistics_dtype(dtype: str) -> str:
    """The dtype of statistics for a layer of this dtype: float64 for float64, otherwise float32.

    float16 has no variance above 65,504. In bfloat16, with a precision of 8 bits, a moving average
    stops moving, because the small steps round to zero.
    """
    # keras.backend.result_type("float64", "float32") is float32 on JAX and PyTorch.
    return dtype if dtype == "float64" else "float32"


def cast(x: Tensor, dtype: str) -> Tensor:
    """Casts a tensor if necessary. On PyTorch, even a cast to the same dtype takes 30 us."""
    return x if keras.backend.standardize_dtype(x.dtype) == dtype else ops.cast(x, dtype)


def value_of(weight: keras.Variable, dtype: str) -> Tensor:
    """The value of a weight in this dtype."""
    return weight.value if weight.dtype == dtype else ops.cast(weight.value, dtype)


def broadcastable(weight: keras.Variable | None, axes: Axes, dtype: str) -> Tensor | None:
    """The value of a per-feature weight in the shape of the statistics. `None` stays `None`."""
    if weight is None:
        return None
    return kernels.reshape(value_of(weight, dtype), axes.statistics_shape)


def normalize_batch(
    x: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    *,
    axes: Axes,
    epsilon: float,
    mask: Tensor | None = None,
    group_size: int | None = None,
    synchronized: bool = False,
    portable: bool = False,
) -> tuple[Tensor, Moments]:
    """Normalizes a batch, or each ghost batch in it, with its own statistics.

    Args:
        x: Tensor in the `statistics_dtype`.
        gamma: Scale in the shape of the statistics, or `None` for 1.
        beta: Offset in the shape of the statistics, or `None` for 0.
        axes: Axes of x.
        epsilon: Number added to the variance.
        mask: Keras mask with one entry per position, or `None`.
        group_size: Number of examples in a ghost batch, or `None` for the whole batch.
        synchronized: Whether to compute the statistics over all replicas or processes.
        portable: Whether to use only operations that exported models may contain.

    Returns:
        y, in the shape and dtype of x, and the `Moments`. With `group_size`, the moments have the
        groups as an additional first axis.
    """
    mask = None if mask is None else moments.position_mask(mask)
    options: dict[str, Any] = {
        "epsilon": epsilon,
        "synchronized": synchronized,
        "portable": portable,
    }
    if group_size is None:
        return kernels.batch_normalize(x, gamma, beta, axes=axes.reduced, mask=mask, **options)
    groups, mask = moments.to_groups(x, group_size, mask)
    shape = [ops.shape(groups)[0], *axes.statistics_shape]  # all groups share gamma and beta
    gamma, beta = (None if t is None else ops.broadcast_to(t, shape) for t in (gamma, beta))
    reduced = tuple(a + 1 for a in axes.reduced)
    y, batch = kernels.batch_normalize(groups, gamma, beta, axes=reduced, mask=mask, **options)
    return moments.from_groups(y, x), batch


def renormalize_batch(
    x: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    renorm_mean: Tensor,
    renorm_stddev: Tensor,
    *,
    axes: Axes,
    epsilon: float,
    clipping: Mapping[str, float | None],
    mask: Tensor | None = None,
    synchronized: bool = False,
    portable: bool = False,
) -> tuple[Tensor, Moments]:
    """Normalizes a batch by Batch Renormalization (Ioffe 2017).

    Args:
        x: Tensor in the `statistics_dtype`.
        gamma: Scale in the shape of the statistics, or `None` for 1.
        beta: Offset in the shape of the statistics, or `None` for 0.
        renorm_mean: Moving mean in the shape of the statistics.
        renorm_stddev: Moving standard deviation in the shape of the statistics.
        axes: Axes of x.
        epsilon: Number added to the variance.
        clipping: Bounds for r and d with any of the keys "rmax", "rmin" and "dmax".
        mask: Keras mask with one entry per position, or `None`.
        synchronized: Whether to compute the statistics over all replicas or processes.
        portable: Whether to use only operations that exported models may contain.

    Returns:
        y, in the shape and dtype of x, and the `Moments` of the batch.
    """
    x_hat, batch = normalize_batch(
        x,
        None,
        None,
        axes=axes,
        epsilon=epsilon,
        mask=mask,
        synchronized=synchronized,
        portable=portable,
    )
    r, d = moments.renorm_correction(
        batch, renorm_mean, renorm_stddev, epsilon=epsilon, clipping=clipping
    )
    return kernels.scale_and_shift(x_hat * r + d, gamma, beta), batch
