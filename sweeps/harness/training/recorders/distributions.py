"""Distributions of values inside a network: histograms and percentiles."""

from __future__ import annotations

import numpy as np

from sweeps.harness.training.recorders.base import (
    PROBE,
    Run,
    Stateless,
    hidden_activations,
    in_training,
)

_BINS = 40
_UNITS = 10  # number of units of a layer that are recorded; all are initialized alike


class Histograms(Stateless):
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
        hidden = hidden_activations(run)
        self._tensors = [("pre_activation", layer.input) for layer in hidden]
        self._tensors += [("activation", layer.output) for layer in hidden]
        self._forward = in_training(run.estimator.model, [each for _, each in self._tensors])
        self._x = run.test[0][:PROBE]

    def rows(self, step: int) -> list[tuple]:
        """A row for each layer and tensor."""
        depth = len(self._tensors) // 2
        found = zip(self._tensors, self._forward(self._x), strict=True)
        return [
            (number % depth + 1, name, *_histogram(values.numpy()))
            for number, ((name, _), values) in enumerate(found)
        ]


class Percentiles(Stateless):
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
        last = hidden_activations(run)[-1].input
        self._forward = in_training(run.estimator.model, [last])
        self._x = run.test[0][:PROBE]

    def rows(self, step: int) -> list[tuple]:
        """A row a unit."""
        values = self._forward(self._x)[0].numpy()[:, :_UNITS].astype(np.float64)
        found = np.percentile(values, [15, 50, 85], axis=0).T.tolist()
        return [(unit, *each) for unit, each in enumerate(found, 1)]


def _histogram(values):
    low, high = float(values.min()), float(values.max())
    counts, _ = np.histogram(values, _BINS, (low, high))
    return low, high, "-".join(map(str, counts))
