"""What goes on inside a network, layer by layer: gradients and distributions."""

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
    """Gradient norm by layer, each seed a thin line, medians thick; a norm of 0 is left out."""
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
    ax.set_xlabel("hidden layer, 1 next to the input")
    ax.set_ylabel("norm of the loss's gradient")
    return ax


def histograms(rows: pd.DataFrame, ax: Axes) -> Axes:
    """Distributions as filled steps of equal height: columns `batch_norm`, `low`, `high`, `counts`.

    One row for each arm. A distribution that is too narrow to be seen beside the other is a line.
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
    """A grid of histograms: a column a layer; pre-activations and activations, first and last step.

    Args:
        path: Where to.
        rows: `step`, `layer`, `tensor`, and the columns of `histograms`.
        title: Of the whole.
        subtitle: What all have in common.
    """
    ends = rows[rows.step.isin([rows.step.min(), rows.step.max()])]
    panels = {}
    for tensor in ("pre_activation", "activation"):
        for (step, layer), of_panel in ends[ends.tensor == tensor].groupby(["step", "layer"]):
            name = f"layer {layer}, step {step}\n{tensor.replace('_', '-')}"
            panels[name] = functools.partial(histograms, of_panel)
    layers = ends.layer.nunique()
    return figures.save_panels(
        path, panels, title, subtitle, columns=layers, share=False, size=(1.7, 1.5)
    )


def animate_histograms(path: Path, rows: pd.DataFrame, title: str) -> Path:
    """A GIF, a frame a recorded step, of what `save_histograms` shows; axes stay as they are."""
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
        shown = axes[0, 0].get_legend_handles_labels()
        figure.legend(*shown, loc="upper right", ncols=2, frameon=False, fontsize=9)

    movie = FuncAnimation(figure, frame, frames=steps, cache_frame_data=False)
    temporary = path.with_name(f".{path.name}.tmp.gif")
    movie.save(temporary, writer=PillowWriter(fps=2), dpi=80)
    write_whole(path, temporary.read_bytes())
    temporary.unlink()
    return path
