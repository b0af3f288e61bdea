"""Batch norm in JAX, its derivative given as a linear map: forward and reverse mode, to any order.

With a = mean of t and b = mean of x_hat t, the derivative of x_hat in the direction t is
(t - a - x_hat b) / std. JAX transposes that to the three reductions of the analytic backward pass,
and differentiates it again for higher orders.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from kerasbn.kernels import generic, scale_and_shift
from kerasbn.moments import Moments, count_values


def batch_normalize(x, gamma, beta, *, axes, epsilon, mask=None, synchronized=False):
    """See `kerasbn.kernels.batch_normalize`."""
    if synchronized:
        raise ValueError("synchronized statistics need the TensorFlow backend.")
    count = count_values(x, axes, mask)
    x_hat, mean, variance = _standardize(axes, epsilon, x, mask, count)
    y = scale_and_shift(x_hat, gamma, beta)
    return y, Moments(jax.lax.stop_gradient(mean), jax.lax.stop_gradient(variance), count)


normalize = generic.normalize
reshape = jnp.reshape


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _standardize(axes, epsilon, x, mask, count):
    x_hat, mean, variance, _ = _statistics(axes, epsilon, x, mask, count)
    return x_hat, mean, variance


@_standardize.defjvp
def _standardize_jvp(axes, epsilon, primals, tangents):
    x, mask, count = primals
    t, _, _ = tangents
    x_hat, mean, variance, inverse = _statistics(axes, epsilon, x, mask, count)
    a = _mean(t, axes, mask, count)
    b = _mean(x_hat * t, axes, mask, count)
    return (x_hat, mean, variance), ((t - a - x_hat * b) * inverse, a, 2 * b / inverse)


def _statistics(axes, epsilon, x, mask, count):
    pivot = jax.lax.stop_gradient(generic.pivot_value(x, axes, mask))
    d = x - pivot
    delta = _mean(d, axes, mask, count)
    centered = d - delta
    variance = _mean(jnp.square(centered), axes, mask, count)
    inverse = jax.lax.rsqrt(variance + epsilon)
    return centered * inverse, pivot + delta, variance, inverse


def _mean(values, axes, mask, count):
    counted = values if mask is None else jnp.where(mask, values, 0)
    return jnp.sum(counted, axes, keepdims=True) / jnp.maximum(count, 1)
