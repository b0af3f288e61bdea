"""Converts the inputs of a layer, such as sparse and ragged tensors, to dense tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kerasbn._normalization import cast
from kerasbn.moments import Tensor


def to_dense(
    inputs: Any, mask: Tensor | None, dtype: str, *, keep_examples: bool
) -> tuple[Tensor, Tensor | None, Callable[[Tensor], Tensor]]:
    """Converts an input to a dense tensor whose unmasked values are those of the input.

    The zeros that a sparse tensor leaves out count as values. A `tf.RaggedTensor` of the shape
    (batch, None, features) becomes a tensor of the shape (positions, 1, features), with one row for
    each position of each example. So it needs no padding, except with `keep_examples` or a mask.

    Args:
        inputs: Array or tensor, possibly sparse or ragged.
        mask: Keras mask, dense or ragged, or `None`.
        dtype: Dtype of the result.
        keep_examples: Whether the first axis must stay the batch axis. If so, or with a mask, a
            ragged tensor is padded and the padding is masked.

    Returns:
        The dense tensor, its mask, and a function that converts a result to the form of the input:
        ragged with the same row splits, or dense.

    Raises:
        ValueError: If the input does not consist of real numbers.
    """
    x = ops.convert_to_tensor(inputs, sparse=False)
    if getattr(x, "is_sparse", False) or getattr(x, "is_sparse_csr", False):  # PyTorch's
        x = x.to_dense()
    _check_real(x)
    if not is_ragged(x):
        return cast(x, dtype), mask, _unchanged
    values = cast(x.flat_values, dtype)
    x = x.with_flat_values(values)
    if mask is None and not keep_examples:
        shape = ops.shape(values)
        rows = ops.reshape(values, [shape[0], *[1] * x.ragged_rank, *shape[1:]])
        return rows, None, lambda y: x.with_flat_values(ops.reshape(y, shape))
    real = x.with_flat_values(ops.ones(ops.shape(values)[:-1], "bool")).to_tensor()
    if mask is not None:
        mask = mask.to_tensor() if is_ragged(mask) else mask
        real = ops.logical_and(ops.cast(mask, "bool"), real)
    lengths = x.nested_row_lengths()
    return x.to_tensor(), real, lambda y: type(x).from_tensor(y, lengths=lengths)


def is_ragged(x: Any) -> bool:
    """Whether `x` is a `tf.RaggedTensor`, found without importing TensorFlow."""
    return hasattr(x, "nested_row_splits")


def _check_real(x):
    dtype = keras.backend.standardize_dtype(x.dtype)
    if dtype == "string" or dtype.startswith("complex"):
        raise ValueError(
            f"Batch norm normalizes real numbers. Received: inputs of the dtype {dtype}. "
            "Convert them to numbers first, and complex numbers to their real and imaginary parts."
        )


def _unchanged(y):
    return y
