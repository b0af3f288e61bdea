"""Batch norm in JAX, its derivative given as a linear map: forward and reverse mode, to any order.

With a = mean of t and b = mean of x_hat t, the derivative of x_hat in the direction t is
(t - a - x_hat b) / std. So that of y is a multiple of t, plus a vector, plus x_hat times a vector,
and JAX transposes each of the two vectors to one of the two sums of the analytic backward pass. It
differentiates the map again for higher orders.

Speed, on the CPU. XLA computes a value anew in each place that uses it, layer within layer of a
network, unless it takes it for expensive. It knows no way to say that a tensor is to be stored, but
stores the results of matrix products. Hence `_stored`, and hence the pivot is not the first row but
the mean of the first few, by such a product. Microseconds a layer, medians of a chain of eight
layers, forward and backward, on two cores (AVX2):

                                         500x500  500x25  256x28x28x6  32x56x56x64  64x14x14x256
    Keras                                   1575     170         7645        30359         23132
    four sums backward, nothing stored      1883     242        41525        52499         33183
    two sums, nothing stored                1234     239        17634        35144         19464
    two sums, pivot and vectors stored       892     185         7786        22348         19306

Summing in folds as `kerasbn.kernels.tensorflow_rows` does was no faster here.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from kerasbn.kernels import generic
from kerasbn.moments import Moments, count_values

_FIRST = 64  # values of a feature that the pivot is the mean of


def batch_normalize(x, gamma, beta, *, axes, epsilon, mask=None, synchronized=False):
    """See `kerasbn.kernels.batch_normalize`."""
    if synchronized:
        raise ValueError("synchronized statistics need the TensorFlow backend.")
    count = count_values(x, axes, mask)
    vector = tuple(1 if a in axes else size for a, size in enumerate(x.shape))
    gamma = jnp.ones(vector, x.dtype) if gamma is None else gamma
    beta = jnp.zeros(vector, x.dtype) if beta is None else beta
    y, mean, variance = _normalize(axes, epsilon, x, gamma, beta, mask, count)
    return y, Moments(jax.lax.stop_gradient(mean), jax.lax.stop_gradient(variance), count)


normalize = generic.normalize
reshape = jnp.reshape


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _normalize(axes, epsilon, x, gamma, beta, mask, count):
    return _forward(axes, epsilon, x, gamma, beta, mask, count)[0]


@_normalize.defjvp
def _normalize_jvp(axes, epsilon, primals, tangents):
    x, gamma, beta, mask, count = primals
    t, dgamma, dbeta, _, _ = tangents
    values, centered, inverse, multiplier = _forward(axes, epsilon, x, gamma, beta, mask, count)
    m = jnp.maximum(count, 1)
    a, b = (s / m for s in _stored(_total(t, axes, mask), _total(centered * t, axes, mask)))
    b = b * inverse
    # dy = multiplier (t - a - x_hat b) + dgamma x_hat + dbeta, with x_hat = centered inverse
    constant, slope = _stored(dbeta - multiplier * a, (dgamma - multiplier * b) * inverse)
    return values, (multiplier * t + constant + centered * slope, a, 2 * b / inverse)


def _forward(axes, epsilon, x, gamma, beta, mask, count):
    """(y, mean, variance), and what the derivative needs."""
    m = jnp.maximum(count, 1)
    (pivot,) = _stored(jax.lax.stop_gradient(_pivot(x, axes, mask)))
    d = x - pivot
    (delta,) = _stored(_total(d, axes, mask) / m)
    variance = _total(jnp.square(d - delta), axes, mask) / m
    inverse = jax.lax.rsqrt(variance + epsilon)
    multiplier, shift = _stored(gamma * inverse, beta - delta * gamma * inverse)
    y = d * multiplier + shift
    return (y, pivot + delta, variance), d - delta, inverse, multiplier


def _pivot(x, axes, mask):
    """A value of each feature's order, see `kerasbn.kernels`."""
    count = math.prod(x.shape[a] for a in axes)
    if mask is not None or axes != tuple(range(x.ndim - 1)) or not count:
        return generic.pivot_value(x, axes, mask)
    first = x.reshape(count, -1)[:_FIRST]
    total = jnp.ones((1, len(first)), x.dtype) @ first
    return (total / len(first)).reshape((1,) * (x.ndim - 1) + (-1,))


def _total(values, axes, mask):
    return jnp.sum(values if mask is None else jnp.where(mask, values, 0), axes, keepdims=True)


def _stored(*vectors):
    """The same, each computed once."""
    lines = [v.ravel() for v in vectors]
    if len(lines) == 1:  # a product with the number 1 would go away
        lines.append(jnp.zeros_like(lines[0]))
    stored = jnp.eye(len(lines), dtype=lines[0].dtype) @ jnp.stack(lines)
    return [s.reshape(v.shape) for s, v in zip(stored, vectors, strict=False)]
