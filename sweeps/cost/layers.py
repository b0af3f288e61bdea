"""The contenders for one layer, each as several layers in one compiled call.

Several layers make the cost of the call itself negligible. They form a chain. XLA may recompute the
output of one layer everywhere the next layer uses it, so with XLA they are also measured apart,
each with its own input. A training step is forward, backward and the update of the moving averages.
It returns the output and the gradients with respect to x, gamma and beta, so no compiler can leave
one out. Every contender starts from the same numbers; see `sweeps.cost.shapes`.

The contenders:

    keras         keras.layers.BatchNormalization
    kerasbn       kerasbn.BatchNorm
    by hand       tf.nn.moments and tf.nn.batch_normalization, with moving averages
    relu          the cheapest layer, as a lower bound; in graph mode only, because XLA merges the
                  chain into one operation
    pytorch       torch.nn.BatchNorm1d or 2d, if PyTorch is installed
    four copies   four copies of the tensor: the least traffic that batch norm needs, because it
                  reads x twice and writes y, then reads x and dy twice and writes dx

In bfloat16, all of them compute in float32 and have float32 weights, as in mixed precision.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

import kerasbn
from sweeps.cost import pytorch_layer
from sweeps.cost.copies import copies
from sweeps.cost.shapes import CHAIN, EPSILON, MOMENTUM, inputs, weights

MODES = {"graph": False, "xla": True}  # mode: whether XLA compiles
APART = "xla_apart"  # the mode without a chain: every layer has another input

Key = tuple[str, str]  # mode and contender
Call = Callable[[], Sequence]


def training(shape: tuple[int, ...], dtype: str, chain: int = CHAIN) -> dict[Key, Call]:
    """The contenders' training steps, by mode and name.

    Args:
        shape: Shape of the layer's input.
        dtype: Dtype of the layer's input and output.
        chain: Number of layers.

    Returns:
        Functions without arguments. Each returns y, dx and the gradients of gamma and beta, layer
        by layer. In mode `APART`, there are as many y and dx as layers. The result of "four copies"
        means nothing.
    """
    x, dy = inputs(shape)
    given = tf.cast(x, dtype), tf.cast(dy, dtype)
    calls = {}
    for name, make in LAYERS.items():
        for mode, jit in MODES.items():
            if (mode, name) != ("xla", "relu"):
                layers = [make(shape, dtype, position) for position in range(chain)]
                calls[mode, name] = _training_step(layers, jit, *given)
    apart = [[t + n for n in range(chain)] for t in given]  # equal inputs would share sums
    for name in ("keras", "kerasbn", "by hand"):
        layers = [LAYERS[name](shape, dtype, position) for position in range(chain)]
        calls[APART, name] = _step_apart(layers, *apart)
    if importlib.util.find_spec("torch"):
        calls["eager", "pytorch"] = pytorch_layer.training_step(x, dy, dtype, chain)
    threads = tf.config.threading.get_intra_op_parallelism_threads() or 1  # 0 means not set
    calls["", "four copies"] = copies(x.size, dtype, 4 * chain, threads)
    return calls


def batch_sizes(shape: tuple[int, ...], chain: int = CHAIN) -> dict[Key, Call]:
    """The training steps of Keras's and kerasbn's layers, by what is known of the batch size.

    Mode "known" is `training` in graph mode. In mode "unknown", TensorFlow traces one graph for
    all batch sizes, as Keras's `fit` does. In mode "changing", nothing is compiled, and each call
    takes `chain` batches of random sizes through one layer, on average of the given size.

    Args:
        shape: Shape of the layer's input.
        chain: Number of layers in the chain, or of batches in mode "changing".

    Returns:
        Functions without arguments, by mode and name.
    """
    x, dy = map(tf.constant, inputs(shape))
    any_batch_size = [tf.TensorSpec((None, *shape[1:]), x.dtype)] * 2
    longest = list(map(tf.constant, inputs((2 * shape[0] - 1, *shape[1:]))))
    calls = {}
    for name in ("keras", "kerasbn"):
        for mode, signature in (("known", None), ("unknown", any_batch_size)):
            layers = [LAYERS[name](shape, "float32", position) for position in range(chain)]
            calls[mode, name] = _training_step(layers, False, x, dy, signature)
        layer = LAYERS[name](shape, "float32", 0)
        calls["changing", name] = _changing_step(layer, chain, *longest)
    return calls


def inference(shape: tuple[int, ...], dtype: str, chain: int = CHAIN) -> dict[Key, Call]:
    """The contenders' inference passes, by mode and name.

    XLA would merge the chain into one loop over the data. So in XLA's mode, one layer is applied
    `chain` times in a loop that XLA does not unroll.

    Args:
        shape: Shape of the layer's input.
        dtype: Dtype of the layer's input and output.
        chain: Number of layers in the chain.

    Returns:
        Functions without arguments. Each returns a list with y.
    """
    x = tf.cast(inputs(shape)[0], dtype)
    calls = {}
    for name in ("keras", "kerasbn", "by hand"):
        layers = [LAYERS[name](shape, dtype, position) for position in range(chain)]
        calls["graph", name] = _inference_pass(layers, False, x)
        calls["xla", name] = _inference_pass(layers[:1], True, x, chain)
    return calls


class _Layer(NamedTuple):
    call: Callable[[tf.Tensor, bool], tf.Tensor]  # function of (x, training)
    parameters: list[tf.Variable]


def _training_step(layers, jit, x, dy, signature=None):
    step = tf.function(_step(layers), jit_compile=jit, input_signature=signature)

    def call():
        last, *outputs = step(x, dy)
        last.numpy()  # waits for the end of the step, and copies only one number
        return outputs

    return call


def _step_apart(layers, xs, dys):
    parameters = [p for layer in layers for p in layer.parameters]

    @tf.function(jit_compile=True)
    def step(xs, dys):
        with tf.GradientTape() as tape:
            tape.watch(xs)
            ys = [layer.call(x, True) for layer, x in zip(layers, xs, strict=True)]
        gradients = tape.gradient(ys, [*xs, *parameters], dys)
        return tf.reshape(gradients[0], [-1])[0], *ys, *gradients

    def call():
        last, *outputs = step(xs, dys)
        last.numpy()
        return outputs

    return call


def _changing_step(layer, batches, x, dy):
    step = _step([layer])
    generator = np.random.default_rng(0)

    def call():
        for n in generator.integers(1, x.shape[0], batches, endpoint=True):
            last, *outputs = step(x[:n], dy[:n])
        last.numpy()
        return outputs

    return call


def _step(layers):
    """A function of (x, dy). It returns a number of dx, then y, dx, and the other gradients."""
    parameters = [p for layer in layers for p in layer.parameters]

    def step(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for layer in layers:
                y = layer.call(y, True)
        dx, *others = tape.gradient(y, [x, *parameters], dy)
        return tf.reshape(dx, [-1])[0], y, dx, *others

    return step


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
