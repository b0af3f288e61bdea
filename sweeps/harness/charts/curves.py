"""Draws curves over steps, epochs, seconds or inputs: one line per seed, or medians."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from sweeps.harness.charts import figures, looks, spreads
from sweeps.harness.charts.facets import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = ["#E69F00", "#56B4E9", "#D55E00", "#CC79A7", "#009E73", "#999999", "#0072B2", "#000000"]


def accuracy(series: Sequence[Series], curves: pd.DataFrame, ax: Axes, x: str) -> Axes:
    """Draws the test accuracy of each seed during training.

    Args:
        series: The series to draw, as from `facets`.
        curves: The curves table.
        ax: Axes to draw on.
        x: Horizontal axis: "step", or "seconds" for the number of steps times the trial's median
            time of a step.
    """

    def curve(trial):
        rows = curves[(curves.trial_id == trial.trial_id) & curves.test_accuracy.notna()]
        pace = 1.0 if x == "step" else trial.seconds_per_step
        return rows.step.to_numpy(float) * pace, rows.test_accuracy.to_numpy(float)

    _line_per_seed(series, ax, curve)
    _targets(ax, {target for each in series for target in each.trials.target_accuracy.unique()})
    ax.set_ylim(0, 1)
    ax.set_xlim(left=0)
    if x == "step":
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_xlabel("training step")
    else:
        ax.set_xlabel("training time in seconds, without evaluation")
    ax.set_ylabel("accuracy on the test set")
    return ax


def by_epoch(
    series: Sequence[Series],
    curves: pd.DataFrame,
    ax: Axes,
    column: str,
    label: str,
    top: float | None,
) -> Axes:
    """Draws a column of the curves against the epoch, one line per seed.

    Args:
        series: The series to draw, as from `facets`.
        curves: The curves table, with one row per epoch.
        ax: Axes to draw on.
        column: Column of the curves.
        label: Label of the vertical axis.
        top: Upper end of the vertical axis. `None` fits it to the values.
    """

    def curve(trial):
        rows = curves[curves.trial_id == trial.trial_id]
        epochs = rows.step.to_numpy() / trial.steps_per_execution
        return epochs, rows[column].to_numpy(float)

    _line_per_seed(series, ax, curve)
    ax.set_ylim(0, top)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("epoch")
    ax.set_ylabel(label)
    return ax


def errors_by_step(series: Sequence[Series], errors: pd.DataFrame, ax: Axes) -> Axes:
    """Draws the test error of each seed against the step.

    Args:
        series: The series to draw, as from `facets`.
        errors: Rows with `trial_id`, `step` and `loss`.
        ax: Axes to draw on.
    """

    def curve(trial):
        rows = errors[errors.trial_id == trial.trial_id]
        return rows.step.to_numpy(), rows.loss.to_numpy()

    _line_per_seed(series, ax, curve)
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

    A band is the 95% interval of the median.

    Args:
        rows: Rows with `statistics`, `step` and `accuracy`, from trials of the same setting.
        ax: Axes to draw on.
        target: Target accuracy, drawn as a dashed line.
    """
    wide = False
    for position, (name, kind) in enumerate(rows.groupby("statistics", sort=False)):
        found = spreads.medians(kind.accuracy, kind.step)
        medians = [each.estimate for each in found.values()]
        style = ["-", "--", "-.", ":"][position % 4]
        color = _COLORS[position % len(_COLORS)]
        wide |= spreads.draw_band(ax, found, color)
        ax.plot([*found], medians, lw=1.8, label=name, color=color, linestyle=style)
    _targets(ax, [target])
    ax.set_ylim(0, 1)
    ax.set_xlim(left=0)
    ax.set_xlabel("training step")
    ax.set_ylabel(f"median test accuracy{f', {spreads.NAME}' if wide else ''}")
    return ax


def fits(series: Sequence[Series], predictions: pd.DataFrame, ax: Axes) -> Axes:
    """Draws the test points, and the curve that each trial fits to them.

    Args:
        series: The series to draw, as from `facets`.
        predictions: Rows with `trial_id`, `x`, `y` and `predicted`.
        ax: Axes to draw on.
    """
    for position, (name, trials, look) in enumerate(series):
        points = predictions[predictions.trial_id.isin(trials.trial_id)]
        if position == 0:
            ax.scatter(points.x, points.y, s=12, color="#999999", linewidths=0, label="test points")
        for _, run in points.groupby("trial_id"):
            ax.plot(run.x, run.predicted, label=name, lw=2.5, **look | {"marker": None})
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    return ax


def _line_per_seed(series, ax, curve):
    """Draws the line (x, y) = curve(trial) of each trial, in the look of its series."""
    for label, trials, look in series:
        for n, trial in enumerate(trials.itertuples()):
            x, y = curve(trial)
            legend = f"{label}, one line per seed" if n == 0 else None
            every = looks.marker_every(len(x))
            ax.plot(x, y, label=legend, alpha=0.75, lw=1.3, markersize=4, markevery=every, **look)


def _targets(ax, targets):
    """Draws a dashed line at each target accuracy."""
    for each in targets:
        figures.level(ax, each)
