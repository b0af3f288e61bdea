"""Batch norm over all axes but the last with PyTorch's own kernel, `native_batch_norm`.

It is fast on channels-last data if the channels fill the processor's vectors. It receives x - pivot
instead of x, to stay exact at large means (see `kerasbn.kernels`).
"""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from kerasbn.kernels.torch_plain import Population

_FEWEST = 16  # smallest number of channels that fills the processor's vectors


def suits(x: Tensor, axes: tuple[int, ...]) -> bool:
    """Whether x has several rows and enough channels, reduced over all axes but the last."""
    several_rows = x.ndim > 1 and x.numel() > x.shape[-1]
    return axes == tuple(range(x.ndim - 1)) and several_rows and x.shape[-1] >= _FEWEST


def batch_normalize(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalizes x, with gradients of any order.

    Args:
        x: Tensor of shape (..., c) with at least two rows.
        gamma: Scale of shape (c,), or `None` for 1.
        beta: Offset of shape (c,), or `None` for 0.
        epsilon: Number added to the variance.

    Returns:
        y, and the mean and the variance, each of shape (c,).
    """
    c = x.shape[-1]
    rows = x.reshape(-1, c)
    pivot = rows[0].detach()
    d = (rows - pivot).contiguous().view(1, len(rows), 1, c).permute(0, 3, 1, 2)
    # With a momentum of 1, PyTorch writes the batch's mean and unbiased variance into these.
    delta, sample_variance = pivot.new_zeros(c), pivot.new_zeros(c)
    y = torch.native_batch_norm(d, gamma, beta, delta, sample_variance, True, 1.0, epsilon)[0]
    if y.grad_fn is not None:
        y.grad_fn.register_hook(_AgainDifferentiable(d, gamma, epsilon))
    variance = sample_variance * (1.0 - 1.0 / len(rows))
    return y.permute(0, 2, 3, 1).reshape(x.shape), pivot + delta, variance


class _AgainDifferentiable:
    """Hook of `batch_normalize`: gradients that can be differentiated any number of times.

    PyTorch's own gradients are wrong from the third derivative on, because they treat the saved
    statistics as constants. The same happens in `torch.nn.BatchNorm1d`. Without `create_graph`,
    and if d is no longer in memory (`save_on_cpu`), PyTorch's own gradients stay.
    """

    def __init__(self, d, gamma, epsilon):
        # A weak reference, because the hook lives as long as the graph. PyTorch frees d earlier.
        self._d, self._gamma, self._epsilon = weakref.ref(d), gamma, epsilon

    def __call__(self, gradients, upstream):
        if not torch.is_grad_enabled():
            return None
        (dy,), d, gamma = upstream, self._d(), self._gamma
        if dy is None or d is None:
            return None
        population = Population.of(d, (0, 2, 3), None, all_ranks=False)
        pivot, delta, _, inverse = population.statistics(d, self._epsilon)
        gamma = None if gamma is None else gamma.view(1, -1, 1, 1)
        dd, *others = population.gradients(dy, d, gamma, pivot, delta, inverse)
        computed = dd, *(each[0, :, 0, 0] for each in others)
        pairs = zip(gradients, computed, strict=True)
        return tuple(None if theirs is None else ours for theirs, ours in pairs)
