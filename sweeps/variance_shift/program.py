"""Networks with dropout before batch norm, and their variances in training and in inference."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import kerasbn
from sweeps.harness.training.recorders.base import TRAINING, Run, Stateless, in_training, parts
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
            _norm(trial),
        ]
    return keras.Sequential([*layers, keras.layers.Dense(10)])


def _norm(trial):
    return kerasbn.BatchNorm(momentum=trial.bn_momentum, epsilon=trial.bn_epsilon)


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
        taps = keras.Model(model.inputs, [norm.input for norm in self._norms])
        self._inputs = tf.function(lambda x: taps(x, training=False), reduce_retracing=True)

    def rows(self, step: int) -> list[tuple]:
        """One row per layer and unit."""
        moving = (norm.moving_variance.numpy().tolist() for norm in self._norms)
        layers = zip(self._moments(self._train), moving, self._moments(self._test), strict=True)
        return [
            (layer, unit, *values)
            for layer, (train, moving_variance, test) in enumerate(layers, 1)
            for unit, values in enumerate(zip(*train, moving_variance, test[1], strict=True), 1)
        ]

    def _moments(self, images):
        """Mean and variance of each unit, layer by layer."""
        batches = [keras.tree.flatten(self._inputs(part)) for part, _ in parts(images, images)]
        values = [np.concatenate(layer).astype(np.float64) for layer in zip(*batches, strict=True)]
        return [(each.mean(axis=0).tolist(), each.var(axis=0).tolist()) for each in values]


class Accuracies(Stateless):
    """Test accuracy of one network with three kinds of inference.

    Columns:
        inference: "moving averages" for the usual inference, with the statistics of training.
            "recalibrated" for inference after `kerasbn.recalibrate` on at most 10,000 training
            images, without dropout. "as in training" for dropout and the test batch's statistics.
        accuracy: Share of the test set that is classified correctly.
    """

    columns = ("inference", "accuracy")

    def __init__(self, run: Run):
        self._run = run
        self._in_training = in_training(run.estimator.model, [run.estimator.model.outputs[0]])

    def rows(self, step: int) -> list[tuple]:
        """One row per kind of inference."""
        model, size = self._run.estimator.model, self._run.trial.batch_size
        state = [v for norm in _norms(model) for v in norm.non_trainable_variables]
        before, noisy = self._accuracy(), self._accuracy_in_training(size)
        kept = [v.numpy() for v in state]
        kerasbn.recalibrate(model, self._run.train[0][:TRAINING], batch_size=size)
        after = self._accuracy()
        for variable, value in zip(state, kept, strict=True):
            variable.assign(value)
        return [("moving averages", before), ("recalibrated", after), ("as in training", noisy)]

    def _accuracy(self):
        right = [self._run.estimator.classify(*part)[0] for part in parts(*self._run.test)]
        return float(np.concatenate(right).mean())

    def _accuracy_in_training(self, size):
        images, labels = self._run.test
        batches = (images[i : i + size] for i in range(0, len(images), size))
        logits = np.concatenate([self._in_training(batch)[0] for batch in batches])
        return float((logits.argmax(-1) == labels).mean())


RECORDERS = {"variances": Variances, "accuracies": Accuracies}


def _norms(model):
    return [layer for layer in model.layers if isinstance(layer, kerasbn.BatchNorm)]
