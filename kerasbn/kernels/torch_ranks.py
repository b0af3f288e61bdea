"""Sums over the processes of `torch.distributed`, for statistics that they share.

They are the processes of the default process group, as in `DistributedDataParallel`. All of them
must call a synchronized layer equally often, because each sum waits for every process.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def several(x: Tensor) -> bool:
    """Whether x is one process's share of a batch, and other processes have the rest.

    False for a meta tensor, because Keras calls the layer with one to find the output shape.
    """
    ready = dist.is_available() and dist.is_initialized()
    return ready and dist.get_world_size() > 1 and not x.is_meta


def sum_over_ranks(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Sums each tensor over all processes, in a single `all_reduce`. All must have one shape."""
    return _Sum.apply(torch.stack(tensors)).unbind()


class _Sum(torch.autograd.Function):
    """The sum over all processes. It is linear and symmetric, hence its own derivative."""

    @staticmethod
    def forward(x):
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, upstream):
        return _Sum.apply(upstream)

    @staticmethod
    def jvp(ctx, tangent):
        return _Sum.apply(tangent)

    @staticmethod
    def vmap(info, in_dims, x):
        return _Sum.apply(x), in_dims[0]
