"""Draws gradients and distributions inside a network, layer by layer."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sweeps.harness.charts import figures, looks
from sweeps.harness.results.store import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def gradients(rows: pd.DataFrame, ax: Axes) -> Axes:
    """Draws gradient norms by layer: thin lines for seeds, a thick line for their median.

    A norm of 0 is left out, because the axis is logarithmic.

    Args:
        rows: Rows with `batch_norm`, `trial_id`, `layer` and `gradient_norm`.
        ax: Axes to draw on.
    """
    for batch_norm, arm in rows.groupby("batch_norm"):
        name, look = looks.of_arm(batch_norm)
        norms = arm.gradient_norm.where(arm.gradient_norm > 0)
        arm = arm.assign(gradient_norm=norms)
        for _, run in arm.groupby("trial_id"):
            ax.plot(run.layer, run.gradient_norm, lw=0.7, alpha=0.5, color=look["color"])
        medians = arm.groupby("layer").gradient_norm.median()
        ax.plot(
            medians.index,
            medians,
            lw=2,
            markersize=4,
            label=f"{name} (median; thin: seeds)",
            **look,
        )
    ax.set_yscale("log")
    ax.set_xlabel("hidden layer (1 is next to the input)")
    ax.set_ylabel("norm of the loss gradient")
    return ax


def histograms(rows: pd.DataFrame, ax: Axes) -> Axes:
    """Draws one distribution per arm as filled steps. All have the same height.

    A distribution much narrower than the whole axis would be invisible, so it becomes a line.

    Args:
        rows: One row per arm with `batch_norm`, `low`, `high` and `counts`.
        ax: Axes to draw on.
    """
    span = rows.high.max() - rows.low.min()
    for row in rows.sort_values("batch_norm").itertuples():
        counts = np.array(row.counts.split("-"), float)
        label, look = looks.of_arm(row.batch_norm)
        color = look["color"]
        if row.high - row.low <= 0.03 * span:
            ax.axvline((row.low + row.high) / 2, color=color, lw=2, label=label)
            continue
        edges = np.linspace(row.low, row.high, len(counts) + 1)
        ax.stairs(counts / counts.max(), edges, fill=True, alpha=0.55, color=color, label=label)
    ax.set_ylim(0, 1.1)
    ax.set_yticks([])
    return ax


def save_histograms(path: Path, rows: pd.DataFrame, title: str, subtitle: str) -> Path:
    """Draws a grid of histograms before and after training, with one column per layer.

    Args:
        path: Path of the PNG file.
        rows: Rows with `step`, `layer`, `tensor` and the columns of `histograms`.
        title: Title of the figure.
        subtitle: Text below the title.

    Returns:
        The path of the file.
    """
    ends = rows[rows.step.isin([rows.step.min(), rows.step.max()])]
    panels = {}
    for tensor in ("pre_activation", "activation"):
        for (step, layer), panel in ends[ends.tensor == tensor].groupby(["step", "layer"]):
            name = f"layer {layer}, step {step}\n{tensor.replace('_', '-')}"
            panels[name] = functools.partial(histograms, panel)
    layers = ends.layer.nunique()
    return figures.save_panels(
        path, panels, title, subtitle, columns=layers, share=False, size=(1.7, 1.5)
    )


def animate_histograms(path: Path, rows: pd.DataFrame, title: str) -> Path:
    """Writes a GIF of the histograms, with one frame per recorded step and fixed axes.

    Args:
        path: Path of the GIF file.
        rows: Rows as for `save_histograms`.
        title: Title of the figure. The current step is added.

    Returns:
        The path of the file.
    """
    from matplotlib.animation import FuncAnimation, PillowWriter

    tensors = ["pre_activation", "activation"]
    layers = sorted(rows.layer.unique())
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
                histograms(rows[chosen], ax)
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
