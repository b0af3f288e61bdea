"""Batch norm over all axes but the last in PyTorch, in two ways.

- `native` uses PyTorch's `native_batch_norm`. It is fast on channels-last data if the channels fill
  the processor's vectors. It receives x - pivot instead of x, to stay exact at large means (see
  `kerasbn.kernels`).
- `forward` and `backward` view inputs with fewer channels as wide lines. For example, four rows of
  six channels make one line of 24, and only the sums are folded back to six.

The table compares both with Keras's layer. It shows microseconds per layer, forward and backward,
in a chain of eight layers on two cores with AVX2.

              500x500  500x100  500x25  256x28x28x6  256x10x10x16  32x56x56x64  64x14x14x256
    Keras        2453     1176     727        12148          1998        53951         14783
    native       1411      798     690        18728          1371        28312          6096
    lines        2036     1297     968         5292          2021        28879         10685
"""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from kerasbn.kernels.torch_plain import Population

NATIVE_FROM = 16  # smallest number of channels that fills the processor's vectors
_WIDTH = 16  # smallest number of values in a line


def suits(x: Tensor, axes: tuple[int, ...]) -> bool:
    """Whether this module can handle x: several rows, reduced over all axes but the last."""
    several_rows = x.ndim > 1 and x.numel() > x.shape[-1]
    return axes == tuple(range(x.ndim - 1)) and several_rows


def suits_native(x: Tensor) -> bool:
    """Whether `native` is faster for x than `forward` and `backward`."""
    return x.shape[-1] >= NATIVE_FROM


def native(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalizes x, with gradients of any order.

    Args:
        x: Tensor of shape (..., c) with at least two rows.
        gamma: Scale of shape (c,), or `None` for 1.
        beta: Offset of shape (c,), or `None` for 0.
        epsilon: Number added to the variance.

    Returns:
        y, and the mean and the variance, each of shape (c,).
    """
    c = x.shape[-1]
    rows = x.reshape(-1, c)
    pivot = rows[0].detach()
    d = (rows - pivot).contiguous().view(1, len(rows), 1, c).permute(0, 3, 1, 2)
    # With a momentum of 1, PyTorch writes the batch's mean and unbiased variance into these.
    delta, sample_variance = pivot.new_zeros(c), pivot.new_zeros(c)
    y = torch.native_batch_norm(d, gamma, beta, delta, sample_variance, True, 1.0, epsilon)[0]
    if y.grad_fn is not None:
        y.grad_fn.register_hook(_AgainDifferentiable(d, gamma, epsilon))
    variance = sample_variance * (1.0 - 1.0 / len(rows))
    return y.permute(0, 2, 3, 1).reshape(x.shape), pivot + delta, variance


def forward(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Normalizes x. The arguments are those of `native`.

    Returns:
        y, pivot, mean - pivot, variance and 1 / sqrt(variance + epsilon). All but y have shape
        (c,).
    """
    lines = _Lines(x)
    pivot = x.reshape(-1, x.shape[-1])[0].clone()
    y = x.new_empty(x.shape)  # not a view, because callers may change y in place
    d = lines.of(y)
    torch.sub(lines.of(x), lines.repeated(pivot), out=d)
    delta = lines.mean(d)
    d -= lines.repeated(delta)
    variance = lines.mean(d.square())
    inverse = torch.rsqrt(variance + epsilon)
    d *= lines.repeated(inverse if gamma is None else inverse * gamma)
    if beta is not None:
        d += lines.repeated(beta)
    return y, pivot, delta, variance, inverse


def backward(
    dy: Tensor, x: Tensor, gamma: Tensor | None, pivot: Tensor, delta: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dgamma and dbeta from the results of `forward`, see `kerasbn.kernels`."""
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


class _AgainDifferentiable:
    """Hook of `native_batch_norm`: gradients that can be differentiated any number of times.

    PyTorch's own gradients are wrong from the third derivative on, because they treat the saved
    statistics as constants. The same happens in `torch.nn.BatchNorm1d`. Without `create_graph`,
    and if d is no longer in memory (`save_on_cpu`), PyTorch's own gradients stay.
    """

    def __init__(self, d, gamma, epsilon):
        # A weak reference, because the hook lives as long as the graph. PyTorch frees d earlier.
        self._d, self._gamma, self._epsilon = weakref.ref(d), gamma, epsilon

    def __call__(self, gradients, upstream):
        if not torch.is_grad_enabled():
            return None
        (dy,), d, gamma = upstream, self._d(), self._gamma
        if dy is None or d is None:
            return None
        population = Population.of(d, (0, 2, 3), None, all_ranks=False)
        pivot, delta, _, inverse = population.statistics(d, self._epsilon)
        gamma = None if gamma is None else gamma.view(1, -1, 1, 1)
        dd, *others = population.gradients(dy, d, gamma, pivot, delta, inverse)
        computed = dd, *(each[0, :, 0, 0] for each in others)
        pairs = zip(gradients, computed, strict=True)
        return tuple(None if theirs is None else ours for theirs, ours in pairs)


class _Lines:
    """Views x as lines of several rows, so that a line fills the processor's vectors."""

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
        """The mean over all rows, of shape (c,)."""
        return lines.sum(0).view(self._each, self._c).sum(0) / self.rows
