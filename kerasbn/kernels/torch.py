"""Batch norm in PyTorch with the analytic gradient.

This module handles any axes and masks. The common case, all axes but the last and no mask, is in
`kerasbn.kernels.torch_rows`. Inputs with enough channels use PyTorch's native kernel there, and its
gradient.
"""

from __future__ import annotations

import torch

from kerasbn.kernels import from_vector, generic, to_vector, torch_rows
from kerasbn.moments import Moments, Tensor, at_least, count_values

normalize = generic.normalize
reshape = torch.reshape


def batch_normalize(
    x: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    *,
    axes: tuple[int, ...],
    epsilon: float,
    mask: Tensor | None = None,
) -> tuple[Tensor, Moments]:
    """See `kerasbn.kernels.batch_normalize`."""
    count = count_values(x, axes, mask)
    if _are_rows(x, axes, mask) and torch_rows.suits_native(x):
        y, *statistics = torch_rows.native(x, to_vector(gamma), to_vector(beta), epsilon)
        mean, variance = (from_vector(t, x.ndim) for t in statistics)
        return y, Moments(mean, variance, count)
    y, mean, variance = _Forward.apply(x, gamma, beta, axes, epsilon, mask, count)
    return y, Moments(mean, variance, count)


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gamma, beta, axes, epsilon, mask, count):
        if _are_rows(x, axes, mask):
            y, *statistics = torch_rows.forward(x, to_vector(gamma), to_vector(beta), epsilon)
            pivot, delta, variance, inverse = (from_vector(t, x.ndim) for t in statistics)
        else:
            pivot, delta, variance, inverse = _statistics(x, axes, epsilon, mask, count)
            y = (x - pivot).sub_(delta).mul_(inverse if gamma is None else inverse * gamma)
            y = y if beta is None else y.add_(beta)
        ctx.save_for_backward(x, gamma, mask, pivot, delta, inverse)
        ctx.constants = axes, epsilon, count
        ctx.set_materialize_grads(False)
        mean = pivot + delta
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx, dy, *_):
        if dy is None:
            return (None,) * 7
        x, gamma, mask, pivot, delta, inverse = ctx.saved_tensors
        given = (dy, x, gamma, mask, pivot, delta, inverse, ctx.constants)
        if torch.is_grad_enabled():  # for second derivatives
            dx, dgamma, dbeta = _Backward.apply(*given)
        else:
            dx, dgamma, dbeta = _backward(*given)
        has_gamma, has_beta = gamma is not None, ctx.needs_input_grad[2]
        return (
            dx,
            dgamma if has_gamma else None,
            dbeta if has_beta else None,
            None,
            None,
            None,
            None,
        )


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dy, x, gamma, mask, pivot, delta, inverse, constants):
        ctx.save_for_backward(dy, x, gamma, mask)
        ctx.constants = constants
        return _backward(dy, x, gamma, mask, pivot, delta, inverse, constants)

    @staticmethod
    def backward(ctx, *upstream):
        # Autograd takes the saved statistics for constants, but they depend on x. So compute them
        # again and let PyTorch differentiate the formula. The inputs are aliases because dy may
        # depend on x too: autograd follows that path by itself later.
        dy, x, gamma, mask = ctx.saved_tensors
        axes, epsilon, count = ctx.constants
        with torch.enable_grad():
            dy, x, gamma = (_alias(t) for t in (dy, x, gamma))
            pivot, delta, _, inverse = _statistics(x, axes, epsilon, mask, count)
            first = _gradients(dy, x, gamma, axes, mask, count, pivot, delta, inverse)
            inputs = [t for t in (dy, x, gamma) if t is not None]
            d_dy, d_x, *d_gamma = torch.autograd.grad(first, inputs, upstream, create_graph=True)
        return d_dy, d_x, d_gamma[0] if d_gamma else None, None, None, None, None, None


def _backward(dy, x, gamma, mask, pivot, delta, inverse, constants):
    axes, _, count = constants
    if _are_rows(x, axes, mask):
        given = (to_vector(t) for t in (gamma, pivot, delta, inverse))
        dx, dgamma, dbeta = torch_rows.backward(dy, x, *given)
        return dx, dgamma.view_as(pivot), dbeta.view_as(pivot)
    return _gradients(dy, x, gamma, axes, mask, count, pivot, delta, inverse)


def _are_rows(x, axes, mask):
    return mask is None and torch_rows.suits(x, axes)


def _alias(t):
    """A separate tensor to autograd with the same values, which always requires a gradient."""
    if t is None:
        return None
    alias = t.view_as(t)
    return alias if alias.requires_grad else alias.requires_grad_()


def _statistics(x, axes, epsilon, mask, count):
    with torch.no_grad():
        pivot = generic.pivot_value(x, axes, mask)
    d = x - pivot
    delta = _mean(d, axes, mask, count)
    variance = _mean((d - delta).square(), axes, mask, count)
    return pivot, delta, variance, torch.rsqrt(variance + epsilon)


def _gradients(dy, x, gamma, axes, mask, count, pivot, delta, inverse):
    x_hat = (x - pivot - delta) * inverse
    s1 = _sum(dy, axes)
    s2 = _sum(dy * x_hat, axes)
    m = at_least(count, 1.0)
    through_statistics = s1 / m + x_hat * (s2 / m)
    if mask is not None:
        through_statistics = torch.where(mask, through_statistics, 0.0)
    multiplier = inverse if gamma is None else inverse * gamma
    return (dy - through_statistics) * multiplier, s2, s1


def _mean(values, axes, mask, count):
    counted = values if mask is None else torch.where(mask, values, 0.0)
    return _sum(counted, axes) / at_least(count, 1.0)


def _sum(values, axes):
    # PyTorch reads an empty tuple of axes as "all axes".
    return values.sum(axes, keepdim=True) if axes else values
