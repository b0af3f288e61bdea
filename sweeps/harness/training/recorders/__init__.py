"""Measurements besides loss and accuracy, taken at the steps of `Trial.record_steps`.

A recorder leaves the network unchanged: no weight, moving average or random state of a run depends
on what is recorded. Each recorder has its own table, NAME.csv, with the columns `trial_id`, `step`
and the recorder's `columns`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sweeps.harness.training.estimator import Recorder
from sweeps.harness.training.recorders.base import Run
from sweeps.harness.training.recorders.distributions import Histograms, Percentiles
from sweeps.harness.training.recorders.evaluation import Evaluation
from sweeps.harness.training.recorders.gradients import Gradients
from sweeps.harness.training.recorders.predictions import Predictions
from sweeps.harness.training.recorders.statistics import Statistics

__all__ = [
    "Evaluation",
    "Gradients",
    "Histograms",
    "Percentiles",
    "Predictions",
    "Run",
    "Statistics",
    "make",
]

_RECORDERS: dict[str, Callable[[Run], Recorder]] = {
    "evaluation": Evaluation,
    "predictions": Predictions,
    "histograms": Histograms,
    "percentiles": Percentiles,
    "gradients": Gradients,
    "statistics": Statistics,
}


def make(run: Run, names: Iterable[str]) -> dict[str, Recorder]:
    """The recorders of these names, by name."""
    return {name: _RECORDERS[name](run) for name in names}
