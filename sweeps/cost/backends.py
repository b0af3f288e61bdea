"""A layer's training step on Keras's other backends, each in its own process.

The chain, shapes and numbers are those of TensorFlow's measurements. JAX runs the step compiled by
`jax.jit`, and PyTorch runs it eagerly. The contenders are Keras's layer and kerasbn's.

    python -m sweeps.cost.backends SHAPE SECONDS ROUNDS THREADS

runs on the backend in KERAS_BACKEND and prints one JSON object on its last line: the seconds of
each round, by contender.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Sequence

import numpy as np

from sweeps.cost import child_process
from sweeps.cost.shapes import CHAIN, EPSILON, MOMENTUM, inputs, weights

MODES = {"jax": "jit", "torch": "eager"}


def installed() -> list[str]:
    """The backends that are installed here."""
    return [name for name in MODES if importlib.util.find_spec(name)]


def measure(
    backend: str, shape: tuple[int, ...], *, seconds: float, rounds: int, threads: int
) -> dict[tuple[str, str], np.ndarray]:
    """Measures a backend in a new process.

    Args:
        backend: Keras backend, a key of `MODES`.
        shape: Shape of the layer's input.
        seconds: Time for the rounds.
        rounds: Largest number of rounds.
        threads: Threads of the backend.

    Returns:
        Seconds of each round, by mode and contender.

    Raises:
        RuntimeError: If the process fails.
    """
    taken = child_process.run(
        "sweeps.cost.backends",
        *("x".join(map(str, shape)), seconds, rounds, threads),
        KERAS_BACKEND=backend,
        NPROC=str(threads),  # sets the number of XLA's threads on a CPU
    )
    return {(MODES[backend], name): np.array(samples) for name, samples in taken.items()}


def training(shape: tuple[int, ...], chain: int = CHAIN) -> dict[str, Callable[[], Sequence]]:
    """The contenders' training steps on this process's backend, by name.

    Args:
        shape: Shape of the layer's input.
        chain: Number of layers in the chain.

    Returns:
        Functions without arguments. Each returns y, dx and the gradients of gamma and beta.
    """
    import keras

    import kerasbn

    step = {"jax": _jax_step, "torch": _torch_step}[keras.backend.backend()]
    calls = {}
    for name, kind in (("keras", keras.layers.BatchNormalization), ("kerasbn", kerasbn.BatchNorm)):
        layers = [kind(momentum=MOMENTUM, epsilon=EPSILON) for _ in range(chain)]
        for position, layer in enumerate(layers):
            layer.build(shape)
            layer.set_weights(weights(shape[-1], position))
        calls[name] = step(layers, *inputs(shape))
    return calls


def _jax_step(layers, x, dy):
    import jax

    @jax.jit
    def step(parameters, states, x, dy):
        def forward(parameters, x):
            moved = []
            for layer, own, state in zip(layers, parameters, states, strict=True):
                x, state = layer.stateless_call(own, state, x, training=True)
                moved.append(state)
            return x, moved

        y, pull_back, moved = jax.vjp(forward, parameters, x, has_aux=True)
        others, dx = pull_back(dy)
        return moved, (y, dx, *jax.tree.leaves(others))

    parameters = [[p.value for p in layer.trainable_variables] for layer in layers]
    x, dy = jax.numpy.asarray(x), jax.numpy.asarray(dy)
    states = [[v.value for v in layer.non_trainable_variables] for layer in layers]

    def call():
        nonlocal states
        states, outputs = jax.block_until_ready(step(parameters, states, x, dy))
        return outputs

    return call


def _torch_step(layers, x, dy):
    import torch

    x, dy = torch.tensor(x, requires_grad=True), torch.tensor(dy)
    parameters = [p.value for layer in layers for p in layer.trainable_variables]

    def call():
        y = x
        for layer in layers:
            y = layer(y, training=True)
        return y, *torch.autograd.grad(y, [x, *parameters], dy)

    return call


def main(shape: str, seconds: str, rounds: str, threads: str) -> None:
    """Measures in this process and prints the result."""
    import keras

    from sweeps.harness import timing

    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(int(threads))
    calls = training(tuple(map(int, shape.split("x"))))
    taken = timing.in_turn_within(calls, float(seconds), most=int(rounds))
    print(json.dumps({name: samples.tolist() for name, samples in taken.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
