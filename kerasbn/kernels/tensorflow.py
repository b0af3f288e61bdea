"""Batch norm in TensorFlow: which kernel runs.

Training: the native kernel (`kerasbn.kernels.native`) on the CPU, for all axes but the last and for
channels first. The plain formula (`kerasbn.kernels.tensorflow_plain`) in all other cases:

- inside a function that XLA compiles, because XLA has no native kernel and fuses the formula;
- on GPUs and TPUs;
- with a mask, with statistics over several replicas, and over other axes;
- where the native kernel could not be built, or is switched off.

Inference: operations that every converter of models knows, and nothing else.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from kerasbn.kernels import generic, native, tensorflow_plain
from kerasbn.kernels.native import tensorflow as tensorflow_native
from kerasbn.moments import Moments

reshape = tf.reshape

# Between kept and reduced axes. TensorFlow merges neighbouring axes that broadcast alike, and more
# than five are then beyond it; ghost batches of rank 5 with axis=(1, 3) would need six.
_MOST_CHANGES = 4


def batch_normalize(x, gamma, beta, *, axes, epsilon, mask=None, synchronized=False):
    """See `kerasbn.kernels.batch_normalize`."""
    all_replicas = synchronized and not tf.distribute.in_cross_replica_context()
    if mask is None and not all_replicas and tensorflow_native.suits(x, axes):
        library = native.library() if _runs_on_cpu() and not _compiled_by_xla() else None
        if library is not None:
            return tensorflow_native.batch_normalize(
                library.operations, x, gamma, beta, axes=axes, epsilon=epsilon
            )
    rank = len(x.shape)
    changes = sum((a in axes) != (a + 1 in axes) for a in range(rank - 1))
    if changes > _MOST_CHANGES:
        # Kept axes first, reduced ones last, and back again.
        order = sorted(range(rank), key=lambda a: a in axes)
        x, gamma, beta, mask = (_transpose(t, order) for t in (x, gamma, beta, mask))
        last = tuple(range(rank - len(axes), rank))
        y, moments = batch_normalize(
            x, gamma, beta, axes=last, epsilon=epsilon, mask=mask, synchronized=synchronized
        )
        order = [order.index(a) for a in range(rank)]
        return _transpose(y, order), Moments(*(_transpose(t, order) for t in moments))
    return tensorflow_plain.batch_normalize(
        x, gamma, beta, axes=axes, epsilon=epsilon, mask=mask, all_replicas=all_replicas
    )


normalize = generic.normalize


def _transpose(t, order):
    return t if t is None or isinstance(t, float) or not len(t.shape) else tf.transpose(t, order)


def _compiled_by_xla():
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def _runs_on_cpu():
    """Whether operations that are added here will run on the CPU.

    TensorFlow would run one that only the CPU has there in any case, and copy from and to a GPU.
    """
    if all(device.device_type == "CPU" for device in tf.config.get_visible_devices()):
        return True
    return "CPU" in tf.constant(0.0).device  # of the `tf.device` scope; empty in a graph without
