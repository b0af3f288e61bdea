"""Batch norm in plain PyTorch operations, none of them in place.

It works for all axes, with masks, and over the processes of `torch.distributed`. PyTorch can
differentiate, transform and compile everything here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from kerasbn.kernels import scale_and_shift, torch_ranks
from kerasbn.moments import Tensor, at_least, count_values


def batch_normalize(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, population: Population, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """y, and the mean and the variance without a gradient."""
    pivot, delta, variance, inverse = population.statistics(x, epsilon)
    y = scale_and_shift((x - pivot - delta) * inverse, gamma, beta)
    return y, (pivot + delta).detach(), variance.detach()


class Population(NamedTuple):
    """The set of values that enter the statistics.

    Attributes:
        axes: Reduced axes.
        mask: Booleans that are true at the positions that count, or `None` for all positions.
        count: Number of values of each feature, see `kerasbn.moments.count_values`.
        shared_pivot: Pivot of all processes, or `None` if only this process's values count.
    """

    axes: tuple[int, ...]
    mask: Tensor | None
    count: Tensor
    shared_pivot: Tensor | None

    @classmethod
    def of(
        cls, x: Tensor, axes: tuple[int, ...], mask: Tensor | None, all_ranks: bool
    ) -> Population:
        """The values of x, and with `all_ranks` those of the other processes."""
        count = count_values(x, axes, mask)
        if not all_ranks:
            return cls(axes, mask, count, None)
        # The shared pivot is the mean of the pivots of all processes that have values.
        pivot = _pivot_value(x.detach(), axes, mask)
        count = torch.as_tensor(count, dtype=x.dtype, device=x.device).expand_as(pivot)
        count, weighted = torch_ranks.sum_over_ranks(count, count * pivot)
        return cls(axes, mask, count, weighted / at_least(count, 1.0))

    def statistics(self, x: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pivot, mean - pivot, variance and 1 / sqrt(variance + epsilon)."""
        pivot = self.shared_pivot
        if pivot is None:
            pivot = _pivot_value(x.detach(), self.axes, self.mask)
        d = x - pivot
        delta = self._mean(d)
        variance = self._mean((d - delta).square())
        return pivot, delta, variance, torch.rsqrt(variance + epsilon)

    def gradients(
        self,
        dy: Tensor,
        x: Tensor,
        gamma: Tensor | None,
        pivot: Tensor,
        delta: Tensor,
        inverse: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """dx, dgamma and dbeta, see `kerasbn.kernels`. PyTorch can differentiate them."""
        x_hat = (x - pivot - delta) * inverse
        dbeta, dgamma = s1, s2 = self._sum(dy), self._sum(dy * x_hat)
        if self.shared_pivot is not None:  # the caller averages dgamma and dbeta over processes
            s1, s2 = torch_ranks.sum_over_ranks(s1, s2)
        m = at_least(self.count, 1.0)
        through_statistics = s1 / m + x_hat * (s2 / m)
        if self.mask is not None:
            through_statistics = torch.where(self.mask, through_statistics, 0.0)
        multiplier = inverse if gamma is None else inverse * gamma
        return (dy - through_statistics) * multiplier, dgamma, dbeta

    def _mean(self, values):
        total = self._sum(values if self.mask is None else torch.where(self.mask, values, 0.0))
        if self.shared_pivot is not None:
            (total,) = torch_ranks.sum_over_ranks(total)
        return total / at_least(self.count, 1.0)

    def _sum(self, values):
        # PyTorch reads an empty tuple of axes as "all axes".
        return values.sum(self.axes, keepdim=True) if self.axes else values


def _pivot_value(x, axes, mask):
    # `generic.pivot_value` does the same with `keras.ops`. But `ops.sum` needs tensors on Keras's
    # default device. `ops.max` gives the wrong shape for an empty batch, and torch.compile cannot
    # trace it.
    if mask is None or not x.numel():
        first = x[tuple(slice(0, 1) if a in axes else slice(None) for a in range(x.ndim))]
        return first.sum(axes, keepdim=True) if axes else first  # 0 for an empty batch
    largest = torch.where(mask, x, -math.inf)
    largest = largest.amax(axes, keepdim=True) if axes else largest
    return torch.where(largest > -math.inf, largest, 0.0)
