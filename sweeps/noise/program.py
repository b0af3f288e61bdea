"""Networks with noise before each hidden activation, and recorders of the loss and of accuracy."""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf
from keras import ops

import kerasbn
from sweeps.harness.training import models
from sweeps.harness.training.recorders.base import Run, Stateless
from sweeps.harness.trial import Trial

# The noise of strength 1: largest shift of a unit, largest excess of its scale over 1, and largest
# distance of a sample's shift and scale from those of its unit.
_SHIFT, _SCALE, _RADIUS = 0.5, 0.25, 0.1
_IMAGES = 2000  # images to recalibrate on, and to test on
# Step sizes along the gradient, in learning rates. 0 is the network itself.
_MULTIPLES = (0.0, 0.5, 1.0, 2.0, 4.0)


@keras.saving.register_keras_serializable("sweeps.noise")
class Noise(keras.layers.Layer):
    """Noise whose distribution changes with every training step.

    In training mode, unit j of sample i becomes s_ij a_ij + m_ij. With strength 1, each call draws
    for each unit mu_j from U(-0.5, 0.5) and sigma_j from U(1, 1.25). For each sample it draws m_ij
    from U(mu_j - 0.1, mu_j + 0.1) and s_ij from U(sigma_j - 0.1, sigma_j + 0.1). In inference mode,
    the layer returns its input.

    Source: Santurkar et al. 2018, algorithm 1.

    Args:
        strength: Factor of the widths 0.5, 0.25 and 0.1 of these distributions.
        kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, strength: float, **kwargs):
        super().__init__(**kwargs)
        self.strength = strength
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, inputs, training=False):
        """The input with noise in training mode, and the input itself in inference mode."""
        if not training:
            return inputs
        units, every = inputs.shape[-1:], ops.shape(inputs)
        mu = self._uniform(units, -_SHIFT, _SHIFT)
        sigma = 1.0 + self._uniform(units, 0.0, _SCALE)
        m = mu + self._uniform(every, -_RADIUS, _RADIUS)
        s = sigma + self._uniform(every, -_RADIUS, _RADIUS)
        return s * inputs + m

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "strength": self.strength}

    def _uniform(self, shape, low, high):
        """Draws from the uniform distribution between these limits times the strength."""
        limits = self.strength * low, self.strength * high
        return keras.random.uniform(
            shape, *limits, dtype=self.compute_dtype, seed=self.seed_generator
        )


class Landscape(Stateless):
    """Loss and gradient along the gradient, for steps of 1/2 to 4 times the learning rate.

    The examples are the first mini-batch of the training images, without shuffling. The network is
    in training mode. All points of a recording have the same noise.

    Columns:
        multiple: Length of the step in learning rates, from 0 to 4. The step goes from the present
            weights w to w - multiple * learning_rate * gradient.
        loss: Loss after the step.
        gradient_change: Euclidean norm of the difference between the gradient after the step and
            the gradient before it.
    """

    columns = ("multiple", "loss", "gradient_change")

    def __init__(self, run: Run):
        model, loss = run.estimator.model, run.estimator.loss
        self._estimator = run.estimator
        self._examples = tuple(array[: run.trial.batch_size] for array in run.train)

        @tf.function
        def measure(x, y, start, direction, length):
            weights = [w - length * d for w, d in zip(start, direction, strict=True)]
            with tf.GradientTape() as tape:
                tape.watch(weights)
                state = model.non_trainable_variables
                logits, _ = model.stateless_call(weights, state, x, training=True)
                value = loss(y, logits)
            return value, tape.gradient(value, weights)

        self._measure = measure

    def rows(self, step: int) -> list[tuple]:
        """One row per step size."""
        variables = self._estimator.model.trainable_variables
        start = [tf.convert_to_tensor(v) for v in variables]
        nowhere = [tf.zeros_like(w) for w in start]
        _, gradient = self._measure(*self._examples, start, nowhere, tf.constant(0.0))
        rows = []
        for multiple in _MULTIPLES:
            length = tf.constant(multiple * self._estimator.model.learning_rate, tf.float32)
            loss, moved = self._measure(*self._examples, start, gradient, length)
            changes = [m - g for m, g in zip(moved, gradient, strict=True)]
            rows.append((multiple, float(loss), float(tf.linalg.global_norm(changes))))
        return rows


class Recalibrated(Stateless):
    """Accuracy in inference mode, with the moving averages and with recalibrated statistics.

    Noise is off in inference, but the moving averages come from training steps with noise. The
    statistics are recalibrated without noise, on the first 2,000 training images. The accuracies
    are those on the first 2,000 test images.

    Columns:
        moving_averages: Accuracy with the moving averages.
        recalibrated: Accuracy with the recalibrated statistics.
    """

    columns = ("moving_averages", "recalibrated")

    def __init__(self, run: Run):
        self._estimator, self._batch_size = run.estimator, run.trial.batch_size
        self._images = run.train[0][:_IMAGES]
        self._test = tuple(array[:_IMAGES] for array in run.test)

    def rows(self, step: int) -> list[tuple]:
        """One row."""
        model = self._estimator.model
        variables = model.non_trainable_variables
        present = [tf.identity(v) for v in variables]
        before = self._accuracy()
        kerasbn.recalibrate(model, self._images, batch_size=self._batch_size)
        after = self._accuracy()
        for variable, value in zip(variables, present, strict=True):
            variable.assign(value)
        return [(before, after)]

    def _accuracy(self):
        return float(self._estimator.classify(*self._test)[0].mean())


def build(trial: Trial) -> keras.Model:
    """The trial's network, with noise of the strength in its options before each activation."""
    network = models.build(dataclasses.replace(trial, program=None, options=()))
    strength = dict(trial.options)["noise"]
    if not strength:
        return network
    layers = [keras.Input(network.input_shape[1:], dtype="uint8")]
    for layer in network.layers:
        if isinstance(layer, keras.layers.Activation):
            layers.append(Noise(strength))
        # A new layer, because `input` of a layer in two networks belongs to the first one.
        layers.append(type(layer).from_config(layer.get_config()))
    return keras.Sequential(layers)


def prepare(model: keras.Model, trial: Trial) -> None:
    """Notes the learning rate for `Landscape`."""
    model.learning_rate = trial.learning_rate


RECORDERS = {"landscape": Landscape, "recalibrated": Recalibrated}
