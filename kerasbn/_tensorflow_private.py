"""The private APIs of TensorFlow that this package uses. Import it with this backend only."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf
from tensorflow.python.ops import control_flow_util


def compiled_by_xla() -> bool:
    """Whether the code that is being traced will become part of a function compiled by XLA.

    TensorFlow has no public way to ask. A kernel needs to know: inside such a function it must not
    start a compiled call, and should leave the operations for XLA to fuse.
    """
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def vectorized(tensors: Iterable[tf.Tensor]) -> bool:
    """Whether one of the tensors belongs to a function that TensorFlow vectorizes.

    `tf.vectorized_map` traces its function for one element, whose index is a placeholder with the
    default 0. Then it makes vectorized copies of the operations. Outside of the function, a tensor
    of the trace silently has the value for the first element. TensorFlow has no public way to ask.

    Args:
        tensors: Tensors of the graph that is being traced, or in eager mode of any graph.
    """
    if tf.executing_eagerly():  # an eager `tf.vectorized_map` traces a graph apart
        return any(map(tf.is_symbolic_tensor, tensors))
    operations = [tensor.op for tensor in tensors]
    seen = set(operations)
    while operations:
        operation = operations.pop()
        if operation.type == "PlaceholderWithDefault":
            return True
        sources = {tensor.op for tensor in operation.inputs} - seen
        seen |= sources
        operations += sources
    return False
