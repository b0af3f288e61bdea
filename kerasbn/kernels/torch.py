"""Batch norm in PyTorch: which implementation runs.

Eager training on the CPU uses the native kernel (`kerasbn.kernels.native`) if the features are on
neighbouring axes. Without the native kernel, and on GPUs, it uses PyTorch's own kernel
(`kerasbn.kernels.torch_builtin`) if the features are on the last axis and there are enough of them.
With a mask, with statistics over several processes and in all other cases, it uses the plain
formula with the analytic gradient.

The plain formula (`kerasbn.kernels.torch_plain`) also serves the cases in which PyTorch processes
each operation by itself:

- `torch.compile`, which fuses the operations.
- The transforms of `torch.func` and forward-mode differentiation. PyTorch's own kernel has the
  wrong second derivative there, because its forward mode treats the statistics as constants.
- Second derivatives of `_Analytic`.
- Second derivatives of PyTorch's own kernel, whose formula is wrong from the third derivative on.

Inference uses `generic.normalize`, as on the other backends.
"""

from __future__ import annotations

import torch

from kerasbn._torch_private import batched, transformed
from kerasbn.kernels import (
    from_vector,
    generic,
    in_rank_of,
    native,
    to_vector,
    torch_builtin,
    torch_plain,
    torch_ranks,
)
from kerasbn.kernels.native import torch as torch_native
from kerasbn.kernels.torch_plain import Population
from kerasbn.moments import Moments, Tensor

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
    portable: bool = False,
) -> tuple[Tensor, Moments]:
    """See `kerasbn.kernels.batch_normalize`."""
    gamma, beta = in_rank_of(x, gamma, beta)
    all_ranks = synchronized and torch_ranks.several(x)
    by_operation = portable or torch.compiler.is_compiling() or transformed()
    population = Population.of(x, axes, mask, all_ranks)
    if by_operation:
        y, mean, variance = torch_plain.batch_normalize(x, gamma, beta, population, epsilon)
        return y, Moments(mean, variance, population.count)
    whole = mask is None and not all_ranks
    library = native.library() if whole and torch_native.suits(x, axes) else None
    if whole and library is None and torch_builtin.suits(x, axes):
        vectors = to_vector(gamma), to_vector(beta)
        y, *statistics = torch_builtin.batch_normalize(x, *vectors, epsilon)
        mean, variance = (from_vector(t, x.ndim) for t in statistics)
    else:
        y, mean, variance = _Analytic.apply(x, gamma, beta, mask, population, epsilon, library)
    return y, Moments(mean, variance, population.count)


class _Analytic(torch.autograd.Function):
    """The analytic gradient. With a library, the native kernel computes it and the output."""

    @staticmethod
    def forward(ctx, x, gamma, beta, mask, population, epsilon, library):
        if library is None:
            pivot, delta, variance, inverse = population.statistics(x, epsilon)
            y = (x - pivot).sub_(delta).mul_(inverse if gamma is None else inverse * gamma)
            y = y if beta is None else y.add_(beta)
            mean = pivot + delta
        else:
            shape = [1 if a in population.axes else size for a, size in enumerate(x.shape)]
            scale = x.new_ones(shape) if gamma is None else gamma
            shift = x.new_zeros(shape) if beta is None else beta
            y, mean, variance, pivot, delta = library.operations.forward(
                x, scale, shift, population.axes, epsilon
            )
        ctx.save_for_backward(x, gamma, mask, pivot, delta, variance)
        # Only tensors saved above are checked for later changes in place, so the mask is saved
        # there and not in `population`.
        ctx.population = population if mask is None else population._replace(mask=None)
        ctx.epsilon, ctx.library = epsilon, library
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx, dy, *_):
        if dy is None:
            return (None,) * 7
        x, gamma, mask, *statistics = ctx.saved_tensors
        population = ctx.population if mask is None else ctx.population._replace(mask=mask)
        by_operation = torch.is_grad_enabled() or transformed() or batched(dy)
        by_library = ctx.library is not None and not by_operation
        if by_library and torch_native.suits(dy, population.axes):
            scale = torch.ones_like(statistics[0]) if gamma is None else gamma
            dx, dgamma, dbeta = ctx.library.operations.backward(
                dy, x, scale, *statistics, population.axes, ctx.epsilon
            )
        else:
            pivot, delta, variance = statistics
            inverse = torch.rsqrt(variance + ctx.epsilon)
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
