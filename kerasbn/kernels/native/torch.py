"""The native kernel as two PyTorch operators. `kerasbn.kernels.torch` makes them differentiable.

    kerasbn::forward(x, gamma, beta, axes, epsilon) -> y, mean, variance, pivot, delta
    kerasbn::backward(dy, x, gamma, pivot, delta, variance, axes, epsilon) -> dx, dgamma, dbeta

gamma, beta and the statistics have the rank of x, and size 1 on `axes`. Operators are visible to
PyTorch's profiler and to everything else that records operations.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from kerasbn.kernels import native

_TYPES = {torch.float32: 0, torch.float64: 1}  # values of `Type` in batch_norm.h
_FORWARD = (
    "forward(Tensor x, Tensor gamma, Tensor beta, int[] axes, float epsilon) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_BACKWARD = (
    "backward(Tensor dy, Tensor x, Tensor gamma, Tensor pivot, Tensor delta, Tensor variance, "
    "int[] axes, float epsilon) -> (Tensor, Tensor, Tensor)"
)


def _fields(inputs, outputs):
    """The fields of `Forward` and `Backward` in batch_norm.h."""
    return (
        ("type", ctypes.c_int),
        *((name, ctypes.c_int64) for name in ("outer", "channels", "inner")),
        *((name, ctypes.c_void_p) for name in inputs),
        ("epsilon", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in outputs),
    )


class _Forward(ctypes.Structure):
    _fields_ = _fields(("x", "gamma", "beta"), ("y", "mean", "variance", "pivot", "delta"))


class _Backward(ctypes.Structure):
    _fields_ = _fields(
        ("dy", "x", "gamma", "pivot", "delta", "variance"), ("dx", "dgamma", "dbeta")
    )


def load(path: Path) -> native.Library | str:
    """Loads the library and registers its operators. Returns the reason if that fails."""
    try:
        symbols, _ = _registered(path)
    except (OSError, AttributeError) as error:
        return f"{path} could not be loaded: {error}"
    return native.Library(symbols, torch.ops.kerasbn)


def threads() -> int:
    """The number of threads that PyTorch uses."""
    return torch.get_num_threads()


def suits(x: Tensor, axes: Sequence[int]) -> bool:
    """Whether the native kernel can normalize x over `axes`.

    The other axes, those of the features, must be neighbours. Tensors of subclasses are excluded,
    because they may not store their values.
    """
    kept = [a for a in range(x.ndim) if a not in axes]
    return (
        x.dtype in _TYPES
        and x.device.type == "cpu"
        and x.layout == torch.strided
        and type(x) in (Tensor, torch.nn.Parameter)
        and bool(kept)
        and kept[-1] - kept[0] + 1 == len(kept)
    )


@functools.cache
def _registered(path):
    """The library and the registry of its operators, which live as long as this cache keeps it."""
    symbols = ctypes.CDLL(str(path))
    symbols.kerasbn_forward.argtypes = [ctypes.POINTER(_Forward)]
    symbols.kerasbn_backward.argtypes = [ctypes.POINTER(_Backward)]
    registry = torch.library.Library("kerasbn", "DEF")
    for schema, function in ((_FORWARD, _forward), (_BACKWARD, _backward)):
        name = registry.define(schema)
        registry.impl(name, functools.partial(function, symbols), "CPU")
    return symbols, registry


def _forward(symbols, x, gamma, beta, axes, epsilon):
    gamma, beta = _vectors(x, axes, gamma=gamma, beta=beta)
    x, layout = _in_layout(x, axes)
    y = torch.empty_like(x)
    statistics = [torch.empty_like(gamma) for _ in range(4)]
    inputs, outputs = _addresses(x, gamma, beta), _addresses(y, *statistics)
    call = _Forward(_TYPES[x.dtype], *layout, *inputs, epsilon, *outputs)
    _run(symbols, symbols.kerasbn_forward, call)
    return y, *statistics


def _backward(symbols, dy, x, gamma, pivot, delta, variance, axes, epsilon):
    vectors = _vectors(x, axes, gamma=gamma, pivot=pivot, delta=delta, variance=variance)
    x, layout = _in_layout(x, axes)
    if dy.shape != x.shape:
        raise ValueError(f"dy must have the shape of x: {x.shape}. Received: {dy.shape}.")
    if dy.stride() != x.stride() or dy.dtype != x.dtype:
        dy = torch.empty_like(x).copy_(dy)
    gradients = [torch.empty_like(t) for t in (x, vectors[0], vectors[0])]
    inputs, outputs = _addresses(dy, x, *vectors), _addresses(*gradients)
    call = _Backward(_TYPES[x.dtype], *layout, *inputs, epsilon, *outputs)
    _run(symbols, symbols.kerasbn_backward, call)
    return tuple(gradients)


def _run(symbols, function, call):
    symbols.kerasbn_set_threads(threads())  # the user may have changed the number
    if function(ctypes.byref(call)):
        raise MemoryError("There is no memory for the intermediate results of batch norm.")


def _vectors(x, axes, **given):
    """The vectors as the C code reads them: of the dtype of x, and without gaps."""
    shape = tuple(1 if a in axes else size for a, size in enumerate(x.shape))
    for name, vector in given.items():
        if vector.shape != shape:
            raise ValueError(
                f"{name} must have the sizes of x, and size 1 on the reduced axes: {shape}. "
                f"Received: {tuple(vector.shape)}."
            )
    return [vector.to(x.dtype).contiguous() for vector in given.values()]


def _addresses(*tensors):
    return [t.data_ptr() for t in tensors]


def _in_layout(x, axes):
    """x, copied if it must be, and its sizes as (outer, channels, inner) in memory.

    PyTorch's convolutions may leave the channels first in memory where Keras has them last. Such
    images are not copied.
    """
    kept = [a for a in range(x.ndim) if a not in axes]
    if kept == [x.ndim - 1] and not x.is_contiguous() and x.movedim(-1, 1).is_contiguous():
        return x, (x.shape[0], x.shape[-1], math.prod(x.shape[1:-1]))
    first, last = kept[0], kept[-1] + 1
    parts = x.shape[:first], x.shape[first:last], x.shape[last:]
    return x.contiguous(), [math.prod(sizes) for sizes in parts]
