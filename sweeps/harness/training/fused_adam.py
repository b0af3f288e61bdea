"""Keras's Adam with TensorFlow's fused operation: one pass over the weights instead of ten.

In the deepest network of the depth study, this saves a millisecond per step. It also halves the
time to trace the step, because Keras's own update takes about forty operations per variable.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from sweeps.harness.training._keras_private import adam_moments


class FusedAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` up to rounding, without its option `amsgrad`.

    The algorithm is from Kingma & Ba, "Adam: A Method for Stochastic Optimization" (2015). The
    order of computation is the one at the end of its section 2, as in Keras:
    `m += (1 - beta_1) (g - m)`, `v += (1 - beta_2) (g^2 - v)`,
    `w -= learning_rate sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)`.
    """

    def apply(self, grads, trainable_variables=None):
        """Updates all variables. They share one correction of the moments' bias."""
        step = tf.cast(self.iterations + 1, tf.float64)
        self._powers = self.beta_1**step, self.beta_2**step
        super().apply(grads, trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        """Updates a variable and its two moments."""
        momentum, velocity = adam_moments(self, variable)
        beta1_power, beta2_power = (tf.cast(p, variable.dtype) for p in self._powers)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.handle,
            v=velocity.handle,
            beta1_power=beta1_power,
            beta2_power=beta2_power,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )
