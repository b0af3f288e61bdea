"""Checks of the layer's arguments: each returns the canonical value or raises a ValueError."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import keras

_CLIPPING_KEYS = ("rmax", "rmin", "dmax")
_STATISTICS = {
    "auto": "batch statistics in training and moving averages in inference",
    "frozen": "moving averages in both, without updates",
    "batch": "batch statistics in both",
}


def checked_axis(axis: Any) -> int | tuple[int, ...]:
    """Returns `axis` as an integer, or as a tuple of integers if several axes were given."""
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    if not axes or any(isinstance(a, bool) or not isinstance(a, numbers.Integral) for a in axes):
        raise ValueError(
            f"axis is an integer or a nonempty sequence of integers. Received: axis={axis!r}. "
            "Use axis=-1 for the last axis and axis=1 for channels_first data."
        )
    return tuple(int(a) for a in axes) if axes is axis else int(axis)


def positive_axes(
    axis: int | tuple[int, ...], input_shape: Sequence[int | None], *, sizes_needed: bool = True
) -> tuple[int, ...]:
    """Returns the axes in ascending order, counted from the front.

    Args:
        axis: One axis or several, negative or not.
        input_shape: Shape of the layer's input. `None` stands for an unknown size.
        sizes_needed: Whether the sizes of these axes must be known.
    """
    _check_one_tensor(input_shape)
    rank = len(input_shape)
    axes = axis if isinstance(axis, tuple) else (axis,)
    for a in axes:
        if not -rank <= a < rank:
            raise ValueError(
                f"axis={a} is out of range for an input of rank {rank}, whose axes are {-rank} to "
                f"{rank - 1}. Received: axis={axis}, input shape {tuple(input_shape)}."
            )
        if sizes_needed and input_shape[a] is None:
            raise ValueError(
                f"The size of axis {a} must be defined, because gamma, beta and the moving "
                f"averages have one value for each index of it. Received: axis={axis}, input shape "
                f"{tuple(input_shape)}. Give the input a fixed size there, or choose another axis."
            )
    positive = tuple(sorted(a % rank for a in axes))
    if len(set(positive)) < len(positive):
        raise ValueError(
            f"axis names an axis twice: axis={axis} is {positive} for an input of rank {rank}. "
            "Name each axis once."
        )
    return positive


def _check_one_tensor(input_shape: Any) -> None:
    nested = input_shape is None or isinstance(input_shape, Mapping)
    if nested or any(isinstance(size, (tuple, list)) for size in input_shape):
        raise ValueError(
            "Batch norm takes one array or tensor. Received: input of the shape "
            f"{input_shape}. Call one layer for each tensor, or concatenate them first."
        )
    if not len(input_shape):
        raise ValueError(
            "Batch norm takes inputs with at least one axis, that of the features. Received: a "
            "single number, of the shape (). Give it the shape (1,), for example."
        )


def _is_number(value):
    """Whether a value is a real number. To Python, `True` is one, too, but here it is a mistake."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def checked_fraction(name: str, value: Any) -> float:
    """Returns a weight of the old average as a float from 0 to 1."""
    if not _is_number(value) or not 0.0 <= float(value) <= 1.0:
        hint = ", or None for the cumulative average" if name == "momentum" else ""
        raise ValueError(
            f"{name} is the weight of the old average, a number from 0 to 1{hint}. "
            f"Received: {name}={value!r}. (PyTorch's momentum is one minus Keras's.)"
        )
    return float(value)


def checked_epsilon(epsilon: Any) -> float:
    """Returns `epsilon` as a positive, finite float."""
    if not _is_number(epsilon) or not 0.0 < float(epsilon) < math.inf:
        raise ValueError(
            "epsilon is added to the variance before the square root, so it must be a positive "
            f"number such as 1e-3. Received: epsilon={epsilon!r}."
        )
    return float(epsilon)


def checked_group_size(size: Any) -> int | None:
    """Returns `virtual_batch_size` as an integer of at least 2, or `None`."""
    if size is None:
        return None
    if not isinstance(size, numbers.Integral) or isinstance(size, bool) or size < 2:
        raise ValueError(
            "virtual_batch_size is the number of examples in a group: at least 2, or None for the "
            f"whole batch. Received: virtual_batch_size={size!r}."
        )
    return int(size)


def checked_statistics(statistics: Any) -> str:
    """Returns `statistics` if it is one of the three values."""
    if not isinstance(statistics, str) or statistics not in _STATISTICS:
        meanings = "; ".join(f"{value!r} ({meaning})" for value, meaning in _STATISTICS.items())
        raise ValueError(
            "statistics says with which statistics the layer normalizes. Expected one of: "
            f"{meanings}. Received: statistics={statistics!r}."
        )
    return statistics


def checked_training(training: Any) -> bool:
    """Returns `training` as a bool."""
    try:
        return bool(training)
    except Exception as error:  # each backend raises another one
        raise ValueError(
            "training must be a single truth value that is known when the layer is called. "
            f"Received: training={training!r}. Pass True or False. A compiled function needs a "
            "Python bool for it, such as an argument in `static_argnames` of `jax.jit`. "
            "`tf.function` traces once for each bool."
        ) from error


def checked_clipping(clipping: Any) -> dict[str, float | None] | None:
    """Returns `renorm_clipping` as a dictionary of floats, or `None`."""
    if clipping is None:
        return None
    if not isinstance(clipping, Mapping) or set(clipping) - set(_CLIPPING_KEYS):
        raise ValueError(
            f"Received invalid keys for `renorm_clipping`: {clipping!r}. It is None or a "
            f"dictionary with any of the keys {list(_CLIPPING_KEYS)}."
        )
    for key, value in clipping.items():
        if value is not None and (not _is_number(value) or math.isnan(value)):
            raise ValueError(
                f"{key} in `renorm_clipping` is a number, or None for no bound. "
                f"Received: {key}={value!r}."
            )
    rmin, rmax, dmax = (clipping.get(key) for key in ("rmin", "rmax", "dmax"))
    if rmin is not None and rmax is not None and rmax < rmin:
        raise ValueError(
            "rmax should be at least rmin in `renorm_clipping`. "
            f"Received: rmax={rmax}, rmin={rmin}."
        )
    if dmax is not None and dmax < 0:
        raise ValueError(
            f"dmax should be non-negative in `renorm_clipping`. Received: dmax={dmax}."
        )
    return {key: None if value is None else float(value) for key, value in clipping.items()}


def check_groups(size: int | None, *, renorm: bool, synchronized: bool) -> None:
    """Checks that no option contradicts `virtual_batch_size`."""
    if size is None:
        return
    for name, used in (("renorm", renorm), ("synchronized", synchronized)):
        if used:
            raise ValueError(
                "virtual_batch_size computes statistics over small groups of examples, but "
                f"{name}=True computes them over more than one batch. The two exclude each other. "
                f"Received: virtual_batch_size={size}, {name}=True. Leave one of them out."
            )


def check_batch_axis(size: int | None, axis: int | tuple[int, ...], axes: tuple[int, ...]) -> None:
    """Checks that `virtual_batch_size` may split axis 0, given the positive feature axes."""
    if size is not None and 0 in axes:
        raise ValueError(
            f"virtual_batch_size splits the batch axis, but axis={axis} makes axis 0 a feature "
            "axis. Leave one of them out."
        )


def check_synchronized(synchronized: bool) -> None:
    """Checks that the backend can synchronize statistics, if that is asked for."""
    backend = keras.backend.backend()
    if synchronized and backend not in ("tensorflow", "torch"):
        raise ValueError(
            "synchronized=True computes statistics over the replicas of a tf.distribute strategy "
            "(TensorFlow) or the processes of torch.distributed (PyTorch). Received: the "
            f"{backend} backend. Leave it out: under keras.distribution, a sharded batch already "
            "counts as one batch."
        )


def check_mask(mask_shape: Sequence[int | None], input_shape: Sequence[int | None]) -> None:
    """Checks that a mask has one entry per position, or size 1 to broadcast."""
    expected = tuple(input_shape)[:-1]
    received = tuple(mask_shape)
    fits = len(received) == len(expected) and all(
        m in (1, None) or size is None or m == size
        for m, size in zip(received, expected, strict=True)
    )
    if not fits:
        raise ValueError(
            "The mask has one entry for each position of all axes of the input but the last (or "
            f"size 1, to broadcast): expected a mask of shape {expected}. Received: mask of shape "
            f"{received}, input of shape {tuple(input_shape)}."
        )
