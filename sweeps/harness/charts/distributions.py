"""Draws the distributions inside a network as columns of color, one column per layer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sweeps.harness.charts import figures
from sweeps.harness.charts.facets import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 25
_DARKEST = 0.6  # share of a layer's values that has the darkest color


def save_distributions(
    path: Path, series: Sequence[Series], rows: pd.DataFrame, title: str, subtitle: str
) -> Path:
    """Draws distributions before and after training, with one panel per series and time.

    Args:
        path: Path of the PNG file.
        series: The series to draw, with one trial each.
        rows: Rows with `trial_id`, `step`, `layer`, `low`, `high` and `counts`, of one tensor.
        title: Title of the figure.
        subtitle: Text below the title.

    Returns:
        The path of the file.
    """
    edges = np.linspace(rows.low.min(), rows.high.max(), _BINS + 1)
    ends = {"before training": rows.step.min(), "after training": rows.step.max()}
    panels = {}
    for when, step in ends.items():
        for name, trials, _ in series:
            shown = rows[(rows.step == step) & rows.trial_id.isin(trials.trial_id)]
            panels[f"{name}, {when}"] = functools.partial(distributions, shown, edges)
    subtitle = f"{subtitle} · the darker, the more of a layer's activations have this value"
    return figures.save_panels(path, panels, title, subtitle, columns=len(series))


def distributions(rows: pd.DataFrame, edges: np.ndarray, ax: Axes) -> Axes:
    """Draws a column for each layer. Its color shows the share of the values in each bin.

    Args:
        rows: One row per layer, with `layer`, `low`, `high` and `counts`.
        edges: Edges of the bins.
        ax: Axes to draw on.
    """
    from matplotlib.colors import PowerNorm

    rows = rows.sort_values("layer")
    shares = np.array([shares_in_bins(row, edges) for row in rows.itertuples()])
    layers = np.append(rows.layer - 0.5, rows.layer.max() + 0.5)
    norm = PowerNorm(0.5, vmin=0, vmax=_DARKEST)
    ax.pcolormesh(layers, edges, shares.T, norm=norm, cmap="Blues")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("hidden layer (1 is next to the input)")
    ax.set_ylabel("activation")
    return ax


def shares_in_bins(row, edges: np.ndarray) -> np.ndarray:
    """The share of a histogram's values in each bin.

    Values are taken as uniform within a bin of the histogram.

    Args:
        row: Histogram with `low`, `high` and `counts`.
        edges: Edges of the new bins.
    """
    counts = np.array(str(row.counts).split("-"), float)
    if row.high == row.low:
        return np.histogram([row.low], edges)[0].astype(float)
    old = np.linspace(row.low, row.high, len(counts) + 1)
    cumulative = np.concatenate([[0.0], counts.cumsum()]) / counts.sum()
    return np.diff(np.interp(edges, old, cumulative))
