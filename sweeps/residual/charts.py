"""The charts of the residual study."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sweeps.harness import charts
from sweeps.harness.charts import looks, spreads
from sweeps.residual import measures
from sweeps.residual.measures import NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sweeps.harness.results.tables import Tables

_LOOKS = dict(zip(NAMES, looks.LOOKS, strict=False))  # plain and batch norm as in other charts


def shares(tables: Tables, path: Path) -> list[Path]:
    """Draws the branch's share of the variance by block, in the deepest networks of each kind."""
    if "branches" not in tables.recorded:
        return []
    trials = tables.trials[tables.trials.part == "depth"]
    trials = trials[trials.depth == trials.depth.max()]
    rows = tables.recorded["branches"]
    depth = trials.depth.iloc[0]

    def draw(ax):
        for branch, group in measures.by_branch(trials).items():
            found = rows[rows.trial_id.isin(group.trial_id)].merge(group[["trial_id", "seed"]])
            found = found.drop_duplicates(["seed", "block"])  # all rates start equal
            _share(ax, found, branch)
        blocks = np.arange(1, depth + 1)
        ax.plot(blocks, 1 / (blocks + 1), "k--", lw=1.2, label="1 / (l + 1)", zorder=5)
        ax.set_xscale("log")
        ax.set_yscale("log")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter("{x:g}")
        ax.set_ylim(0.7 / (depth + 1), 1.2)
        ax.set_xlabel("block l (1 is next to the input)")
        ax.set_ylabel("branch's share of the variance")
        return ax

    title = "Branch's share of a block's output variance, at initialization"
    subtitle = f"{depth} blocks · {_settings(trials)}"
    return [charts.save(path, draw, title, subtitle)]


def _share(ax: Axes, found: pd.DataFrame, branch: str) -> None:
    """Draws the median share of one kind of branch. A logarithmic axis has no place for 0."""
    look, name = _LOOKS[branch], NAMES[branch]
    if not found.share.any():
        ax.plot([], [], color=look["color"], lw=2, label=f"{name}: 0 in every block")
        return
    medians = spreads.medians(found.share, found.block)
    wide = spreads.draw_band(ax, medians, look["color"])
    label = f"{name} (median{f', {spreads.NAME}' if wide else ''})"
    line = [each.estimate for each in medians.values()]
    every = looks.marker_every(len(line))
    ax.plot([*medians], line, lw=2, markersize=4, markevery=every, label=label, **look)


def by_depth(trials: pd.DataFrame, path: Path) -> list[Path]:
    """Draws final accuracy by the number of blocks, each point at its best learning rate."""
    trials = trials[trials.part == "depth"]
    if trials.empty:
        return []
    best = [
        group[group.learning_rate == measures.best_rate(group)]
        for _, of_depth in trials.groupby("depth")
        for group in measures.by_branch(of_depth).values()
    ]

    def draw(ax):
        ax = charts.value(_series(pd.concat(best)), ax, "depth", "final_accuracy", log=True)
        ax.set_xlabel("residual blocks")
        return _accuracy_axis(ax)

    title = "Accuracy of residual networks, by depth"
    steps = f"after {trials.max_steps.max()} steps, each at its best learning rate"
    return [charts.save(path, draw, title, f"{steps} · {_settings(trials)}")]


def by_rate(trials: pd.DataFrame, path: Path) -> list[Path]:
    """Draws final accuracy by learning rate, one panel per batch size."""
    trials = trials[trials.part == "batch size"]
    if trials.empty:
        return []

    def draw(of_size, ax):
        series = _series(of_size)
        ax = charts.value(series, ax, "learning_rate", "final_accuracy", log=True)
        for _, group, _ in series:
            _ring(ax, group)
        ax.set_xticks(ax.get_xticks(), ax.get_xticklabels(), rotation=60, fontsize=8)
        ax.set_xlabel("learning rate of SGD")
        return _accuracy_axis(ax)

    panels: dict[str, Callable[[Axes], Axes]] = {
        f"batches of {size:,}, {group.max_steps.max():,} steps": functools.partial(draw, group)
        for size, group in trials.groupby("batch_size")
    }
    title = "Accuracy of residual networks by learning rate, at several batch sizes"
    subtitle = f"{trials.depth.max()} blocks · {_settings(trials)}"
    return [charts.save_panels(path, panels, title, subtitle, columns=3, size=(3.8, 3.6))]


def _settings(trials):
    """The trials' settings for a subtitle, without those that vary within the chart."""
    width = trials.hidden_units.iloc[0].split("-")[0]
    return f"width {width} · {charts.settings(trials)}"


def _series(trials):
    return [
        charts.Series(NAMES[branch], group, _LOOKS[branch])
        for branch, group in measures.by_branch(trials).items()
    ]


def _ring(ax, group):
    """Marks the rate with the highest median accuracy."""
    rate = measures.best_rate(group)
    height = measures.by_rate(group)[rate].median()
    style = {"ms": 13, "mfc": "none", "mec": "black", "mew": 1.2, "linestyle": "none"}
    ax.plot(rate, height, "o", label="best rate", **style)


def _accuracy_axis(ax):
    ax.set_ylim(0, 1)
    ax.set_ylabel("test accuracy")
    return ax
