"""Draws gradients and distributions inside a network, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sweeps.harness.charts import figures, looks, spreads
from sweeps.harness.charts.facets import Series
from sweeps.harness.results.store import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def gradients(series: Sequence[Series], rows: pd.DataFrame, ax: Axes) -> Axes:
    """Draws gradient norms by layer: thin lines for seeds, a thick line for their median.

    A band is the 95% interval of the median. A norm of 0 is left out, because the axis is
    logarithmic.

    Args:
        series: The series to draw, as from `facets`.
        rows: Rows with `trial_id`, `layer` and `gradient_norm`, of one step.
        ax: Axes to draw on.
    """
    for name, trials, look in series:
        norms = rows[rows.trial_id.isin(trials.trial_id) & (rows.gradient_norm > 0)]
        for _, run in norms.groupby("trial_id"):
            ax.plot(run.layer, run.gradient_norm, lw=0.7, alpha=0.5, color=look["color"])
        found = spreads.medians(norms.gradient_norm, norms.layer)
        medians = [each.estimate for each in found.values()]
        wide = spreads.draw_band(ax, found, look["color"])
        band = f"; band: {spreads.NAME}" if wide else ""
        ax.plot(
            [*found],
            medians,
            lw=2,
            markersize=4,
            markevery=looks.marker_every(len(medians)),
            label=f"{name} (median; thin: seeds{band})",
            **look,
        )
    ax.set_yscale("log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("hidden layer (1 is next to the input)")
    ax.set_ylabel("norm of the loss gradient")
    return ax


def histograms(series: Sequence[Series], rows: pd.DataFrame, ax: Axes) -> Axes:
    """Draws one distribution per trial as filled steps. All have the same height.

    A distribution much narrower than the whole axis would be invisible, so it becomes a line.

    Args:
        series: The series to draw, with one trial each.
        rows: One row per trial with `trial_id`, `low`, `high` and `counts`.
        ax: Axes to draw on.
    """
    span = rows.high.max() - rows.low.min()
    for name, trials, look in series:
        color = look["color"]
        for row in rows[rows.trial_id.isin(trials.trial_id)].itertuples():
            counts = np.array(row.counts.split("-"), float)
            if row.high - row.low <= 0.03 * span:
                ax.axvline((row.low + row.high) / 2, color=color, lw=2, label=name)
                continue
            edges = np.linspace(row.low, row.high, len(counts) + 1)
            ax.stairs(counts / counts.max(), edges, fill=True, alpha=0.55, color=color, label=name)
    ax.set_ylim(0, 1.1)
    ax.set_yticks([])
    return ax


def animate_histograms(
    path: Path, series: Sequence[Series], rows: pd.DataFrame, title: str
) -> Path:
    """Writes a GIF of the histograms, with one frame per recorded step and fixed axes.

    Args:
        path: Path of the GIF file.
        series: The series to draw, with one trial each.
        rows: Rows with `step`, `layer`, `tensor` and the columns of `histograms`.
        title: Title of the figure. The current step is added.

    Returns:
        The path of the file.
    """
    from matplotlib.animation import FuncAnimation, PillowWriter

    tensors = ["pre_activation", "activation"]
    layers = sorted(rows.layer.unique())
    title = figures.marked(title, path)
    figure = figures.new_figure(1.5 * len(layers), 3.6, title)
    axes = figure.subplots(len(tensors), len(layers), squeeze=False)
    steps = sorted(rows.step.unique())
    bounds = rows.groupby(["tensor", "layer"]).agg(low=("low", "min"), high=("high", "max"))

    def frame(step):
        for i, tensor in enumerate(tensors):
            for j, layer in enumerate(layers):
                ax = axes[i, j]
                ax.clear()
                chosen = (rows.step == step) & (rows.layer == layer) & (rows.tensor == tensor)
                histograms(series, rows[chosen], ax)
                ax.set_xlim(*bounds.loc[(tensor, layer)])
                ax.set_title(f"{tensor.replace('_', '-')} {layer}", fontsize=8)
                ax.tick_params(labelsize=7)
        figure.suptitle(f"{title}, step {step}", x=0.01, ha="left", fontsize=12)
        figure.legends.clear()
        handles_and_labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(*handles_and_labels, loc="upper right", ncols=2, frameon=False, fontsize=9)

    movie = FuncAnimation(figure, frame, frames=steps, cache_frame_data=False)
    temporary = path.with_name(f".{path.name}.tmp.gif")
    movie.save(temporary, writer=PillowWriter(fps=2), dpi=80)
    write_whole(path, temporary.read_bytes())
    temporary.unlink()
    return path
