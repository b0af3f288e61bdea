"""Batch norm as a plain JAX formula, differentiable in forward and reverse mode, to any order.

This module defines the derivative as a linear map. Let a be the mean of a tangent t, and b the mean
of x_hat t. The derivative of x_hat in the direction t is (t - a - x_hat b) / std. So the derivative
of y is a multiple of t, plus a vector, plus x_hat times a vector. In reverse mode, JAX transposes
each vector to one of the two sums of the analytic backward pass. For higher orders, JAX
differentiates the map itself.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kerasbn.kernels import generic
from kerasbn.moments import Moments, Tensor, count_values

_FIRST = 8  # indices of each reduced axis whose values enter the pivot


class Statistics(NamedTuple):
    """Statistics of a batch, see `kerasbn.kernels`.

    Attributes:
        pivot: Number close to the feature's values.
        delta: Mean minus pivot.
        variance: Biased variance.
    """

    pivot: jax.Array
    delta: jax.Array
    variance: jax.Array


def batch_normalize(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    axes: tuple[int, ...],
    epsilon: float,
    mask: Tensor | None,
) -> tuple[Tensor, Moments]:
    """See `kerasbn.kernels.batch_normalize`."""
    count = count_values(x, axes, mask)
    y, s = _normalize(axes, epsilon, x, gamma, beta, mask, count)
    mean, variance = s.pivot + s.delta, s.variance
    return y, Moments(jax.lax.stop_gradient(mean), jax.lax.stop_gradient(variance), count)


def derivative(
    axes: tuple[int, ...],
    epsilon: float,
    directions: tuple[Tensor, Tensor, Tensor],
    x: Tensor,
    gamma: Tensor,
    s: Statistics,
    mask: Tensor | None = None,
    count: Tensor | None = None,
) -> Tensor:
    """The derivative of y in the given directions of x, gamma and beta, at the statistics s."""
    t, dgamma, dbeta = directions
    m = jnp.maximum(count_values(x, axes, mask) if count is None else count, 1)
    centered = x - s.pivot - s.delta
    inverse = jax.lax.rsqrt(s.variance + epsilon)
    multiplier = gamma * inverse
    a = _total(t, axes, mask) / m
    b = _total(centered * t, axes, mask) / m * inverse
    # dy = multiplier (t - a - x_hat b) + dgamma x_hat + dbeta, with x_hat = centered inverse
    return (
        multiplier * t + (dbeta - multiplier * a) + centered * (dgamma - multiplier * b) * inverse
    )


def statistics(
    x: Tensor, axes: tuple[int, ...], mask: Tensor | None = None, count: Tensor | None = None
) -> Statistics:
    """The statistics of x."""
    m = jnp.maximum(count_values(x, axes, mask) if count is None else count, 1)
    pivot = jax.lax.stop_gradient(_pivot(x, axes, mask))
    d = x - pivot
    delta = _total(d, axes, mask) / m
    return Statistics(pivot, delta, _total(jnp.square(d - delta), axes, mask) / m)


def output(x: Tensor, gamma: Tensor, beta: Tensor, s: Statistics, epsilon: float) -> Tensor:
    """y, from the statistics s of x."""
    multiplier = gamma * jax.lax.rsqrt(s.variance + epsilon)
    return (x - s.pivot) * multiplier + (beta - s.delta * multiplier)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _normalize(axes, epsilon, x, gamma, beta, mask, count):
    s = statistics(x, axes, mask, count)
    return output(x, gamma, beta, s, epsilon), s


@_normalize.defjvp
def _normalize_jvp(axes, epsilon, primals, tangents):
    x, gamma, beta, mask, count = primals
    # These formulas stand in for `_normalize`, because JAX differentiates them for higher orders.
    s = statistics(x, axes, mask, count)
    dy = derivative(axes, epsilon, tangents[:3], x, gamma, s, mask, count)
    none = Statistics(*(jnp.zeros_like(v) for v in s))  # the moments carry no gradient
    return (output(x, gamma, beta, s, epsilon), s), (dy, none)


def _pivot(x, axes, mask):
    """A number close to each feature's values, see `kerasbn.kernels`."""
    if mask is not None:
        return generic.pivot_value(x, axes, mask)

    def mean_of_first(x):
        first = x[tuple(slice(_FIRST) if a in axes else slice(None) for a in range(x.ndim))]
        return (
            jnp.mean(first, axes, keepdims=True)
            if first.size
            else generic.pivot_value(x, axes, None)
        )

    def first_value(x):
        return generic.pivot_value(x, axes, None)

    # XLA on the CPU stores a sum, but would read a first value again at every use.
    return jax.lax.platform_dependent(x, cpu=mean_of_first, default=first_value)


def _total(values, axes, mask):
    return jnp.sum(values if mask is None else jnp.where(mask, values, 0), axes, keepdims=True)
