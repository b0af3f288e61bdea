"""Courses: one line a seed, or a median, by step, epoch, second or place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sweeps.harness.charts import looks
from sweeps.harness.results import tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = ["#E69F00", "#56B4E9", "#D55E00", "#CC79A7", "#009E73", "#999999", "#0072B2", "#000000"]


def accuracy(tables_: tables.Tables, ax: Axes, x: str) -> Axes:
    """Test accuracy of each seed in the course of training.

    Args:
        tables_: The trials to draw, and the curves in which theirs are.
        ax: Where to draw.
        x: "step", or "seconds": steps times the trial's median seconds a training step.
    """
    trials = tables_.trials

    def curve(trial):
        rows = tables_.curves[tables_.curves.trial_id == trial.trial_id]
        rows = rows[rows.test_accuracy.notna()]
        pace = 1.0 if x == "step" else trial.seconds_per_step
        return rows.step.to_numpy(float) * pace, rows.test_accuracy.to_numpy(float)

    _line_a_seed(trials, ax, curve)
    ax.axhline(trials.target_accuracy.iloc[0], color="#777777", linestyle="--", linewidth=1)
    ax.set_ylim(0, 1)
    ax.set_xlim(left=0)
    ax.set_xlabel(
        "training step" if x == "step" else "training time, seconds (evaluation left out)"
    )
    ax.set_ylabel("accuracy on the test set")
    ax.legend(frameon=False, loc="lower right")
    return ax


def by_epoch(tables_: tables.Tables, ax: Axes, column: str, label: str, top: float | None) -> Axes:
    """A column of the curves, a line a seed, where a trial's curve has one row an epoch.

    Args:
        tables_: The trials to draw, and the curves in which theirs are.
        ax: Where to draw.
        column: Of the curves.
        label: Of the vertical axis.
        top: Where it ends; `None`: where the values do.
    """

    def curve(trial):
        rows = tables_.curves[tables_.curves.trial_id == trial.trial_id]
        return np.arange(1, len(rows) + 1), rows[column].to_numpy(float)

    _line_a_seed(tables_.trials, ax, curve)
    ax.set_ylim(0, top)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("epoch")
    ax.set_ylabel(label)
    return ax


def errors_by_step(errors: pd.DataFrame, ax: Axes) -> Axes:
    """Test error of each seed by step: columns `batch_norm`, `trial_id`, `step`, `loss`."""
    for batch_norm, arm in errors.groupby("batch_norm"):
        runs = [(run.step.to_numpy(), run.loss.to_numpy()) for _, run in arm.groupby("trial_id")]
        _lines(runs, ax, *looks.of_arm(batch_norm))
    ax.set_yscale("log")
    ax.set_xlabel("training step")
    ax.set_ylabel("mean squared error on the test points")
    return ax


def percentiles(rows: pd.DataFrame, ax: Axes) -> Axes:
    """The 15th, 50th and 85th percentile by step: columns `step`, `p15`, `p50`, `p85`."""
    ax.fill_between(
        rows.step,
        rows.p15,
        rows.p85,
        color="#56B4E9",
        alpha=0.4,
        linewidth=0,
        label="15th to 85th percentile",
    )
    ax.plot(rows.step, rows.p50, color="#0072B2", lw=2, label="median")
    ax.set_xlabel("training step")
    ax.set_ylabel("input of the sigmoid")
    return ax


def statistics(found: pd.DataFrame, ax: Axes, target: float) -> Axes:
    """Median accuracy by step, a line a kind of statistics, with its name at its end or beside."""
    for position, (name, rows) in enumerate(found.groupby("statistics", sort=False)):
        medians = rows.groupby("step").accuracy.median()
        style = ["-", "--", "-.", ":"][position % 4]
        color = _COLORS[position % len(_COLORS)]
        ax.plot(medians.index, medians, lw=1.8, label=name, color=color, linestyle=style)
    ax.axhline(target, color="#777777", linestyle="--", linewidth=1)
    ax.set_ylim(0, 1)
    ax.set_xlim(left=0)
    ax.set_xlabel("training step")
    ax.set_ylabel("accuracy on the test set")
    ax.legend(frameon=False, fontsize=8)
    return ax


def fits(trials: pd.DataFrame, predictions: pd.DataFrame, ax: Axes) -> Axes:
    """The test points, and the curve that each trial fits to them."""
    for position, trial in enumerate(trials.sort_values("batch_norm").itertuples()):
        found = predictions[predictions.trial_id == trial.trial_id]
        if position == 0:
            ax.scatter(found.x, found.y, s=8, color="#BBBBBB", linewidths=0, label="test points")
        name, look = looks.of_arm(trial.batch_norm)
        ax.plot(found.x, found.predicted, label=name, lw=2.5, **look | {"marker": None})
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    return ax


def _line_a_seed(trials, ax, curve):
    """Draws curve(trial), which is (x, y), of each trial, in its series' look."""
    series = tables.by_series(trials)
    series_looks = looks.of_series([label for label, _ in series])
    for (label, group), look in zip(series, series_looks, strict=True):
        _lines([curve(trial) for trial in group.itertuples()], ax, label, look)


def _lines(curves, ax, label, look):
    for n, (x, y) in enumerate(curves):
        told = f"{label}, one line a seed" if n == 0 else None
        ax.plot(x, y, label=told, alpha=0.75, lw=1.3, markersize=4, **look)
