"""Records the test accuracy of one network with several statistics for inference."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

import kerasbn
from kerasbn import moments
from sweeps.harness.training.recorders.base import TRAINING, Run, in_training, parts

# The momentum of each moving average that `Statistics` compares, and whether it is debiased.
_AVERAGES = {
    **{f"momentum {m}": (m, False) for m in (0.5, 0.9, 0.99, 0.999)},
    "momentum 0.99, debiased": (0.99, True),
    "cumulative": (None, False),
}


class Statistics:
    """Test accuracy of one network with several statistics for inference.

    The network's batch norms have momentum 0, so their moving averages are the statistics of the
    last mini-batch. This recorder averages these statistics with the layer's own arithmetic.

    Columns:
        statistics: Kind of statistics, one of those below.
        accuracy: Share of the test set that is classified correctly.

    Kinds of statistics:
        "momentum M": Moving average. M is the weight of the old value.
        "momentum M, debiased": The same without the weight of the initial value.
        "cumulative": Mean over all mini-batches so far.
        "recalibrated": Result of `kerasbn.recalibrate` on at most 10,000 training images.
        "batch": Statistics of the test mini-batch itself. It is as large as a training batch.
    """

    columns = ("statistics", "accuracy")

    def __init__(self, run: Run):
        self._run = run
        model = run.estimator.model
        norms = [layer for layer in model.layers if isinstance(layer, kerasbn.BatchNorm)]
        if not norms or any(norm.momentum != 0 for norm in norms):
            raise ValueError(
                "The recorder of statistics needs a network whose batch norms are all "
                f"kerasbn.BatchNorm with momentum 0; received momentums "
                f"{[norm.momentum for norm in norms]}. Set bn_layer and bn_momentum of the trial."
            )
        self._used = [v for norm in norms for v in (norm.moving_mean, norm.moving_variance)]
        self._initial = [v.numpy() for v in self._used]
        self._averages = {name: [tf.Variable(v) for v in self._initial] for name in _AVERAGES}
        self._updates = tf.Variable(0.0)
        self._move = tf.function(self._move_averages)
        self._by_batch = in_training(model, [model.outputs[0]])

    def start(self) -> None:
        """Resets all averages to their initial values."""
        self._updates.assign(0.0)
        for average in self._averages.values():
            _assign(average, self._initial)

    def after_execution(self) -> None:
        """Updates all averages with the statistics of the last mini-batch."""
        self._move()

    def rows(self, step: int) -> list[tuple]:
        """One row per kind of statistics."""
        of_last_batch = [v.numpy() for v in self._used]
        rows = []
        for name, average in self._averages.items():
            _assign(self._used, average)
            rows.append((name, self._accuracy()))
        size = self._run.trial.batch_size
        model, images = self._run.estimator.model, self._run.train[0][:TRAINING]
        kerasbn.recalibrate(model, images, batch_size=size)
        rows.append(("recalibrated", self._accuracy()))
        _assign(self._used, of_last_batch)
        return [*rows, ("batch", self._accuracy_by_batch(size))]

    def _move_averages(self):
        self._updates.assign_add(1.0)
        for name, (momentum, debias) in _AVERAGES.items():
            rate = moments.update_rate(momentum, debias, self._updates.value())
            for average, newest in zip(self._averages[name], self._used, strict=True):
                value = tf.convert_to_tensor(newest)
                average.assign(moments.move_average(average.value(), value, rate))

    def _accuracy(self):
        correct = [self._run.estimator.classify(*part)[0] for part in parts(*self._run.test)]
        return float(np.concatenate(correct).mean())

    def _accuracy_by_batch(self, size):
        images, labels = self._run.test
        batches = (images[i : i + size] for i in range(0, len(images), size))
        logits = np.concatenate([self._by_batch(batch)[0] for batch in batches])
        return float((logits.argmax(-1) == labels).mean())


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(tf.convert_to_tensor(value))
