"""Records loss and accuracy on training and test examples."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sweeps.harness.training.recorders.base import TRAINING, Run, Stateless, parts


class Evaluation(Stateless):
    """Loss and accuracy in inference mode, on training and test examples.

    Columns:
        data: "train" for at most the first 10,000 training examples of the trial, "test" for all
            test examples.
        examples: Number of examples.
        loss: Mean loss over the examples, without regularization.
        accuracy: Share of examples that are classified correctly. Blank for a regression.
    """

    columns = ("data", "examples", "loss", "accuracy")

    def __init__(self, run: Run):
        train = tuple(array[:TRAINING] for array in run.train)
        self._data = {"train": train, "test": run.test}
        model, loss = run.estimator.model, run.estimator.loss
        classes = run.trial.target_accuracy is not None

        @tf.function(reduce_retracing=True)
        def measure(x, y):
            outputs = model(x, training=False)
            right = tf.argmax(outputs, -1) == tf.cast(y, tf.int64) if classes else y == y
            return loss(y, outputs), tf.reduce_mean(tf.cast(right, tf.float32))

        self._measure, self._classes = measure, classes

    def rows(self, step: int) -> list[tuple]:
        """One row for the training examples and one for the test examples."""
        return [(name, len(x), *self._evaluate(x, y)) for name, (x, y) in self._data.items()]

    def _evaluate(self, x, y):
        measured = [(len(part), *self._measure(part, labels)) for part, labels in parts(x, y)]
        counts, losses, accuracies = (
            np.array(column, np.float64) for column in zip(*measured, strict=True)
        )
        loss, accuracy = counts @ losses / counts.sum(), counts @ accuracies / counts.sum()
        return float(loss), float(accuracy) if self._classes else None
