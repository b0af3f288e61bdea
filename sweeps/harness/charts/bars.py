"""Draws groups of bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sweeps.harness.charts import looks, spreads

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def bars(table: pd.DataFrame, ax: Axes, label: str) -> Axes:
    """Draws groups of bars with a number above each bar.

    Args:
        table: One row per group, one column per bar in a group.
        ax: Axes to draw on.
        label: Label of the vertical axis, with the unit.
    """
    width = 0.8 / len(table.columns)
    places = np.arange(len(table))
    for position, name in enumerate(table.columns):
        shift = width * (position - (len(table.columns) - 1) / 2)
        container = ax.bar(
            places + shift,
            table[name],
            width * 0.92,
            label=name,
            color=looks.LOOKS[position]["color"],
        )
        ax.bar_label(container, fmt="%.2f", fontsize=8, padding=2)
    ax.set_xticks(places, table.index)
    ax.set_ylabel(label)
    ax.margins(y=0.1)
    return ax


def bars_of_seeds(
    series: list[tuple[str, pd.Series]], names: list[str], ax: Axes, label: str
) -> Axes:
    """Draws groups of bars. A bar is the median of the seeds, and each seed is a dot.

    A thin vertical line is the 95% interval of the median.

    Args:
        series: Label and values of each bar in a group. The index of the values is the group's
            name, with one value per seed. Two neighbouring bars form a pair: they share a colour,
            and the first one is hatched.
        names: Names of the groups, in the order to draw them.
        ax: Axes to draw on.
        label: Label of the vertical axis, with the unit.
    """
    width = 0.8 / len(series)
    pairs = looks.of_series([name for name, _ in series[::2]])
    for position, (name, values) in enumerate(series):
        places = np.arange(len(names)) + width * (position - (len(series) - 1) / 2)
        found = spreads.medians(values, values.index)
        medians = [found[each].estimate if each in found else np.nan for each in names]
        color, first = pairs[position // 2]["color"], position % 2 == 0
        style = {"facecolor": "white" if first else color, "hatch": "///" if first else None}
        ax.bar(places, medians, width * 0.92, label=name, edgecolor=color, **style)
        place_of = dict(zip(names, places, strict=True))
        centres = np.array([place_of[each] for each in found])
        limits = np.broadcast_to([[values.min()], [values.max()]], (2, len(found)))
        spreads.draw_bars(ax, centres, [*found.values()], limits, "#333333")
        seeds = [place_of[each] for each in values.index]
        ax.scatter(seeds, values, s=9, color="#333333", linewidths=0, alpha=0.7, zorder=3)
    ax.set_xticks(range(len(names)), names, fontsize=8)
    ax.set_ylabel(label)
    return ax
