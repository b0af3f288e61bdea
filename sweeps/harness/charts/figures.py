"""Writes figures with one chart or several panels as PNG files, and makes their subtitles."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sweeps.harness.results.store import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def settings(trials: pd.DataFrame) -> str:
    """The settings that all trials of a chart share, as text for its subtitle."""

    def common(name, text=str):
        values = trials[name].dropna().unique()
        return text(values[0]) if len(values) == 1 else f"several {name.replace('_', ' ')}s"

    batch_size = common("batch_size")
    parts = [
        common("dataset"),
        common("activation"),
        f"{common('optimizer')} at {common('learning_rate', '{:g}'.format)}",
        batch_size if "several" in batch_size else f"batch {batch_size}",
    ]
    if trials.batch_norm.any():
        options = {name: trials[f"bn_{name}"].dropna().unique() for name in ("momentum", "epsilon")}
        shared = [f"{name} {used[0]:g}" for name, used in options.items() if len(used) == 1]
        parts.append(f"batch norm: {', '.join(shared)}")
    seeds = trials.seed.nunique()
    return " · ".join([*parts, f"{seeds} seed{'s' if seeds > 1 else ''}"])


def save(path: Path, draw: Callable[[Axes], Axes], title: str, subtitle: str) -> Path:
    """Draws one chart into a PNG file with 150 dots per inch.

    Args:
        path: Path of the PNG file.
        draw: Function of (axes). Draws the chart.
        title: Title of the figure.
        subtitle: Text below the title.

    Returns:
        The path of the file.
    """
    figure = new_figure(7.2, 4.6, title)
    ax = draw(figure.add_subplot())
    ax.set_title(subtitle, loc="left", fontsize=8, color="#555555")
    _tidy(ax)
    return _write(figure, path)


def save_panels(
    path: Path,
    panels: Mapping[str, Callable[[Axes], Axes]],
    title: str,
    subtitle: str,
    *,
    columns: int,
    share: bool = True,
    size: tuple[float, float] = (3.6, 2.9),
) -> Path:
    """Draws panels, row by row, with one legend for all.

    Args:
        path: Path of the PNG file.
        panels: Functions of (axes), each of which draws a panel, by the panel's title.
        title: Title of the figure.
        subtitle: Text below the title.
        columns: Number of panels in a row.
        share: Whether all panels have the same axis limits.
        size: Width and height of a panel in inches.

    Returns:
        The path of the file.
    """
    rows = -(-len(panels) // columns)
    figure = new_figure(size[0] * columns, size[1] * rows + 1.0, title)
    axes = list(figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False).flat)
    handles = {}
    for number, (name, draw) in enumerate(panels.items()):
        ax = axes[number]
        draw(ax).set_title(name, fontsize=10)
        _tidy(ax)
        if share:
            lowest = number + columns >= len(panels)  # the lowest panel of its column
            ax.tick_params(labelbottom=lowest)
            ax.set_xlabel(ax.get_xlabel() if lowest else "")
            ax.set_ylabel(ax.get_ylabel() if number % columns == 0 else "")
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        if ax.get_legend():
            ax.get_legend().remove()
    for ax in axes[len(panels) :]:
        ax.remove()
    if handles:
        entry_width = 0.55 + 0.075 * max(map(len, handles))  # inches
        fit = int(figure.get_figwidth() / entry_width)
        figure.legend(
            handles.values(),
            handles,
            loc="outside lower center",
            ncols=max(min(fit, len(handles)), 1),
            frameon=False,
            fontsize=9,
        )
    # The empty second line of the title reserves space for the subtitle.
    height = figure.get_figheight()
    figure.suptitle(f"{title}\n", x=0.01, ha="left", fontsize=13, fontweight="bold")
    figure.text(0.01, 0.98 - 0.26 / height, subtitle, va="top", fontsize=8, color="#555555")
    return _write(figure, path)


def new_figure(width, height, title):
    """An empty figure with a title. The sizes are in inches."""
    # pyplot would keep global state and look for a window system.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    return figure


def _tidy(ax):
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


def _write(figure, path):
    from PIL import Image

    full, content = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=150)
    # A palette of 256 colours takes a quarter of the bytes and looks the same.
    Image.open(full).convert("RGB").quantize(256).save(content, "png", optimize=True)
    write_whole(path, content.getvalue())
    return path
