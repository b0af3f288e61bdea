"""Draws results against a setting: a dot per seed, and medians with their 95% intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sweeps.harness.charts import figures, looks, spreads
from sweeps.harness.charts.facets import Series
from sweeps.harness.results import tables
from sweeps.harness.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Distance of neighbouring series and of the outer ones, as shares of the distance between points.
_STEP, _SPREAD = 0.12, 0.3


def steps_to_target(
    series: Sequence[Series], ax: Axes, x: str, *, log: bool = False, joined: bool = True
) -> Axes:
    """Draws steps to target against a column. Misses are triangles at their trial's budget.

    Args:
        series: The lines, as from `facets`.
        ax: Axes to draw on.
        x: Column on the horizontal axis. It holds numbers.
        log: Whether the horizontal axis is logarithmic.
        joined: Whether a line joins the medians.
    """
    trials = pd.concat([each.trials for each in series])
    shifts = _shifts(len(series), trials[x], log)
    missed: set[int] = set()
    for (label, group, look), shift in zip(series, shifts, strict=True):
        places = _shifted(group[x], shift, log)
        steps = tables.with_misses(group.steps_to_target)
        hit = np.isfinite(steps)
        budgets = group.max_steps.to_numpy()[~hit]
        missed |= set(budgets.tolist())
        ax.scatter(places[hit], steps[hit], s=22, alpha=0.55, linewidths=0, **looks.dots(look))
        ax.scatter(
            places[~hit], budgets, s=45, marker="^", facecolors="none", edgecolors=look["color"]
        )
        every = group.max_steps.to_numpy()
        _medians(ax, group[x], steps, label, look, shift, log=log, joined=joined, budgets=every)
    if missed:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(lambda y, _: f"{y:g}" if f"{y:g}"[0] in "235" else "")
        _budgets(ax, sorted(missed))
    _limits(ax)
    if log:
        _log_axis(ax, trials[x])
    ax.set_ylabel(f"training steps to {tables.target(trials)} test accuracy")
    return ax


def value(
    series: Sequence[Series],
    ax: Axes,
    x: str,
    y: str,
    *,
    log: bool = False,
    worst: float = -np.inf,
) -> Axes:
    """Draws a result against a column. Diverged runs are crosses at the worst end of the axis.

    Args:
        series: The lines, as from `facets`.
        ax: Axes to draw on.
        x: Column on the horizontal axis. It holds numbers.
        y: Column of the result.
        log: Whether the horizontal axis is logarithmic.
        worst: Value of a diverged run in the medians: -infinity for an accuracy, and infinity for
            an error.
    """
    places_of_all = pd.concat([each.trials[x] for each in series])
    shifts = _shifts(len(series), places_of_all, log)
    for (label, group, look), shift in zip(series, shifts, strict=True):
        places = _shifted(group[x], shift, log)
        diverged = (group.status == "diverged").to_numpy()
        values = group[y].astype("Float64").to_numpy(float, na_value=np.nan)
        ax.scatter(
            places[~diverged], values[~diverged], s=22, alpha=0.55, linewidths=0, **looks.dots(look)
        )
        ax.scatter(
            places[diverged],
            np.full(diverged.sum(), 0.02 if worst < 0 else 0.98),
            transform=ax.get_xaxis_transform(),
            s=45,
            marker="x",
            color=look["color"],
            label=f"{label}, diverged" if diverged.any() else None,
        )
        values = np.where(diverged, worst, values)
        _medians(ax, group[x], values, label, look, shift, log=log)
    if log:
        _log_axis(ax, places_of_all)
    return ax


def _budgets(ax, budgets):
    """Draws a dashed line at each budget, with its number of steps above it."""
    for position, budget in enumerate(budgets):
        # Neighboring lines may be too close for texts above each other.
        side = "right" if position % 2 else "left"
        figures.level(ax, budget, f"not reached in {counted(budget, 'step')}", side)


def _limits(ax):
    """Fits the vertical axis to its points and to those of panels that share it."""
    drawn = [each.dataLim for each in ax.get_shared_y_axes().get_siblings(ax)]
    high = max(each.y1 for each in drawn if np.isfinite(each.y1))
    if ax.get_yscale() != "log":
        ax.set_ylim(0, 1.05 * high)
        return
    low = min(each.minposy for each in drawn)
    room = max((high / low) ** 0.1, 1.3)
    ax.set_ylim(low / room, high * room)


def _log_axis(ax, x):
    """Makes the horizontal axis logarithmic, with a tick for each of these values."""
    ax.set_xscale("log")
    ax.set_xticks(sorted(x.unique()), [f"{each:g}" for each in sorted(x.unique())])
    ax.xaxis.minorticks_off()
    ax.set_xlim(float(x.min()) / 1.7, float(x.max()) * 1.7)


def _medians(ax, x, values, label, look, shift, *, log=False, joined=True, budgets=None):
    """Draws a line through the medians, with gaps where a median is infinite, and intervals.

    Args:
        ax: Axes to draw on.
        x: Horizontal place of each value.
        values: Values, infinite for a miss or a diverged run.
        label: Label of the series.
        look: Look of the series.
        shift: Shift of the series to the side.
        log: Whether the horizontal axis is logarithmic.
        joined: Whether a line joins the medians.
        budgets: Budget of each value, which limits it. Default: the largest finite value.
    """
    found = spreads.medians(pd.Series(values), x)
    medians = np.array([each.estimate for each in found.values()])
    line = np.where(np.isfinite(medians), medians, np.nan)
    places = _shifted(pd.Series(list(found)), shift, log)
    finite = values[np.isfinite(values)]
    low = np.full(len(found), finite.min(initial=np.inf))
    high = np.full(len(found), finite.max(initial=-np.inf))
    if budgets is not None:
        high = pd.Series(budgets).groupby(x.to_numpy()).max().to_numpy(float)
    wide = spreads.draw_bars(ax, places, [*found.values()], np.array([low, high]), look["color"])
    look = look if joined else look | {"linestyle": "none", "markersize": 10, "mew": 0}
    name = f"{label} (median, {spreads.NAME})" if wide else f"{label} (median)"
    ax.plot(places, line, label=name, lw=2, **look)


def _shifts(count, x, log):
    """A shift for each series, so that they do not hide each other.

    However many there are, and however close the points, a series stays near its point.
    """
    places = np.unique(x.to_numpy(float))
    gaps = np.diff(np.log2(places) if log else places)
    step = min(_STEP, _SPREAD / max(count - 1, 1)) * min(1.0, gaps.min(initial=1.0))
    return step * (np.arange(count) - (count - 1) / 2)


def _shifted(x, shift, log):
    """The values `x`, shifted to the side."""
    places = x.to_numpy(float)
    return places * 2**shift if log else places + shift
