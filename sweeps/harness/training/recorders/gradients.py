"""Records gradients of the loss with respect to the hidden layers' outputs."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from sweeps.harness.training.recorders.base import PROBE, Run, Stateless, hidden_activations


class Gradients(Stateless):
    """Gradient of the mean loss of the first 1,000 test examples, layer by layer.

    The network is in training mode, so batch norm normalizes with the statistics of these examples.

    Columns:
        layer: Number of the hidden layer. Layer 1 is next to the input.
        gradient_norm: Euclidean norm, over examples and units, of the gradient with respect to the
            layer's output after the activation.
        activation_mean: Mean of this output over examples and units.
        activation_std: Standard deviation of this output over examples and units.
    """

    columns = ("layer", "gradient_norm", "activation_mean", "activation_std")

    def __init__(self, run: Run):
        model, loss = run.estimator.model, run.estimator.loss
        outputs = [layer.output for layer in hidden_activations(run)]
        taps = keras.Model(model.inputs, [*outputs, model.outputs[0]])

        @tf.function
        def measure(x, y):
            weights = [tf.convert_to_tensor(v) for v in taps.trainable_variables]
            with tf.GradientTape() as tape:
                tape.watch(weights)
                state = taps.non_trainable_variables
                (*hidden, logits), _ = taps.stateless_call(weights, state, x, training=True)
                value = loss(y, logits)
            gradients = tape.gradient(value, hidden)
            return [
                (tf.norm(gradient), tf.reduce_mean(output), tf.math.reduce_std(output))
                for gradient, output in zip(gradients, hidden, strict=True)
            ]

        self._measure = measure
        self._probe = tuple(array[:PROBE] for array in run.test)

    def rows(self, step: int) -> list[tuple]:
        """One row per layer."""
        measured = np.array(self._measure(*self._probe), np.float64).tolist()
        return [(layer, *each) for layer, each in enumerate(measured, 1)]
