"""The charts of the rank study."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sweeps.harness import charts
from sweeps.harness.charts import looks, spreads
from sweeps.harness.trial import arm_name
from sweeps.harness.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sweeps.harness.results.tables import Tables

_KINDS = {"rank": "singular values above 1%", "stable_rank": "stable rank"}
_ACTIVATIONS = {"linear": "no activation", "relu": "ReLU"}


def ranks_by_layer(tables: Tables, path: Path) -> Path:
    """Draws both ranks by layer, in networks of the middle width."""
    found = _ranks(tables)
    widths = sorted(found.width.unique())
    width = widths[len(widths) // 2]
    rows = found[(found.width == width) & (found.layer > 0)]
    title = f"Rank of the outputs by layer, in random networks of width {width}"
    return _save(path, tables, rows, "layer", title)


def ranks_by_width(tables: Tables, path: Path) -> Path:
    """Draws both ranks in the last layer by width."""
    found = _ranks(tables)
    rows = found[found.layer == found.depth]
    depths = sorted(rows.depth.unique())
    title = f"Rank of the outputs of layer {' and '.join(map(str, depths))}, by width"
    return _save(path, tables, rows, "width", title)


def _ranks(tables):
    settings = ["trial_id", "activation", "batch_norm", "width", "depth"]
    return tables.recorded["ranks"].merge(tables.trials[settings], on="trial_id")


def _save(path, tables, rows, x, title):
    """Draws a grid of panels: a row per kind of rank, and a column per activation."""
    trials = tables.trials
    activations = sorted(rows.activation.unique())
    panels = {
        f"{_ACTIVATIONS.get(each, each)}: {label}": functools.partial(
            _panel, rows[rows.activation == each], x=x, column=column
        )
        for column, label in _KINDS.items()
        for each in activations
    }
    images = " or ".join(f"{each:,}" for each in sorted(trials.batch_size.unique()))
    datasets = " and ".join(trials.dataset.unique())
    subtitle = (
        f"{datasets} · {images} images · no training · {counted(trials.seed.nunique(), 'seed')}"
    )
    return charts.save_panels(
        path, panels, title, subtitle, columns=len(activations), share="row", size=(4, 2.9)
    )


def _panel(rows: pd.DataFrame, ax: Axes, *, x: str, column: str) -> Axes:
    """Draws medians over seeds with their intervals, and the square root of the width."""
    for arm, group in rows.groupby("batch_norm"):
        look = looks.LOOKS[int(arm)]
        found = spreads.medians(group[column], group[x])
        wide = spreads.draw_band(ax, found, look["color"])
        ax.plot(
            [*found],
            [each.estimate for each in found.values()],
            label=f"{arm_name(arm)} (median{f', {spreads.NAME}' if wide else ''})",
            lw=2,
            markersize=5,
            **look,
        )
    places = np.array(sorted(rows[x].unique()), float)
    roots = np.sqrt(places if x == "width" else np.full(len(places), rows.width.max()))
    ax.plot(places, roots, color="#777777", ls="--", lw=1, label="square root of the width")
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter("{x:g}")
    if x == "width":
        ax.set_xscale("log", base=2)
        ax.set_xticks(places, [f"{each:g}" for each in places])
        ax.xaxis.minorticks_off()
    ax.set_xlabel(x)
    ax.set_ylabel("number of singular values" if column == "rank" else "stable rank")
    return ax
