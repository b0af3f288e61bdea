"""Groups of bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sweeps.harness.charts import looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def bars(table: pd.DataFrame, ax: Axes, label: str) -> Axes:
    """Groups of bars, each with its number.

    Args:
        table: A row a group, a column for each bar in it.
        ax: Where to draw.
        label: Of the vertical axis, with the unit.
    """
    width = 0.8 / len(table.columns)
    places = np.arange(len(table))
    for position, name in enumerate(table.columns):
        shift = width * (position - (len(table.columns) - 1) / 2)
        drawn = ax.bar(
            places + shift,
            table[name],
            width * 0.92,
            label=name,
            color=looks.LOOKS[position]["color"],
        )
        ax.bar_label(drawn, fmt="%.2f", fontsize=8, padding=2)
    ax.set_xticks(places, table.index)
    ax.set_ylabel(label)
    ax.margins(y=0.25)
    ax.legend(frameon=False, loc="upper left")
    return ax


def bars_of_seeds(
    series: list[tuple[str, pd.Series]], names: list[str], ax: Axes, label: str
) -> Axes:
    """Groups of bars, each the median of its seeds, with every seed as a dot.

    Args:
        series: For each bar of a group, what it is and the seeds' values, by the group's name. Two
            by two they belong together: they have one colour, the first of them hatched.
        names: Of the groups, in their order.
        ax: Where to draw.
        label: Of the vertical axis, with the unit.
    """
    width = 0.8 / len(series)
    pairs = looks.of_series([name for name, _ in series[::2]])
    for position, (name, values) in enumerate(series):
        places = np.arange(len(names)) + width * (position - (len(series) - 1) / 2)
        medians = values.groupby(level=0).median().reindex(names)
        color, first = pairs[position // 2]["color"], position % 2 == 0
        style = {"facecolor": "white" if first else color, "hatch": "///" if first else None}
        ax.bar(places, medians, width * 0.92, label=name, edgecolor=color, **style)
        place_of = dict(zip(names, places, strict=True))
        seeds = [place_of[each] for each in values.index]
        ax.scatter(seeds, values, s=9, color="#333333", linewidths=0, alpha=0.7, zorder=3)
    ax.set_xticks(range(len(names)), names, fontsize=8)
    ax.set_ylabel(label)
    ax.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return ax
