"""The private API of TensorFlow that this package uses. Only the TensorFlow kernels import it."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.ops import control_flow_util


def compiled_by_xla() -> bool:
    """Whether the code that is being traced will become part of a function compiled by XLA.

    TensorFlow has no public way to ask. A kernel needs to know: inside such a function it must not
    start a compiled call, and should leave the operations for XLA to fuse.
    """
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
