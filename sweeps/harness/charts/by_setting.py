"""Draws results against a setting: a dot per seed, and a line through the medians."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sweeps.harness.charts import looks
from sweeps.harness.results import tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def steps_to_target(
    trials: pd.DataFrame, ax: Axes, x: str, *, log: bool = False, joined: bool = True
) -> Axes:
    """Draws steps to target against a column. Misses are triangles at the budget.

    Args:
        trials: The trials table. All trials have the same target accuracy.
        ax: Axes to draw on.
        x: Column on the horizontal axis. It holds numbers.
        log: Whether the horizontal axis is logarithmic.
        joined: Whether a line joins the medians.
    """
    budget = float(trials.max_steps.max())
    missed = False
    series = tables.by_series(trials, x)
    series_looks = looks.of_series([label for label, _ in series])
    for position, ((label, group), look) in enumerate(zip(series, series_looks, strict=True)):
        shift = 0.12 * (position - (len(series) - 1) / 2)
        places = _shifted(group[x], shift, log)
        steps = tables.with_misses(group.steps_to_target)
        hit = np.isfinite(steps)
        missed |= not hit.all()
        ax.scatter(places[hit], steps[hit], s=22, alpha=0.55, linewidths=0, **looks.dots(look))
        ax.scatter(
            places[~hit],
            np.full((~hit).sum(), budget),
            s=45,
            marker="^",
            facecolors="none",
            edgecolors=look["color"],
        )
        _medians(ax, group[x], steps, label, look, shift, log=log, joined=joined)
    if missed:
        ax.axhline(budget, color="#777777", linestyle="--", linewidth=1)
        ax.annotate(
            f"not reached in {budget:.0f} steps",
            (0.01, budget),
            xycoords=("axes fraction", "data"),
            xytext=(0, 4),
            textcoords="offset points",
            color="#555555",
            fontsize=8,
        )
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(lambda y, _: f"{y:g}" if f"{y:g}"[0] in "235" else "")
    else:
        ax.set_ylim(bottom=0)
    if log:
        _log_axis(ax, trials[x])
    ax.set_ylabel(f"training steps to {tables.target(trials)} test accuracy")
    ax.legend(frameon=False)
    return ax


def value(
    series: list[tuple[str, pd.DataFrame]], ax: Axes, x: str, y: str, *, log: bool = False
) -> Axes:
    """Draws a result against a column. Diverged runs are crosses at the bottom.

    Args:
        series: Label and trials of each line, as from `tables.by_series`.
        ax: Axes to draw on.
        x: Column on the horizontal axis. It holds numbers.
        y: Column of the result.
        log: Whether the horizontal axis is logarithmic.
    """
    series_looks = looks.of_series([label for label, _ in series])
    for position, ((label, group), look) in enumerate(zip(series, series_looks, strict=True)):
        shift = 0.12 * (position - (len(series) - 1) / 2)
        places = _shifted(group[x], shift, log)
        diverged = (group.status == "diverged").to_numpy()
        values = group[y].astype("Float64").to_numpy(float, na_value=np.nan)
        ax.scatter(
            places[~diverged], values[~diverged], s=22, alpha=0.55, linewidths=0, **looks.dots(look)
        )
        ax.scatter(
            places[diverged],
            np.full(diverged.sum(), 0.02),
            transform=ax.get_xaxis_transform(),
            s=45,
            marker="x",
            color=look["color"],
            label=f"{label}, diverged" if diverged.any() else None,
        )
        values = np.where(diverged, -np.inf, values)
        _medians(ax, group[x], values, label, look, shift, log=log)
    if log:
        _log_axis(ax, pd.concat([group[x] for _, group in series]))
    ax.legend(frameon=False)
    return ax


def _log_axis(ax, x):
    """Makes the horizontal axis logarithmic, with a tick for each of these values."""
    ax.set_xscale("log")
    ax.set_xticks(sorted(x.unique()), [f"{each:g}" for each in sorted(x.unique())])
    ax.xaxis.minorticks_off()
    ax.set_xlim(float(x.min()) / 1.7, float(x.max()) * 1.7)


def _medians(ax, x, values, label, look, shift, *, log=False, joined=True):
    """Draws a line through the medians, with gaps where a median is infinite."""
    medians = x.to_frame("x").assign(values=values).groupby("x")["values"]
    medians = medians.agg(lambda each: tables.median(each.to_numpy()))
    line = np.where(np.isfinite(medians), medians, np.nan)
    places = _shifted(medians.index.to_series(), shift, log)
    look = look if joined else look | {"linestyle": "none", "markersize": 10, "mew": 0}
    ax.plot(places, line, label=f"{label} (median)", lw=2, **look)


def _shifted(x, shift, log):
    """The values `x`, shifted so that series do not hide each other."""
    places = x.to_numpy(float)
    return places * 2**shift if log else places + shift
