"""PyTorch's batch-norm layer as a contender, in the memory layout in which it is fastest.

It runs in the same process as TensorFlow. It takes the same time there as alone, because one
contender's sample ends before the next begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sweeps.cost.shapes import EPSILON, MOMENTUM, weights


def training_step(x: np.ndarray, dy: np.ndarray, dtype: str, chain: int) -> Callable[[], Sequence]:
    """A training step of a chain of `torch.nn.BatchNorm1d` or `BatchNorm2d`.

    Args:
        x: Input, features last.
        dy: Gradient with respect to the output, features last.
        dtype: Dtype of the input and the output.
        chain: Number of layers in the chain.

    Returns:
        A function without arguments that returns y, dx and the gradients of gamma and beta.
    """
    import torch

    features = x.shape[-1]
    two_dimensional = x.ndim == 4
    layers = []
    for position in range(chain):
        kind = torch.nn.BatchNorm2d if two_dimensional else torch.nn.BatchNorm1d
        layer = kind(features, eps=EPSILON, momentum=1 - MOMENTUM)
        names = ("weight", "bias", "running_mean", "running_var")
        drawn = zip(names, map(torch.tensor, weights(features, position)), strict=True)
        layer.load_state_dict({**layer.state_dict(), **dict(drawn)})
        layers.append(layer)
    net = torch.nn.Sequential(*layers)

    def laid_out(array):
        # The layout is channels last at rank 4. At rank 3 it is (examples * positions, features),
        # because (examples, features, positions) with the same memory takes 3 times as long.
        tensor = torch.tensor(array).to(getattr(torch, dtype))
        return tensor.permute(0, 3, 1, 2) if two_dimensional else tensor.reshape(-1, features)

    given, upstream = laid_out(x).requires_grad_(), laid_out(dy)
    parameters = list(net.parameters())

    def call():
        y = net(given)
        dx, *others = torch.autograd.grad(y, [given, *parameters], upstream)
        return y, dx, *others

    return call
