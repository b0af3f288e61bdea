"""The native kernel as differentiable TensorFlow operations.

The gradient of the forward operation is the backward operation. For the gradient of the backward
operation, TensorFlow differentiates the plain formula.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import tensorflow as tf

from kerasbn.kernels import in_rank_of, native, tensorflow_plain
from kerasbn.moments import Moments, count_values


def load(path: Path) -> native.Library | str:
    """Loads the library and its operations. Returns the reason if that fails."""
    try:
        operations = tf.load_op_library(str(path))
    except tf.errors.OpError as error:
        return f"{path} could not be loaded: {error}"
    if not hasattr(operations, "kerasbn_forward"):
        return "this version of TensorFlow has no C interface for kernels, or a different one"
    return native.Library(ctypes.CDLL(str(path)), operations)


def threads() -> int:
    """The number of threads that the user has set for TensorFlow, or 0."""
    return tf.config.threading.get_intra_op_parallelism_threads()


def suits(x: tf.Tensor, axes: tuple[int, ...]) -> bool:
    """Whether the native kernel can normalize x over `axes`.

    The other axes, those of the features, must be neighbours and have known sizes.
    """
    kept = [a for a in range(len(x.shape)) if a not in axes]
    return (
        x.dtype in (tf.float32, tf.float64)
        and bool(kept)
        and kept[-1] - kept[0] + 1 == len(kept)
        and None not in [x.shape[a] for a in kept]
    )


def batch_normalize(
    operations, x: tf.Tensor, gamma, beta, *, axes: tuple[int, ...], epsilon: float
) -> tuple[tf.Tensor, Moments]:
    """See `kerasbn.kernels.batch_normalize`.

    Vectors stay vectors, and so do the moments. In a small layer, every reshape would take longer
    than the arithmetic.
    """
    given = next((t for t in (gamma, beta) if t is not None), None)
    if given is None:
        shape = [1 if a in axes else size for a, size in enumerate(x.shape)]
    else:
        shape = given.shape
    gamma = tf.ones(shape, x.dtype) if gamma is None else gamma
    beta = tf.zeros(shape, x.dtype) if beta is None else beta
    y, mean, variance, _, _, count = operations.kerasbn_forward(x, gamma, beta, epsilon)
    if None not in x.shape:
        count = count_values(x, axes, None)  # a Python number
    return y, Moments(mean, variance, count)


@tf.RegisterGradient("KerasbnForward")
def _gradient_of_forward(op, dy, *_):
    # Gradients of the other outputs are ignored, because the moments carry no gradient.
    if dy is None:
        return None, None, None, None
    x, gamma, _, epsilon = op.inputs
    _, _, variance, pivot, delta, _ = op.outputs
    operations = native.load().operations
    gradients = operations.kerasbn_backward(dy, x, gamma, pivot, delta, variance, epsilon)
    return *gradients, None


@tf.RegisterGradient("KerasbnMove")
def _gradient_of_move(op, *upstream):
    *_, keep, rate = op.inputs
    return *(u * keep for u in upstream), *(u * rate for u in upstream), None, None


@tf.RegisterGradient("KerasbnBackward")
def _gradient_of_backward(op, *upstream):
    dy, x, gamma, *_, epsilon = op.inputs
    # The statistics depend on x, so compute them again under the tape. The statistics among the
    # inputs of the operation then get no gradient.
    with tf.GradientTape() as tape:
        tape.watch([dy, x, gamma])
        (scale,) = in_rank_of(x, gamma)
        axes = tuple(a for a, size in enumerate(scale.shape) if size == 1)
        population = tensorflow_plain.Population(axes, mask=None, all_replicas=False)
        dx, *parameters = population.gradients(
            dy, x, scale, scale, population.statistics(x, epsilon)
        )
        gradients = [dx, *(tf.reshape(p, gamma.shape) for p in parameters)]
    second = tape.gradient(
        gradients,
        [dy, x, gamma],
        [tf.zeros_like(g) if u is None else u for g, u in zip(gradients, upstream, strict=True)],
        unconnected_gradients="zero",
    )
    return *second, None, None, None, None
