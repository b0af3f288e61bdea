"""The outputs of a regression network."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sweeps.harness.training.recorders.base import Run, Stateless


class Predictions(Stateless):
    """What a network of one input and one output gives for the test points, after the last step.

    Columns:
        x: The input.
        y: What the data have there.
        predicted: The output, in inference mode.
    """

    columns = ("x", "y", "predicted")

    def __init__(self, run: Run):
        self._x, self._y = run.test
        self._predict = tf.function(lambda x: run.estimator.model(x, training=False))
        self._last = run.trial.max_steps

    def rows(self, step: int) -> list[tuple]:
        """A row a test point."""
        if step != self._last:
            return []
        table = np.concatenate([self._x, self._y, self._predict(self._x)], axis=1)
        return [tuple(row) for row in table[np.argsort(self._x[:, 0])].tolist()]
