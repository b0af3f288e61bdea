"""The private API of Keras that this package uses."""

from __future__ import annotations

import keras
import tensorflow as tf


def adam_moments(
    optimizer: keras.optimizers.Adam, variable: tf.Variable
) -> tuple[tf.Variable, tf.Variable]:
    """The first and second moment that Adam keeps for a variable.

    The public `optimizer.variables` lists all moments, but Keras has no public way to tell which of
    them belong to a variable. Keras's own `Adam.update_step` finds them in this way.

    Args:
        optimizer: The optimizer, already built.
        variable: TensorFlow's variable, as Keras passes it to `update_step`.
    """
    index = optimizer._get_variable_index(variable)
    return optimizer._momentums[index].value, optimizer._velocities[index].value
