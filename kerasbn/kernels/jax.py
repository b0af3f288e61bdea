"""Batch norm in JAX, differentiable in forward and reverse mode, to any order.

The derivative is given as a linear map. Let a be the mean of a tangent t, and b the mean of
x_hat t. The derivative of x_hat in the direction t is (t - a - x_hat b) / std. So the derivative of
y is a multiple of t, plus a vector, plus x_hat times a vector. In reverse mode, JAX transposes each
vector to one of the two sums of the analytic backward pass. For higher orders, it differentiates
the map itself.

Speed on the CPU. XLA recomputes a value in every place that uses it, unless the value looks
expensive. In a network, this repeats layer after layer. XLA cannot be asked to store a tensor, but
it does store the results of matrix products. That is why `_stored` exists, and why the pivot is a
product: the mean of the first few rows and not the first row. Both are for the CPU alone. Other
processors get the first row and no product, because their products may round the factors to TF32
or bfloat16. The table shows microseconds per layer, forward and backward: medians of a chain of
eight layers on two cores (AVX2).

                                         500x500  500x25  256x28x28x6  32x56x56x64  64x14x14x256
    Keras                                   1575     170         7645        30359         23132
    four sums backward, nothing stored      1883     242        41525        52499         33183
    two sums, nothing stored                1234     239        17634        35144         19464
    two sums, pivot and vectors stored       892     185         7786        22348         19306
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from kerasbn.kernels import from_vector, generic
from kerasbn.moments import Moments, Tensor, count_values

_FIRST = 64  # values of a feature whose mean is the pivot


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
    vector = tuple(1 if a in axes else size for a, size in enumerate(x.shape))
    gamma = jnp.ones(vector, x.dtype) if gamma is None else gamma
    beta = jnp.zeros(vector, x.dtype) if beta is None else beta
    y, mean, variance = _normalize(axes, epsilon, x, gamma, beta, mask, count)
    return y, Moments(jax.lax.stop_gradient(mean), jax.lax.stop_gradient(variance), count)


reshape = jnp.reshape


def normalize(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    *,
    epsilon: float,
) -> Tensor:
    """See `kerasbn.kernels.normalize`."""
    # Exporters to ONNX turn broadcasts of a vector into operations, but fold a reshape.
    given = (mean, variance, gamma, beta)
    shaped = (from_vector(t, x.ndim) if t is not None and t.ndim == 1 else t for t in given)
    return generic.normalize(x, *shaped, epsilon=epsilon)


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
    """(y, mean, variance), and the values that the derivative needs."""
    m = jnp.maximum(count, 1)
    pivot = jax.lax.stop_gradient(_pivot(x, axes, mask))
    d = x - pivot
    (delta,) = _stored(_total(d, axes, mask) / m)
    variance = _total(jnp.square(d - delta), axes, mask) / m
    inverse = jax.lax.rsqrt(variance + epsilon)
    multiplier, shift = _stored(gamma * inverse, beta - delta * gamma * inverse)
    y = d * multiplier + shift
    return (y, pivot + delta, variance), d - delta, inverse, multiplier


def _pivot(x, axes, mask):
    """A number close to each feature's values, see `kerasbn.kernels`."""
    count = math.prod(x.shape[a] for a in axes)
    if mask is not None or axes != tuple(range(x.ndim - 1)) or not count:
        return generic.pivot_value(x, axes, mask)

    def mean_of_first(x):
        first = x.reshape(count, -1)[:_FIRST]
        total = _product(jnp.ones((1, len(first)), x.dtype), first)
        (mean,) = _stored_on_cpu(from_vector(total / len(first), x.ndim))
        return mean

    def first_value(x):
        return generic.pivot_value(x, axes, mask)

    return jax.lax.platform_dependent(x, cpu=mean_of_first, default=first_value)


def _total(values, axes, mask):
    return jnp.sum(values if mask is None else jnp.where(mask, values, 0), axes, keepdims=True)


def _stored(*vectors):
    """The same vectors, each computed only once on the CPU."""
    return jax.lax.platform_dependent(*vectors, cpu=_stored_on_cpu, default=lambda *same: same)


def _stored_on_cpu(*vectors):
    lines = [v.ravel() for v in vectors]
    if len(lines) == 1:  # XLA would remove a product with the number 1
        lines.append(jnp.zeros_like(lines[0]))
    stored = _product(jnp.eye(len(lines), dtype=lines[0].dtype), jnp.stack(lines))
    return tuple(s.reshape(v.shape) for s, v in zip(stored, vectors, strict=False))


def _product(a, b):
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
