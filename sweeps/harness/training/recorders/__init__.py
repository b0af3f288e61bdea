"""Takes measurements besides loss and accuracy, after the steps in `Trial.record_steps`.

A recorder leaves the network unchanged. No weight, moving average or random state of a run depends
on the recorders. Each recorder has its own table, NAME.csv, with the columns `trial_id`, `step`
and the recorder's `columns`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sweeps.harness.training import programs
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
    """Makes recorders.

    Args:
        run: The run to measure.
        names: Names of the recorders: those of this package, or of the trial's program.

    Returns:
        The recorders by name.
    """
    every = {**_RECORDERS, **programs.load(run.trial.program).recorders}
    return {name: every[name](run) for name in names}
