"""Sums over the processes of `torch.distributed`, for statistics that they share.

The processes are those of the default process group, as in `DistributedDataParallel`. Each of them
must call a synchronized layer equally often, because a sum waits for all.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def several(x: Tensor) -> bool:
    """Whether x is one of several shares of a batch.

    A tensor without values is not. With such tensors, Keras computes the shapes in a model.
    """
    ready = dist.is_available() and dist.is_initialized()
    return ready and dist.get_world_size() > 1 and not x.is_meta


def sum_over_ranks(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The sums of tensors of one shape over all processes, in one exchange of messages."""
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
