"""Draws the 95% intervals of medians: bars at single points, and bands along lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sweeps.harness.results import intervals
from sweeps.harness.results.intervals import SEEDS_NEEDED, Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "95% interval"  # of a median, in legends


def medians(values: pd.Series, by: pd.Series | pd.Index) -> dict[Any, Interval]:
    """The median of the values in each group, by the group's key in increasing order."""
    grouped = values.groupby(by.to_numpy(), sort=True)
    return {key: intervals.of_median(group) for key, group in grouped}


def draw_bars(
    ax: Axes, places: np.ndarray, found: Sequence[Interval], limits: np.ndarray, color: str
) -> bool:
    """Draws the interval of each median as a vertical bar with caps.

    An end at infinity has a filled triangle instead of a cap, at the limit of what was measured.

    Args:
        ax: Axes to draw on.
        places: Horizontal place of each bar.
        found: Medians with their intervals. Those of too few seeds have no bar, nor those of runs
            that all diverged.
        limits: Lower and upper limit of what was measured at each place, as two rows. A run that
            misses its target, for example, has the budget as its upper limit.
        color: Colour of the bars.

    Returns:
        Whether there is a bar.
    """
    # If every run diverged, even the upper end is minus infinity. Crosses show these runs.
    shown = np.array([each.seeds >= SEEDS_NEEDED and each.high > -np.inf for each in found])
    if not shown.any():
        return False
    places, limits = np.asarray(places)[shown], np.asarray(limits)[:, shown]
    ends = np.array([[each.low, each.high] for each in found]).T[:, shown]
    clipped = np.clip(ends, *limits)
    style = {"color": color, "linestyle": "none", "zorder": 4}
    ax.vlines(places, *clipped, color=color, linewidth=1.3, zorder=4)
    for infinity, marker in ((np.inf, "^"), (-np.inf, "v")):
        beyond = (ends == infinity).any(axis=0)
        limit = clipped.max(axis=0) if infinity > 0 else clipped.min(axis=0)
        ax.plot(places[beyond], limit[beyond], marker=marker, markersize=6, mew=0, **style)
    for end, at in zip(ends, clipped, strict=True):
        known = np.isfinite(end)
        ax.plot(places[known], at[known], marker="_", markersize=7, mew=1.3, **style)
    return True


def draw_band(ax: Axes, found: dict[float, Interval], color: str) -> bool:
    """Draws the intervals of medians along a line as a band.

    Args:
        ax: Axes to draw on.
        found: Medians with their intervals, by horizontal place. Those of too few seeds have no
            band.
        color: Colour of the band.

    Returns:
        Whether there is a band.
    """
    wide = {place: each for place, each in found.items() if each.seeds >= SEEDS_NEEDED}
    if not wide:
        return False
    low, high = [each.low for each in wide.values()], [each.high for each in wide.values()]
    ax.fill_between([*wide], low, high, color=color, alpha=0.2, linewidth=0)
    return True
