"""Batch normalization in float64 NumPy, step by step. All other code is tested against it.

The names are those of Ioffe & Szegedy (2015), in algorithm 1 and the gradients after it:

    mu      = 1/m sum_i x_i                         batch mean
    sigma2  = 1/m sum_i (x_i - mu)^2                batch variance (biased)
    x_hat_i = (x_i - mu) / sqrt(sigma2 + epsilon)   normalized value
    y_i     = gamma x_hat_i + beta                  scaled and shifted

The sums run over the m values of one feature: all positions of all axes but `axis`. With a mask,
the sums of mu and sigma2 run over the unmasked values only, and m is their number. All values,
including masked ones, are then normalized with this mu and sigma2.

References:
    Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Cache(NamedTuple):
    """The results of the forward pass that `backward` needs.

    gamma and the statistics have the rank of x and size 1 on the reduced axes.

    Attributes:
        x_hat: Normalized values.
        gamma: Scale.
        mu: Mean.
        sigma2: Biased variance.
        m: Number of unmasked values.
        weights: 1.0 for each unmasked value and 0.0 for each masked value, in the shape of x.
        epsilon: Number added to the variance.
        axes: Reduced axes.
    """

    x_hat: np.ndarray
    gamma: np.ndarray
    mu: np.ndarray
    sigma2: np.ndarray
    m: np.ndarray
    weights: np.ndarray
    epsilon: float
    axes: tuple[int, ...]


def forward(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    epsilon: float = 1e-3,
    *,
    axis: int | Sequence[int] = -1,
    mask: ArrayLike | None = None,
) -> tuple[np.ndarray, Cache]:
    """Normalizes a batch with its own statistics.

    Args:
        x: Array of any rank from 1. All arithmetic is in float64.
        gamma: Scale, with one value for each index combination of `axis` (in ascending order of the
            axes), or `None` for 1.
        beta: Offset in the same shape, or `None` for 0.
        epsilon: Number added to the variance. Default 1e-3.
        axis: Feature axis, or several. All other axes are reduced. Default -1.
        mask: Array that broadcasts to the shape of `x` and is nonzero at unmasked values, or
            `None`.

    Returns:
        `y` in the shape of `x`, and the `Cache` for `backward`. mu and sigma2 are 0 for features
        without unmasked values.

    Raises:
        ValueError: If `axis` is out of range.
    """
    x = np.asarray(x, np.float64)
    if not all(-x.ndim <= a < x.ndim for a in np.atleast_1d(axis)):
        raise ValueError(
            f"axis must be from {-x.ndim} to {x.ndim - 1} for an array of rank {x.ndim}. "
            f"Received: axis={axis!r}."
        )
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
    # In exact arithmetic, these deviations have mean zero. In floating point, their mean is the
    # rounding error of mu. At large offsets, it may be as large as the standard deviation.
    residue = _mean(centered, weights, m, axes)
    mu, centered = mu + residue, centered - residue
    sigma2 = _mean(centered**2, weights, m, axes)
    x_hat = centered / np.sqrt(sigma2 + epsilon)
    y = gamma * x_hat + beta
    return y, Cache(x_hat, gamma, mu, sigma2, m, weights, epsilon, axes)


def backward(dy: ArrayLike, cache: Cache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Computes the gradients of a loss through `forward`, with the chain rule as in the paper.

    Args:
        dy: Gradient of the loss with respect to `y`, in the shape of `y`.
        cache: Cache that `forward` returned.

    Returns:
        `dx` in the shape of `x`, and `dgamma` and `dbeta` with one value per feature. Their shape
        is that of the feature axes.
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
