"""Records the outputs of a regression network."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sweeps.harness.training.recorders.base import Run, Stateless


class Predictions(Stateless):
    """Predictions of a network with one input and one output, after the last step.

    Columns:
        x: Input of a test point.
        y: Target value of the test point.
        predicted: Output of the network in inference mode.
    """

    columns = ("x", "y", "predicted")

    def __init__(self, run: Run):
        self._x, self._y = run.test
        self._predict = tf.function(lambda x: run.estimator.model(x, training=False))
        self._last = run.trial.max_steps

    def rows(self, step: int) -> list[tuple]:
        """One row per test point after the last step, none before."""
        if step != self._last:
            return []
        table = np.concatenate([self._x, self._y, self._predict(self._x)], axis=1)
        return [tuple(row) for row in table[np.argsort(self._x[:, 0])].tolist()]
