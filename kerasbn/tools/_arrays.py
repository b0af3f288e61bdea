"""Cuts arrays into batches and turns them into tensors, for all arrays that `predict` accepts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from kerasbn._keras_private import cut_by_keras, is_array
from kerasbn.tools._inputs import how_to_convert, shapes_of
from kerasbn.tools._wording import described, dtype_name


def cut(arrays: Any, size: int) -> tuple[int, Iterable[Any]]:
    """Cuts arrays into batches of `size` examples.

    Args:
        arrays: Structure of arrays with the examples along their first axis.
        size: Number of examples per batch. The last one may be smaller.

    Returns:
        The number of batches and the batches.

    Raises:
        ValueError: If something is not an array, or if the arrays differ in their number of
            examples.
    """
    leaves = [leaf for leaf in tree.flatten(arrays) if leaf is not None]
    for leaf in leaves:
        if not is_array(leaf) or not len(leaf.shape):
            raise ValueError(
                "Expected arrays with the examples along their first axis. Received: "
                f"{described(leaf)}.{how_to_convert(leaf)}"
            )
    examples = {leaf.shape[0] for leaf in leaves}
    if len(examples) != 1:
        raise ValueError(
            "Expected arrays with equally many examples. Received: "
            + (f"arrays of the shapes {shapes_of(arrays)}." if leaves else "no arrays.")
        )
    starts = range(0, examples.pop(), size)
    if not all(map(_is_dense, leaves)):
        return len(starts), cut_by_keras(arrays, size)
    # Keras would copy all the data and cast it to `floatx`, which drops digits of float64.
    arrays = _map_arrays(_quick_to_cut, arrays)

    def batch(start):
        return _map_arrays(lambda array: array[start : start + size], arrays)

    return len(starts), map(batch, starts)


def as_arrays(x: Any, number: int) -> Any:
    """Returns the arrays of one batch, with pandas objects converted to NumPy arrays.

    Args:
        x: Structure of arrays.
        number: Number of the batch, used in error messages.

    Raises:
        ValueError: If something is not an array.
    """
    for leaf in tree.flatten(x):
        if leaf is not None and not is_array(leaf):
            raise ValueError(
                f"Expected arrays. Received in batch {number}: {described(leaf)}."
                f"{how_to_convert(leaf)}"
            )
    return _map_arrays(_without_pandas, x)


def as_tensors(x: Any) -> Any:
    """Turns the arrays of one batch into tensors of the backend."""
    return _map_arrays(_to_tensor, x)


def is_finite(tensor: Any) -> bool:
    """Whether a tensor, which may be `None`, has no NaN and no infinity."""
    if tensor is None or "float" not in dtype_name(tensor):
        return True
    return bool(np.isfinite(np.asarray(ops.convert_to_numpy(tensor), np.float64)).all())


def _map_arrays(function, arrays):
    return tree.map_structure(lambda x: None if x is None else function(x), arrays)


def _is_dense(array):
    return hasattr(array, "__array__")


def _quick_to_cut(array):
    # JAX would compile a slice for every position at which one starts.
    jax_array = keras.backend.backend() == "jax" and ops.is_tensor(array)
    return np.asarray(array) if jax_array else _without_pandas(array)


def _without_pandas(array):
    if not hasattr(array, "iloc"):
        return array
    array = array.to_numpy()
    return array[:, np.newaxis] if array.ndim == 1 else array  # as Keras does for a Series


def _to_tensor(array):
    if _is_dense(array):
        return ops.convert_to_tensor(array if ops.is_tensor(array) else np.asarray(array))
    if ops.is_tensor(array):  # a sparse or ragged one of this backend
        return array
    (tensor,) = cut_by_keras(array, array.shape[0])
    return tensor
