"""Draws curves over steps, epochs, seconds or inputs: one line per seed, or medians."""

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
    """Draws the test accuracy of each seed during training.

    Args:
        tables_: Tables with the trials to draw and their curves.
        ax: Axes to draw on.
        x: Horizontal axis: "step", or "seconds" for the number of steps times the trial's median
            time of a step.
    """
    trials = tables_.trials

    def curve(trial):
        rows = tables_.curves[tables_.curves.trial_id == trial.trial_id]
        rows = rows[rows.test_accuracy.notna()]
        pace = 1.0 if x == "step" else trial.seconds_per_step
        return rows.step.to_numpy(float) * pace, rows.test_accuracy.to_numpy(float)

    _line_per_seed(trials, ax, curve)
    ax.axhline(trials.target_accuracy.iloc[0], color="#777777", linestyle="--", linewidth=1)
    ax.set_ylim(0, 1)
    ax.set_xlim(left=0)
    ax.set_xlabel(
        "training step" if x == "step" else "training time in seconds, without evaluation"
    )
    ax.set_ylabel("accuracy on the test set")
    ax.legend(frameon=False, loc="lower right")
    return ax


def by_epoch(tables_: tables.Tables, ax: Axes, column: str, label: str, top: float | None) -> Axes:
    """Draws a column of the curves against the epoch, one line per seed.

    Args:
        tables_: Tables with the trials to draw and their curves, which have one row per epoch.
        ax: Axes to draw on.
        column: Column of the curves.
        label: Label of the vertical axis.
        top: Upper end of the vertical axis. `None` fits it to the values.
    """

    def curve(trial):
        rows = tables_.curves[tables_.curves.trial_id == trial.trial_id]
        return np.arange(1, len(rows) + 1), rows[column].to_numpy(float)

    _line_per_seed(tables_.trials, ax, curve)
    ax.set_ylim(0, top)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("epoch")
    ax.set_ylabel(label)
    return ax


def errors_by_step(errors: pd.DataFrame, ax: Axes) -> Axes:
    """Draws the test error of each seed against the step.

    Args:
        errors: Rows with `batch_norm`, `trial_id`, `step` and `loss`.
        ax: Axes to draw on.
    """
    for batch_norm, arm in errors.groupby("batch_norm"):
        runs = [(run.step.to_numpy(), run.loss.to_numpy()) for _, run in arm.groupby("trial_id")]
        _lines(runs, ax, *looks.of_arm(batch_norm))
    ax.set_yscale("log")
    ax.set_xlabel("training step")
    ax.set_ylabel("mean squared error on the test points")
    return ax


def percentiles(rows: pd.DataFrame, ax: Axes) -> Axes:
    """Draws the 15th, 50th and 85th percentile against the step.

    Args:
        rows: Rows with `step`, `p15`, `p50` and `p85`.
        ax: Axes to draw on.
    """
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


def statistics(rows: pd.DataFrame, ax: Axes, target: float) -> Axes:
    """Draws median accuracy against the step, one line per kind of statistics.

    Args:
        rows: Rows with `statistics`, `step` and `accuracy`.
        ax: Axes to draw on.
        target: Target accuracy, drawn as a dashed line.
    """
    for position, (name, kind) in enumerate(rows.groupby("statistics", sort=False)):
        medians = kind.groupby("step").accuracy.median()
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
    """Draws the test points, and the curve that each trial fits to them.

    Args:
        trials: Trials to draw.
        predictions: Rows with `trial_id`, `x`, `y` and `predicted`.
        ax: Axes to draw on.
    """
    for position, trial in enumerate(trials.sort_values("batch_norm").itertuples()):
        points = predictions[predictions.trial_id == trial.trial_id]
        if position == 0:
            ax.scatter(points.x, points.y, s=8, color="#BBBBBB", linewidths=0, label="test points")
        name, look = looks.of_arm(trial.batch_norm)
        ax.plot(points.x, points.predicted, label=name, lw=2.5, **look | {"marker": None})
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    return ax


def _line_per_seed(trials, ax, curve):
    """Draws the line (x, y) = curve(trial) of each trial, in the look of its series."""
    series = tables.by_series(trials)
    series_looks = looks.of_series([label for label, _ in series])
    for (label, group), look in zip(series, series_looks, strict=True):
        _lines([curve(trial) for trial in group.itertuples()], ax, label, look)


def _lines(curves, ax, label, look):
    for n, (x, y) in enumerate(curves):
        legend = f"{label}, one line per seed" if n == 0 else None
        ax.plot(x, y, label=legend, alpha=0.75, lw=1.3, markersize=4, **look)
