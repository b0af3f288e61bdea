"""What studies measure besides loss and accuracy, at the steps of `Trial.record_steps`.

A recorder looks at a network and leaves it as it was: no weight, no moving average and no random
state of a run depends on what is recorded. Each has a table of its own, NAME.csv, with a row for
each thing that it finds: `trial_id, step`, then its `columns`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

import kerasbn
from kerasbn import moments
from sweeps.harness.estimator import Estimator, Recorder
from sweeps.harness.trial import Trial

_AT_ONCE = 2000  # examples in one call, which keeps their activations in the cache
_TRAINING = 10_000  # of the training examples are enough for their loss and accuracy
_PROBE = 1000  # test examples, always the first, that tensors inside the network are looked at for
_BINS = 40
# Momentum, and whether debiased, of the averages that `Statistics` compares.
_AVERAGES = {
    **{f"momentum {m}": (m, False) for m in (0.5, 0.9, 0.99, 0.999)},
    "momentum 0.99, debiased": (0.99, True),
    "cumulative": (None, False),
}
_UNITS = 10  # of a layer, the first: as their weights are drawn alike, any ten are typical


class Run(NamedTuple):
    """What a recorder may look at.

    Attributes:
        estimator: Holds the network.
        trial: Its configuration, but for the seed.
        train: Training examples and labels, those that are used.
        test: Test examples and labels.
    """

    estimator: Estimator
    trial: Trial
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def make(run: Run, names: Iterable[str]) -> dict[str, Recorder]:
    """Recorders by name."""
    return {name: _RECORDERS[name](run) for name in names}


class _Stateless:
    """What most recorders do alike: nothing is kept from one step to the next."""

    def start(self) -> None:
        """Nothing is kept."""

    def after_execution(self) -> None:
        """Nothing is kept."""


class Evaluation(_Stateless):
    """Loss and accuracy in inference mode, on training and on test examples.

    Columns:
        data: "train" (at most the first 10,000 that the trial uses) or "test" (all).
        examples: How many.
        loss: Mean over them, without regularization.
        accuracy: Share that is classified rightly; blank where there are no classes.
    """

    columns = ("data", "examples", "loss", "accuracy")

    def __init__(self, run: Run):
        train = tuple(array[:_TRAINING] for array in run.train)
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
        """A row for each data."""
        return [(name, len(x), *self._evaluate(x, y)) for name, (x, y) in self._data.items()]

    def _evaluate(self, x, y):
        found = [(len(part), *self._measure(part, labels)) for part, labels in _parts(x, y)]
        counts, losses, accuracies = (
            np.array(column, np.float64) for column in zip(*found, strict=True)
        )
        loss, accuracy = counts @ losses / counts.sum(), counts @ accuracies / counts.sum()
        return float(loss), float(accuracy) if self._classes else None


class Predictions(_Stateless):
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


class Histograms(_Stateless):
    """Distributions inside the network, over the first 1,000 test examples, as training has them.

    Batch norm normalizes with the statistics of these examples.

    Columns:
        layer: Of the hidden layers, from 1.
        tensor: "pre_activation", what goes into its activation (with batch norm: its output), or
            "activation", what comes out, which is the next layer's input.
        low: The least value.
        high: The largest.
        counts: Values in each of 40 bins of equal width from low to high, joined by "-".
    """

    columns = ("layer", "tensor", "low", "high", "counts")

    def __init__(self, run: Run):
        hidden = _hidden_activations(run)
        self._tensors = [("pre_activation", layer.input) for layer in hidden]
        self._tensors += [("activation", layer.output) for layer in hidden]
        self._forward = _in_training(run.estimator.model, [each for _, each in self._tensors])
        self._x = run.test[0][:_PROBE]

    def rows(self, step: int) -> list[tuple]:
        """A row for each layer and tensor."""
        depth = len(self._tensors) // 2
        found = zip(self._tensors, self._forward(self._x), strict=True)
        return [
            (number % depth + 1, name, *_histogram(values.numpy()))
            for number, ((name, _), values) in enumerate(found)
        ]


class Percentiles(_Stateless):
    """How what goes into the last hidden layer's activations is distributed, as training has it.

    Over the first 1,000 test examples; batch norm normalizes with their statistics.

    Columns:
        unit: From 1 to 10, the first ones of the layer.
        p15: The 15th percentile.
        p50: The median.
        p85: The 85th percentile.
    """

    columns = ("unit", "p15", "p50", "p85")

    def __init__(self, run: Run):
        last = _hidden_activations(run)[-1].input
        self._forward = _in_training(run.estimator.model, [last])
        self._x = run.test[0][:_PROBE]

    def rows(self, step: int) -> list[tuple]:
        """A row a unit."""
        values = self._forward(self._x)[0].numpy()[:, :_UNITS].astype(np.float64)
        found = np.percentile(values, [15, 50, 85], axis=0).T.tolist()
        return [(unit, *each) for unit, each in enumerate(found, 1)]


class Gradients(_Stateless):
    """How the loss depends on each hidden layer's output, over the first 1,000 test examples.

    As training has it: batch norm normalizes with the statistics of these examples.

    Columns:
        layer: Of the hidden layers, from 1, the one next to the input.
        gradient_norm: Root of the sum of squares of the mean loss's derivatives with respect to the
            layer's output, after the activation, over examples and units.
        activation_mean: Mean of this output over examples and units.
        activation_std: Its standard deviation.
    """

    columns = ("layer", "gradient_norm", "activation_mean", "activation_std")

    def __init__(self, run: Run):
        model, loss = run.estimator.model, run.estimator.loss
        outputs = [layer.output for layer in _hidden_activations(run)]
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
        self._probe = tuple(array[:_PROBE] for array in run.test)

    def rows(self, step: int) -> list[tuple]:
        """A row a layer."""
        found = np.array(self._measure(*self._probe), np.float64).tolist()
        return [(layer, *each) for layer, each in enumerate(found, 1)]


class Statistics:
    """Test accuracy of one network with several statistics for inference.

    The averages are moved by the layer's own arithmetic. They are fed by the moving averages of the
    network itself, which with momentum 0 are the last batch's statistics.

    Columns:
        statistics: "momentum M", a moving average with M as the weight of the old; "momentum M,
            debiased", without its initial value; "cumulative", the mean over all batches so far;
            "recalibrated", by `kerasbn.recalibrate` on (at most) 10,000 training images; "batch",
            those of the test batch itself, of the size of the training's.
        accuracy: Share of the test set that is classified rightly.
    """

    columns = ("statistics", "accuracy")

    def __init__(self, run: Run):
        self._run = run
        model = run.estimator.model
        norms = [layer for layer in model.layers if isinstance(layer, kerasbn.BatchNorm)]
        if not norms or any(norm.momentum != 0 for norm in norms):
            raise ValueError("Statistics are those of kerasbn.BatchNorm with momentum 0.")
        self._used = [v for norm in norms for v in (norm.moving_mean, norm.moving_variance)]
        self._initial = [v.numpy() for v in self._used]
        self._averages = {name: [tf.Variable(v) for v in self._initial] for name in _AVERAGES}
        self._updates = tf.Variable(0.0)
        self._move = tf.function(self._move_averages)
        self._by_batch = _in_training(model, [model.outputs[0]])

    def start(self) -> None:
        """All averages have their initial values again."""
        self._updates.assign(0.0)
        for average in self._averages.values():
            _assign(average, self._initial)

    def after_execution(self) -> None:
        """Moves all averages towards the last batch's statistics."""
        self._move()

    def rows(self, step: int) -> list[tuple]:
        """A row for each kind of statistics."""
        of_last_batch = [v.numpy() for v in self._used]
        rows = []
        for name, average in self._averages.items():
            _assign(self._used, average)
            rows.append((name, self._accuracy()))
        size = self._run.trial.batch_size
        model, images = self._run.estimator.model, self._run.train[0][:_TRAINING]
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
                average.assign(moments.move_average(average.value(), value, rate, None))

    def _accuracy(self):
        found = [self._run.estimator.classify(*part)[0] for part in _parts(*self._run.test)]
        return float(np.concatenate(found).mean())

    def _accuracy_by_batch(self, size):
        images, labels = self._run.test
        batches = (images[i : i + size] for i in range(0, len(images), size))
        logits = np.concatenate([self._by_batch(batch)[0] for batch in batches])
        return float((logits.argmax(-1) == labels).mean())


def _hidden_activations(run):
    """The activation layers of a network of dense layers, from the input."""
    layers = run.estimator.model.layers
    return [layer for layer in layers if isinstance(layer, keras.layers.Activation)]


def _in_training(model, outputs) -> Callable[[np.ndarray], list[tf.Tensor]]:
    """A function of inputs: tensors inside the model, in training mode; no state moves."""
    taps = keras.Model(model.inputs, outputs)

    @tf.function(reduce_retracing=True)
    def forward(x):
        weights, state = taps.trainable_variables, taps.non_trainable_variables
        found, _ = taps.stateless_call(weights, state, x, training=True)
        return found if isinstance(found, list) else [found]

    return forward


def _histogram(values):
    low, high = float(values.min()), float(values.max())
    counts, _ = np.histogram(values, _BINS, (low, high))
    return low, high, "-".join(map(str, counts))


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(tf.convert_to_tensor(value))


def _parts(x, y):
    return [(x[i : i + _AT_ONCE], y[i : i + _AT_ONCE]) for i in range(0, len(x), _AT_ONCE)]


_RECORDERS = {
    "evaluation": Evaluation,
    "predictions": Predictions,
    "histograms": Histograms,
    "percentiles": Percentiles,
    "gradients": Gradients,
    "statistics": Statistics,
}
