"""One process of the runs in `test_torch_distributed.py`.

Usage: torch_rank.py FOLDER RANK RANKS. The folder holds the cases (`cases.pickle`), and the process
leaves its results there (`RANK.pickle`).
"""

import os
import pickle
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch
import torch.distributed as dist

from kerasbn import BatchNorm


def gamma_of(shape):
    """A different gamma for each feature."""
    return np.linspace(0.5, 2, np.prod(shape)).reshape(shape)


def built(options, shape):
    """A layer with `gamma_of`."""
    layer = BatchNorm(**options)
    layer.build(shape)
    layer.gamma.assign(gamma_of(layer.gamma.shape))
    return layer


def share(case, name, rank):
    """This process's examples of an array, or `None`."""
    array = case.get(name)
    if array is None:
        return None
    starts = np.cumsum([0, *case["sizes"]])
    return torch.as_tensor(array[starts[rank] : starts[rank + 1]])


def step(case, rank):
    """Output, gradients and weights of one training step."""
    x, dy, mask = (share(case, name, rank) for name in ("x", "dy", "mask"))
    layer = built(case["options"], x.shape)
    x.requires_grad_()
    y = layer(x, training=True, mask=mask)
    gradients = torch.autograd.grad(y, [x, layer.gamma.value, layer.beta.value], dy)
    named = zip(("y", "dx", "dgamma", "dbeta"), (y, *gradients), strict=True)
    return {name: t.detach().numpy() for name, t in named} | {
        "weights": [w.value.detach().numpy() for w in layer.weights]
    }


def penalty(case, rank):
    """Gradient of sum(g^2), where g is the gradient of sum(y^3) over all processes."""
    x, mask = share(case, "x", rank).requires_grad_(), share(case, "mask", rank)
    loss = (built(case["options"], x.shape)(x, training=True, mask=mask) ** 3).sum()
    (g,) = torch.autograd.grad(loss, x, create_graph=True)
    return {"dx": torch.autograd.grad((g**2).sum(), x)[0].numpy()}


def transforms(case, rank):
    """Forward mode, and a loop over two batches as one call."""
    x, direction, mask = (share(case, name, rank) for name in ("x", "dy", "mask"))
    layer = built(case["options"], x.shape)
    weights = [[w.value.detach() for w in layer.weights[part]] for part in (slice(2), slice(2, 4))]

    def forward(x):
        return layer.stateless_call(*weights, x, training=True, mask=mask)[0]

    _, derivative = torch.func.jvp(forward, (x,), (direction,))
    return {
        "derivative": derivative.numpy(),
        "batches": torch.func.vmap(forward)(torch.stack([x, x**2])).numpy(),
    }


def model_of(synchronized):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, "tanh"),
            BatchNorm(momentum=0.9, synchronized=synchronized),
            keras.layers.Dense(1),
        ]
    )


def train(model, x, steps=3):
    """Takes steps of gradient descent and returns the weights."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for _ in range(steps):
        loss = ((model(x, training=True) - x.sum(-1, keepdim=True)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def data_parallel(case, rank):
    """Weights after training a Keras model in DistributedDataParallel."""
    model = model_of(synchronized=True)
    train(torch.nn.parallel.DistributedDataParallel(model), share(case, "x", rank))
    return {"weights": [w.value.detach().numpy() for w in model.weights]}


def main(folder, rank, ranks):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks
    )
    cases = pickle.loads((folder / "cases.pickle").read_bytes())
    results = {name: globals()[case["task"]](case, rank) for name, case in cases.items()}
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(results))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
