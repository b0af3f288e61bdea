"""Batch normalization in float64 NumPy, step by step: the truth in the tests of everything else.

The names are those of Ioffe & Szegedy (2015), algorithm 1 and the gradients that follow it:

    mu      = 1/m sum_i x_i                         batch mean
    sigma2  = 1/m sum_i (x_i - mu)^2                batch variance (biased)
    x_hat_i = (x_i - mu) / sqrt(sigma2 + epsilon)   normalized value
    y_i     = gamma x_hat_i + beta                  scaled and shifted

The sums run over the m values of one feature: all positions of all axes but ``axis``. With a mask,
the sums of mu and sigma2 run over the unmasked values only and m is their number; every value,
masked or not, is then normalized with that mu and sigma2.

Reference: https://arxiv.org/abs/1502.03167
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Cache(NamedTuple):
    """What `backward` needs of the forward pass; statistics have size 1 on the reduced axes."""

    x_hat: np.ndarray
    gamma: np.ndarray
    mu: np.ndarray
    sigma2: np.ndarray
    m: np.ndarray
    weights: np.ndarray
    epsilon: float
    axes: tuple[int, ...]


def forward(
    x, gamma=None, beta=None, epsilon: float = 1e-3, *, axis=-1, mask=None
) -> tuple[np.ndarray, Cache]:
    """Normalizes a batch with its own statistics.

    Args:
        x: Array of any rank from 1; computed in float64.
        gamma: Scale, one value for each index combination of `axis` (in ascending order of the
            axes), or `None` for 1.
        beta: Offset, likewise, or `None` for 0.
        epsilon: Added to the variance. Default 1e-3.
        axis: The feature axis or axes, which are kept; all others are reduced. Default -1.
        mask: `None`, or an array that broadcasts to the shape of `x`: nonzero where a value counts.

    Returns:
        `y`, of the shape of `x`, and the `Cache` for `backward`. A feature without a single
        counting value gets mu = sigma2 = 0.
    """
    x = np.asarray(x, np.float64)
    kept = sorted(a % x.ndim for a in np.atleast_1d(axis))
    axes = tuple(a for a in range(x.ndim) if a not in kept)
    per_feature = [x.shape[a] if a in kept else 1 for a in range(x.ndim)]
    gamma = np.reshape(
        1.0 if gamma is None else np.asarray(gamma, np.float64), _shape(gamma, per_feature)
    )
    beta = np.reshape(
        0.0 if beta is None else np.asarray(beta, np.float64), _shape(beta, per_feature)
    )
    weights = np.broadcast_to(np.float64(1) if mask is None else np.asarray(mask) != 0, x.shape)
    weights = weights.astype(np.float64)

    m = weights.sum(axes, keepdims=True)
    mu = _mean(x, weights, m, axes)
    centered = x - mu
    # In exact arithmetic these deviations have mean zero. In floating point it is the rounding
    # error of mu, which at large offsets is not small against the standard deviation.
    residue = _mean(centered, weights, m, axes)
    mu, centered = mu + residue, centered - residue
    sigma2 = _mean(centered**2, weights, m, axes)
    x_hat = centered / np.sqrt(sigma2 + epsilon)
    y = gamma * x_hat + beta
    return y, Cache(x_hat, gamma, mu, sigma2, m, weights, epsilon, axes)


def backward(dy, cache: Cache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of a loss through `forward`, by the chain rule, one step of the paper at a time.

    Args:
        dy: Gradient of the loss with respect to `y`, of its shape.
        cache: What `forward` returned.

    Returns:
        `dx` of the shape of `x`; `dgamma` and `dbeta` with one value a feature, shaped like the
        kept axes.
    """
    dy = np.asarray(dy, np.float64)
    x_hat, gamma, _, sigma2, m, weights, epsilon, axes = cache
    sigma = np.sqrt(sigma2 + epsilon)
    dbeta = dy.sum(axes)
    dgamma = (dy * x_hat).sum(axes)
    dx_hat = dy * gamma
    # x_hat = (x - mu) / sigma, and d sigma2 / d x_i = 2 w_i (x_i - mu) / m, d mu / d x_i = w_i / m.
    dsigma2 = (dx_hat * x_hat).sum(axes, keepdims=True) * -0.5 / sigma**2
    dmu = -dx_hat.sum(axes, keepdims=True) / sigma
    w_over_m = weights / np.maximum(m, 1)
    dx = dx_hat / sigma + dsigma2 * 2 * w_over_m * x_hat * sigma + dmu * w_over_m
    return dx, dgamma, dbeta


def _mean(values, weights, m, axes):
    counted = np.where(weights > 0, values, 0.0)
    return counted.sum(axes, keepdims=True) / np.maximum(m, 1)


def _shape(parameter, per_feature):
    return [1] * len(per_feature) if parameter is None else per_feature
