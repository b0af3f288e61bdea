"""Networks with dropout before batch norm, and their variances in training and in inference."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import kerasbn
from sweeps.harness.training.recorders.base import TRAINING, Run, Stateless, parts
from sweeps.harness.trial import Trial


def build(trial: Trial) -> keras.Model:
    """Dense -> activation -> dropout -> batch norm for each hidden layer, then Dense(10)."""
    layers = [
        keras.Input((28, 28), dtype="uint8"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(),
    ]
    for units in trial.hidden_units:
        layers += [
            keras.layers.Dense(units, kernel_initializer="he_normal"),
            keras.layers.Activation(trial.activation),
            keras.layers.Dropout(1 - dict(trial.options)["keep_rate"], seed=0),
            kerasbn.BatchNorm(momentum=trial.bn_momentum, epsilon=trial.bn_epsilon),
        ]
    return keras.Sequential([*layers, keras.layers.Dense(10)])


class Variances(Stateless):
    """Moments of each unit before dropout, and its variance in batch norm and in inference.

    Columns:
        layer: Number of the hidden layer. Layer 1 is next to the input.
        unit: Number of the unit in the layer, from 1.
        mean: Mean over at most 10,000 training images, in inference mode.
        variance: Variance over the same images, in inference mode.
        moving_variance: Moving variance of batch norm, which training with dropout has left.
        test_variance: Variance over all test images, in inference mode.
    """

    columns = ("layer", "unit", "mean", "variance", "moving_variance", "test_variance")

    def __init__(self, run: Run):
        self._train, self._test = run.train[0][:TRAINING], run.test[0]
        model = run.estimator.model
        self._norms = _norms(model)
        taps = keras.Model(model.inputs, [[norm.input for norm in self._norms]])
        self._inputs = tf.function(lambda x: taps(x, training=False)[0], reduce_retracing=True)

    def rows(self, step: int) -> list[tuple]:
        """One row per layer and unit."""
        moving = (norm.moving_variance.numpy().tolist() for norm in self._norms)
        layers = zip(self._moments(self._train), moving, self._moments(self._test), strict=True)
        return [
            (layer, unit, *values)
            for layer, ((mean, variance), moving_variance, (_, test)) in enumerate(layers, 1)
            for unit, values in enumerate(zip(mean, variance, moving_variance, test, strict=True), 1)
        ]

    def _moments(self, images):
        """Mean and variance of each unit, layer by layer."""
        batches = [self._inputs(part) for part, _ in parts(images, images)]
        values = [np.concatenate(layer).astype(np.float64) for layer in zip(*batches, strict=True)]
        return [(each.mean(axis=0).tolist(), each.var(axis=0).tolist()) for each in values]


class Recalibrated(Stateless):
    """Test accuracy with the moving averages of training, and after `kerasbn.recalibrate`.

    Columns:
        statistics: "moving averages" or "recalibrated". Recalibration uses at most 10,000 training
            images, without dropout.
        accuracy: Share of the test set that is classified correctly.
    """

    columns = ("statistics", "accuracy")

    def __init__(self, run: Run):
        self._run = run

    def rows(self, step: int) -> list[tuple]:
        """One row per kind of statistics."""
        model = self._run.estimator.model
        before = self._accuracy()
        kept = [v.numpy() for norm in _norms(model) for v in norm.non_trainable_variables]
        images = self._run.train[0][:TRAINING]
        kerasbn.recalibrate(model, images, batch_size=self._run.trial.batch_size)
        after = self._accuracy()
        changed = [v for norm in _norms(model) for v in norm.non_trainable_variables]
        for variable, value in zip(changed, kept, strict=True):
            variable.assign(value)
        return [("moving averages", before), ("recalibrated", after)]

    def _accuracy(self):
        right = [self._run.estimator.classify(*part)[0] for part in parts(*self._run.test)]
        return float(np.concatenate(right).mean())


RECORDERS = {"variances": Variances, "recalibrated": Recalibrated}


def _norms(model):
    return [layer for layer in model.layers if isinstance(layer, kerasbn.BatchNorm)]
