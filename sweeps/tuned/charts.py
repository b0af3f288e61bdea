"""The charts of the tuned study."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sweeps.harness import charts
from sweeps.harness.charts import looks
from sweeps.harness.results.tables import target
from sweeps.harness.trial import arm_name
from sweeps.tuned import selection

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLES = {
    "published": f"published rate, {selection.PUBLISHED:g}",
    "tuned": "rate tuned per arm and depth",
}


def steps_by_rate(trials: pd.DataFrame, path: Path) -> Path:
    """Draws steps on the validation set by learning rate, one panel per depth."""
    validation = selection.on("validation", trials)
    selected = selection.rates(trials)

    def draw(series, ax):
        ax = charts.steps_to_target(series, ax, "learning_rate", log=True)
        ax.set_ylabel("training steps")
        ax.set_xlabel("learning rate of Adam")
        ax.set_xticks(ax.get_xticks(), ax.get_xticklabels(), rotation=60, fontsize=8)
        for _, group, _ in series:
            network = (group.depth.iloc[0], group.batch_norm.iloc[0])
            _ring(ax, selection.steps_by_rate(group), selected.get(network))
        return ax

    return charts.save_panels(
        path,
        {
            title: functools.partial(draw, series)
            for title, series in charts.facets(validation, "learning_rate", by=["depth"]).items()
        },
        f"Training steps to {target(validation)} validation accuracy, by learning rate",
        charts.settings(validation),
        columns=4,
        size=(2.9, 2.5),
    )


def steps_by_depth(trials: pd.DataFrame, path: Path) -> Path:
    """Draws steps on the test set by depth, at the published and at the tuned rates."""
    reported = selection.reported(trials)

    def draw(series, ax):
        ax = charts.steps_to_target(series, ax, "depth")
        ax.set_xlabel("hidden layers")
        ax.set_xticks(sorted(trials.depth.unique()))
        return ax

    panels = {
        ", ".join(filter(None, [_TITLES[name], title])): functools.partial(draw, series)
        for name, frame in reported.items()
        for title, series in charts.facets(frame.drop(columns="learning_rate"), "depth").items()
    }
    test = pd.concat(reported.values()).drop_duplicates("trial_id")
    title = f"Training steps to {target(test)} test accuracy, by depth"
    return charts.save_panels(path, panels, title, charts.settings(test), columns=2, size=(4, 3.6))


def steps_by_budget(trials: pd.DataFrame, path: Path) -> Path:
    """Draws the steps of the deepest networks by the number of rates tried."""
    budgets = selection.by_budget(trials)
    deepest = budgets[budgets.depth == budgets.depth.max()]
    validation = selection.on("validation", trials)
    validation = validation[validation.depth == budgets.depth.max()]
    labels = {"median_steps": "fewest steps to the target", "reaching": "share of the choices"}
    titles = {
        "median_steps": "steps, median over the choices of rates",
        "reaching": "choices of rates that reach the target",
    }
    return charts.save_panels(
        path,
        {
            titles[column]: functools.partial(_budget, deepest, column=column, label=label)
            for column, label in labels.items()
        },
        f"Tuning budget of networks with {charts.depths(validation)}",
        f"{charts.settings(validation)} · {target(validation)} accuracy on the validation set",
        columns=2,
        share=False,
        size=(4, 3.2),
    )


def _budget(budgets, ax: Axes, *, column: str, label: str) -> Axes:
    """Draws a column against the number of tried rates, with a line per arm."""
    for arm, rows in budgets.groupby("batch_norm"):
        finite = rows[column].replace(np.inf, np.nan)
        ax.plot(rows.rates, finite, label=arm_name(arm), lw=2, **looks.LOOKS[int(arm)])
    ax.set_ylim(bottom=0)
    ax.set_xticks(sorted(budgets.rates.unique()))
    ax.set_xlabel("learning rates tried")
    ax.set_ylabel(label)
    return ax


def _ring(ax, steps, rate):
    """Marks the selected rate, if its median is finite."""
    if rate is None:
        return
    median = np.median(steps.loc[rate])
    if np.isfinite(median):
        ax.plot(
            rate,
            median,
            "o",
            ms=13,
            mfc="none",
            mec="black",
            mew=1.2,
            linestyle="none",
            label="selected rate",
        )
