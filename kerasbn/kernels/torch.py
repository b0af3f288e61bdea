"""Batch norm in PyTorch: which implementation runs.

Eager training uses the analytic gradient. `kerasbn.kernels.torch_rows` handles the common case: no
mask, and statistics over all axes but the last. There, inputs with enough channels use PyTorch's
native kernel and its gradient.

The plain formula (`kerasbn.kernels.torch_plain`) serves the cases in which PyTorch processes each
operation by itself:

- `torch.compile`, which fuses the operations.
- The transforms of `torch.func` and forward-mode differentiation. PyTorch's native kernel has the
  wrong second derivative there, because its forward mode treats the statistics as constants.
- Second derivatives of `_Analytic`.
- Second derivatives of PyTorch's native kernel, whose own formula is wrong from the third
  derivative on.

Inference uses `generic.normalize`, as on the other backends.
"""

from __future__ import annotations

import torch

from kerasbn._torch_private import batched, transformed
from kerasbn.kernels import (
    from_vector,
    generic,
    in_rank_of,
    to_vector,
    torch_plain,
    torch_ranks,
    torch_rows,
)
from kerasbn.kernels.torch_plain import Population
from kerasbn.moments import Moments, Tensor, count_values

normalize = generic.normalize
move_averages = generic.move_averages
reshape = torch.reshape


def batch_normalize(
    x: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    *,
    axes: tuple[int, ...],
    epsilon: float,
    mask: Tensor | None = None,
    synchronized: bool = False,
) -> tuple[Tensor, Moments]:
    """See `kerasbn.kernels.batch_normalize`."""
    gamma, beta = in_rank_of(x, gamma, beta)
    all_ranks = synchronized and torch_ranks.several(x)
    by_operation = torch.compiler.is_compiling() or transformed()
    rows = mask is None and not all_ranks and not by_operation and torch_rows.suits(x, axes)
    if rows and torch_rows.suits_native(x):
        y, *statistics = torch_rows.native(x, to_vector(gamma), to_vector(beta), epsilon)
        mean, variance = (from_vector(t, x.ndim) for t in statistics)
        return y, Moments(mean, variance, count_values(x, axes, mask))
    population = Population.of(x, axes, mask, all_ranks)
    if by_operation:
        y, mean, variance = torch_plain.batch_normalize(x, gamma, beta, population, epsilon)
    else:
        y, mean, variance = _Analytic.apply(x, gamma, beta, mask, population, epsilon, rows)
    return y, Moments(mean, variance, population.count)


class _Analytic(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gamma, beta, mask, population, epsilon, rows):
        if rows:
            y, *statistics = torch_rows.forward(x, to_vector(gamma), to_vector(beta), epsilon)
            pivot, delta, variance, inverse = (from_vector(t, x.ndim) for t in statistics)
        else:
            pivot, delta, variance, inverse = population.statistics(x, epsilon)
            y = (x - pivot).sub_(delta).mul_(inverse if gamma is None else inverse * gamma)
            y = y if beta is None else y.add_(beta)
        ctx.save_for_backward(x, gamma, mask, pivot, delta, inverse)
        # Only tensors saved above are checked for later changes in place, so the mask is saved
        # there and not in `population`.
        ctx.population = population if mask is None else population._replace(mask=None)
        ctx.epsilon, ctx.rows = epsilon, rows
        ctx.set_materialize_grads(False)
        mean = pivot + delta
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx, dy, *_):
        if dy is None:
            return (None,) * 7
        x, gamma, mask, pivot, delta, inverse = ctx.saved_tensors
        by_operation = torch.is_grad_enabled() or transformed() or batched(dy)
        if ctx.rows and not by_operation:
            vectors = (to_vector(t) for t in (gamma, pivot, delta, inverse))
            dx, *parameters = torch_rows.backward(dy, x, *vectors)
            dgamma, dbeta = (t.view_as(pivot) for t in parameters)
        else:
            population = ctx.population if mask is None else ctx.population._replace(mask=mask)
            if by_operation:  # saved statistics are constants to PyTorch, but they depend on x
                pivot, delta, _, inverse = population.statistics(x, ctx.epsilon)
            dx, dgamma, dbeta = population.gradients(dy, x, gamma, pivot, delta, inverse)
        return (
            dx,
            None if gamma is None else dgamma,
            dbeta if ctx.needs_input_grad[2] else None,
            None,
            None,
            None,
            None,
        )
