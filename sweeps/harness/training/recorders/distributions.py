"""Records distributions of values inside a network: histograms and percentiles."""

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
_UNITS = 10  # recorded units; all units of a layer have the same initial distribution


class Histograms(Stateless):
    """Histograms of each hidden layer's values on the first 1,000 test examples.

    The network is in training mode, so batch norm normalizes with the statistics of these examples.

    Columns:
        layer: Number of the hidden layer. Layer 1 is next to the input.
        tensor: "pre_activation" for the input of the layer's activation function (the output of
            batch norm, if there is any), or "activation" for its output.
        low: Smallest value.
        high: Largest value.
        counts: Number of values in each of 40 bins of equal width from low to high, joined by "-".
    """

    columns = ("layer", "tensor", "low", "high", "counts")

    def __init__(self, run: Run):
        hidden = hidden_activations(run)
        self._tensors = [("pre_activation", layer.input) for layer in hidden]
        self._tensors += [("activation", layer.output) for layer in hidden]
        self._forward = in_training(run.estimator.model, [each for _, each in self._tensors])
        self._x = run.test[0][:PROBE]

    def rows(self, step: int) -> list[tuple]:
        """One row per layer and tensor."""
        depth = len(self._tensors) // 2
        measured = zip(self._tensors, self._forward(self._x), strict=True)
        return [
            (number % depth + 1, name, *_histogram(values.numpy()))
            for number, ((name, _), values) in enumerate(measured)
        ]


class Percentiles(Stateless):
    """Percentiles of the inputs of the last hidden activation, on the first 1,000 test examples.

    The network is in training mode, so batch norm normalizes with the statistics of these examples.

    Columns:
        unit: Number of the unit in the layer. The first ten units, 1 to 10, are recorded.
        p15: 15th percentile.
        p50: Median.
        p85: 85th percentile.
    """

    columns = ("unit", "p15", "p50", "p85")

    def __init__(self, run: Run):
        last = hidden_activations(run)[-1].input
        self._forward = in_training(run.estimator.model, [last])
        self._x = run.test[0][:PROBE]

    def rows(self, step: int) -> list[tuple]:
        """One row per unit."""
        values = self._forward(self._x)[0].numpy()[:, :_UNITS].astype(np.float64)
        percentiles = np.percentile(values, [15, 50, 85], axis=0).T.tolist()
        return [(unit, *each) for unit, each in enumerate(percentiles, 1)]


def _histogram(values):
    low, high = float(values.min()), float(values.max())
    counts, _ = np.histogram(values, _BINS, (low, high))
    return low, high, "-".join(map(str, counts))
