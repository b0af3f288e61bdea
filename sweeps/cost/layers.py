"""What one layer costs: a chain of it in one compiled call, so that the call's own cost is shared.

Training is forward, backward and the step of the moving averages. The output and the gradients
with respect to x, gamma and beta are all returned, so that no compiler can leave one out. Every
contender starts from the same numbers, see `sweeps.cost.shapes`.

The contenders:

    keras         keras.layers.BatchNormalization
    kerasbn       kerasbn.BatchNorm
    by hand       tf.nn.moments and tf.nn.batch_normalization, with moving averages
    relu          what the cheapest layer there is costs; in graph mode, for XLA merges a chain of
                  them into one
    pytorch       torch.nn.BatchNorm1d or 2d, where PyTorch is installed, in the memory layout in
                  which it is fastest. In this process: beside TensorFlow and alone it takes the
                  same time, as a sample ends before the next begins.
    four copies   of the tensor, by as many threads: the least traffic that batch norm needs (it
                  reads x twice and writes y, then reads x and dy twice and writes dx)

In bfloat16 all of them compute in float32 and have float32 weights, as mixed precision does.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

import kerasbn
from sweeps.cost.shapes import CHAIN, EPSILON, MOMENTUM, inputs, weights

MODES = {"graph": False, "xla": True}  # and whether to compile with XLA

Key = tuple[str, str]  # mode and contender
Call = Callable[[], Sequence]


def training(shape: tuple[int, ...], dtype: str, chain: int = CHAIN) -> dict[Key, Call]:
    """The contenders' training steps, by mode and name.

    Returns:
        Functions without arguments. Each returns y, dx and the gradients of gamma and beta, layer
        by layer; "four copies" returns nothing of use.
    """
    x, dy = inputs(shape)
    given = tf.cast(x, dtype), tf.cast(dy, dtype)
    calls = {}
    for name, make in LAYERS.items():
        for mode, jit in MODES.items():
            if (mode, name) != ("xla", "relu"):
                layers = [make(shape, dtype, position) for position in range(chain)]
                calls[mode, name] = _training_step(layers, jit, *given)
    if importlib.util.find_spec("torch"):
        calls["eager", "pytorch"] = _pytorch_step(x, dy, dtype, chain)
    calls["", "four copies"] = _copies(x, dtype, 4 * chain)
    return calls


def inference(shape: tuple[int, ...], dtype: str, chain: int = CHAIN) -> dict[Key, Call]:
    """The contenders' inference, by mode and name: forward alone, with moving averages.

    XLA would merge a chain into one loop over the data. There, one layer is applied `chain` times
    in a loop that XLA does not unroll.

    Returns:
        Functions without arguments; each returns y, in a list.
    """
    x = tf.cast(inputs(shape)[0], dtype)
    calls = {}
    for name in ("keras", "kerasbn", "by hand"):
        layers = [LAYERS[name](shape, dtype, position) for position in range(chain)]
        calls["graph", name] = _inference_pass(layers, False, x)
        calls["xla", name] = _inference_pass(layers[:1], True, x, chain)
    return calls


class _Layer(NamedTuple):
    call: Callable[[tf.Tensor, bool], tf.Tensor]  # of (x, training)
    parameters: list[tf.Variable]


def _training_step(layers, jit, x, dy):
    parameters = [p for layer in layers for p in layer.parameters]

    @tf.function(jit_compile=jit)
    def step(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for layer in layers:
                y = layer.call(y, True)
        dx, *others = tape.gradient(y, [x, *parameters], dy)
        return tf.reshape(dx, [-1])[0], y, dx, *others

    def call():
        last, *outputs = step(x, dy)
        last.numpy()  # waits for the step's end, and copies one number only
        return outputs

    return call


def _inference_pass(layers, jit, x, times=1):
    def once(x):
        for layer in layers:
            x = layer.call(x, False)
        return x

    @tf.function(jit_compile=jit)
    def forward(x):
        if times == 1:
            y = once(x)
        else:
            _, y = tf.while_loop(lambda n, _: n < times, lambda n, y: (n + 1, once(y)), [0, x])
        return tf.reshape(y, [-1])[0], y

    def call():
        last, y = forward(x)
        last.numpy()
        return [y]

    return call


def _keras_layer(kind):
    def make(shape, dtype, position):
        policy = "float32" if dtype == "float32" else f"mixed_{dtype}"
        layer = kind(momentum=MOMENTUM, epsilon=EPSILON, dtype=policy)
        layer.build(shape)
        layer.set_weights(weights(shape[-1], position))
        return _Layer(
            lambda x, training: layer(x, training=training),
            [p.value for p in layer.trainable_variables],
        )

    return make


def _by_hand(shape, dtype, position):
    gamma, beta, moving_mean, moving_variance = map(tf.Variable, weights(shape[-1], position))
    axes = list(range(len(shape) - 1))

    def call(x, training):
        x = tf.cast(x, tf.float32)
        if training:
            mean, variance = tf.nn.moments(x, axes)
            moving_mean.assign_sub((moving_mean - mean) * (1 - MOMENTUM))
            moving_variance.assign_sub((moving_variance - variance) * (1 - MOMENTUM))
        else:
            mean, variance = moving_mean, moving_variance
        return tf.cast(tf.nn.batch_normalization(x, mean, variance, beta, gamma, EPSILON), dtype)

    return _Layer(call, [gamma, beta])


def _relu(shape, dtype, position):
    return _Layer(lambda x, training: tf.nn.relu(x), [])


LAYERS = {
    "keras": _keras_layer(keras.layers.BatchNormalization),
    "kerasbn": _keras_layer(kerasbn.BatchNorm),
    "by hand": _by_hand,
    "relu": _relu,
}


def _pytorch_step(x, dy, dtype, chain):
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
        # Channels last at rank 4. At rank 3, (examples * positions, features): 0.3 of the time of
        # (examples, features, positions) with the same values in memory.
        tensor = torch.tensor(array).to(getattr(torch, dtype))
        return tensor.permute(0, 3, 1, 2) if two_dimensional else tensor.reshape(-1, features)

    given, upstream = laid_out(x).requires_grad_(), laid_out(dy)
    parameters = list(net.parameters())

    def call():
        y = net(given)
        dx, *others = torch.autograd.grad(y, [given, *parameters], upstream)
        return y, dx, *others

    return call


def _copies(x, dtype, times):
    # Written to, both: pages that never were are all one page of zeros, which is always cached.
    source = np.arange(x.size).astype({"float32": np.uint32, "bfloat16": np.uint16}[dtype])
    target = np.zeros_like(source) + source
    threads = tf.config.threading.get_intra_op_parallelism_threads() or 1  # 0: not set
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    pool = concurrent.futures.ThreadPoolExecutor(threads)

    def copy(part):
        for _ in range(times):
            np.copyto(part[1], part[0])

    return lambda: list(pool.map(copy, parts))
