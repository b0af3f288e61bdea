"""The private APIs of PyTorch that this package uses. Import it with this backend only."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.autograd import forward_ad


def transformed() -> bool:
    """Whether a transform of `torch.func` or forward-mode differentiation is active.

    PyTorch has no public way to ask. A kernel needs to know: these transforms differentiate and
    batch operation by operation, and a fast kernel supports only some of them.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def batched(gradient: torch.Tensor) -> bool:
    """Whether autograd computes several gradients at once, as with `is_grads_batched=True`."""
    return torch._C._functorch.is_legacy_batchedtensor(gradient)


def vectorized(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether one of the tensors belongs to a function that `torch.vmap` transforms.

    PyTorch has no public way to ask. Such a tensor cannot be used outside of the function.
    """
    functorch = torch._C._functorch
    for tensor in tensors:
        while functorch.is_functorch_wrapped_tensor(tensor):  # one wrapper for each transform
            if functorch.is_batchedtensor(tensor):
                return True
            tensor = functorch.get_unwrapped(tensor)
    return False
