"""Charts of the cost tables: layers by shape, and networks by depth."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sweeps.cost import ratios
from sweeps.harness import charts
from sweeps.harness.charts.looks import LOOKS
from sweeps.harness.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The index of each contender's look, the same in every chart.
_CONTENDERS = {
    **{"plain": 0, "by hand": 0, "kerasbn": 1, "keras": 2, "pytorch": 2},
    **{"folded": 3, "relu": 3, "four copies": 4},
}


def draw(name: str, rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Draws the charts of a table and returns their paths.

    Layers are drawn by shape and networks by depth. The memory and the batch sizes need no chart.

    Args:
        name: Name of the table.
        rows: Rows of the table.
        folder: Folder for the charts.
    """
    call = "inference pass" if name == "inference" else "training step"
    machine = (
        f"medians and quartiles · {counted(rows.threads.iloc[0], 'thread')} · {rows.cpu.iloc[0]}"
    )
    paths = []
    for key, group in ratios.by_mode(rows[rows.what == "layer"]):
        paths.append(
            charts.save(
                folder / f"{'_'.join([name, *key])}.png",
                partial(multiples, group, over="keras"),
                f"Time of a layer's {call}, relative to Keras's layer",
                " · ".join([*key, machine]),
            )
        )
    for (mode, _), group in ratios.by_mode(rows[rows.what == "dense net"]):
        paths.append(
            charts.save(
                folder / f"{name}_by_depth_{mode}.png",
                partial(milliseconds, group, call=call),
                f"Time of a network's {call}, by depth",
                " · ".join([mode, "batch 500", machine]),
            )
        )
    return paths


def multiples(rows: pd.DataFrame, ax: Axes, over: str) -> Axes:
    """Draws the contenders' times relative to a baseline, by size, as medians and quartiles.

    Args:
        rows: Rows of a cost table for one mode and one dtype. Sizes are drawn in their order.
        ax: Axes to draw on.
        over: Baseline, whose time is 1.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    sizes = list(rows["size"].unique())
    names = [name for name in _CONTENDERS if name != over and name in set(rows.contender)]
    for n, name in enumerate(names):
        group = rows[rows.contender == name]
        look = LOOKS[_CONTENDERS[name]]
        middle = group[f"over_{over}"].to_numpy()
        spread = group[[f"over_{over}_q1", f"over_{over}_q3"]].to_numpy().T
        places = np.array([sizes.index(size) for size in group["size"]])
        ax.errorbar(
            middle,
            places + 0.13 * (n - (len(names) - 1) / 2),
            xerr=np.abs(spread - middle),
            fmt=look["marker"],
            color=look["color"],
            markersize=5,
            elinewidth=1,
            label=name,
        )
    ax.axvline(1, color="#333333", linewidth=1)
    for kind, group in rows.groupby("shapes", sort=False):
        top = sizes.index(group["size"].iloc[0]) - 0.5
        ax.axhline(top, color="#777777", linewidth=1, linestyle=":")
        ax.annotate(
            kind,
            (1.01, top),
            xycoords=("axes fraction", "data"),
            va="top",
            color="#555555",
            fontsize=8,
        )
    ax.set_ylim(-0.5, len(sizes) - 0.5)
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    narrow = high < 10 * low  # 1, 2 and 5 would leave one to three ticks
    ax.xaxis.set_major_locator(
        MaxNLocator(8, steps=[1, 2, 5, 10]) if narrow else LogLocator(subs=(1.0, 2.0, 5.0))
    )
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks(range(len(sizes)), sizes)
    ax.invert_yaxis()
    ax.set_xlabel(f"time ({over.capitalize()} = 1)")
    return ax


def milliseconds(rows: pd.DataFrame, ax: Axes, call: str) -> Axes:
    """Draws the time of a network's call by hidden layers: joined medians with quartiles as bars.

    Args:
        rows: Rows of a cost table for one kind of network and one mode.
        ax: Axes to draw on.
        call: Name of the call, "training step" or "inference pass".
    """
    for name in [name for name in _CONTENDERS if name in set(rows.contender)]:
        group = rows[rows.contender == name]
        middle = group.median_microseconds.to_numpy() / 1e3
        spread = group[["q1", "q3"]].to_numpy().T / 1e3
        look = LOOKS[_CONTENDERS[name]]
        places = group["size"].astype(int)
        ax.errorbar(places, middle, np.abs(spread - middle), label=name, capsize=2, **look)
    ax.set_xticks(sorted(set(rows["size"].astype(int))))
    ax.set_ylim(bottom=0)
    ax.set_xlabel("hidden layers")
    ax.set_ylabel(f"milliseconds per {call}")
    return ax
