"""Batch norm over all axes but the last in PyTorch: its native kernel, made exact, or wide lines.

PyTorch's `native_batch_norm` reads channels-last data where the channels fill the processor's
vectors. It is given x - pivot, see `kerasbn.kernels`, so that the digits of large means stay. With
fewer channels, four rows of six are taken for one line of 24, and only the sums folded afterwards.

Microseconds a layer, forward and backward, two cores (AVX2), chain of eight, beside Keras's layer:

                          500x500  500x100  256x28x28x6  256x10x10x16  32x56x56x64  64x14x14x256
    Keras                    3672     1871        35151          3148       103242         14235
    native                   1614      308        38023          1026        18116          4761
    lines                    1352      893        24368          2364        26958          8086
"""

from __future__ import annotations

import torch

_WIDTH = 16  # channels that fill a vector, or values to have in a line


def suits(x: torch.Tensor, axes: tuple[int, ...]) -> bool:
    """Whether x, reduced over `axes`, is for this kernel: the last axis alone is kept."""
    return axes == tuple(range(x.ndim - 1)) and x.ndim > 1 and x.numel() > 0


def forward(x, gamma, beta, epsilon: float):
    """y; and the pivot, mean - pivot, variance and 1 / sqrt(variance + epsilon), each (c,).

    Args:
        x: (..., c), not empty.
        gamma: (c,), or `None`.
        beta: Likewise.
        epsilon: Added to the variance.
    """
    c = x.shape[-1]
    pivot = x.reshape(-1, c)[0].clone()
    if c >= _WIDTH:
        d = _channels_last(x.reshape(-1, c) - pivot)
        delta, variance = torch.batch_norm_update_stats(d, None, None, 0.0)
        y = torch.native_batch_norm(d, gamma, beta, delta, variance, False, 0.0, epsilon)[0]
        y = y.permute(0, 2, 3, 1).reshape(x.shape)
        return y, pivot, delta, variance, torch.rsqrt(variance + epsilon)
    lines = _Lines(x)
    d = lines.of(x) - lines.repeated(pivot)
    delta = lines.mean(d)
    d -= lines.repeated(delta)
    variance = lines.mean(d.square())
    inverse = torch.rsqrt(variance + epsilon)
    d *= lines.repeated(inverse if gamma is None else inverse * gamma)
    if beta is not None:
        d += lines.repeated(beta)
    return d.view(x.shape), pivot, delta, variance, inverse


def backward(dy, x, gamma, pivot, delta, inverse, epsilon: float):
    """dx, dgamma and dbeta from what `forward` gave; see `kerasbn.kernels`."""
    c = x.shape[-1]
    if c >= _WIDTH:
        d = _channels_last(x.reshape(-1, c) - pivot)
        dx, dgamma, dbeta = torch.ops.aten.native_batch_norm_backward(
            _channels_last(dy.reshape(-1, c)),
            d,
            torch.ones_like(inverse) if gamma is None else gamma,
            None,
            None,
            delta,
            inverse,
            True,
            epsilon,
            [True, True, True],
        )
        return dx.permute(0, 2, 3, 1).reshape(x.shape), dgamma, dbeta
    lines = _Lines(x)
    dy = lines.of(dy)
    d = (lines.of(x) - lines.repeated(pivot)).sub_(lines.repeated(delta))
    mean_dy, mean_dy_d = lines.mean(dy), lines.mean(dy * d)
    multiplier = inverse if gamma is None else inverse * gamma
    # multiplier (dy - s1/m - x_hat s2/m), with x_hat = d inverse
    d *= lines.repeated(-multiplier * inverse.square() * mean_dy_d)
    d -= lines.repeated(multiplier * mean_dy)
    d.addcmul_(dy, lines.repeated(multiplier))
    return d.view(x.shape), mean_dy_d * inverse * lines.rows, mean_dy * lines.rows


def _channels_last(rows):
    """(n, c) as PyTorch's (1, c, n, 1), of the same memory."""
    return rows.contiguous().view(1, len(rows), 1, -1).permute(0, 3, 1, 2)


class _Lines:
    """x seen as lines of several rows, so that a line fills the processor's vectors."""

    def __init__(self, x):
        self._c = x.shape[-1]
        self.rows = x.numel() // self._c
        self._each = 1  # rows in a line
        while self._c * self._each < _WIDTH and self.rows % (2 * self._each) == 0:
            self._each *= 2

    def of(self, t):
        return t.reshape(-1, self._each * self._c)

    def repeated(self, vector):
        return vector.repeat(self._each)

    def mean(self, lines):
        """Over all rows, (c,)."""
        return lines.sum(0).view(self._each, self._c).sum(0) / self.rows
