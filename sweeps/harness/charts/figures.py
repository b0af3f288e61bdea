"""Writes figures with one chart or several panels as PNG files, and makes their subtitles."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sweeps.harness.results import demonstrations
from sweeps.harness.results.store import write_whole
from sweeps.harness.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def settings(trials: pd.DataFrame) -> str:
    """The settings of a chart's trials, as text for its subtitle."""
    batches = _values(trials.batch_size)
    parts = [
        _values(trials.dataset),
        _values(trials.activation),
        f"{_values(trials.optimizer)} at {_values(trials.learning_rate)}",
        f"{'batches of' if ' ' in batches else 'batch'} {batches}",
    ]
    if trials.batch_norm.any():
        names = [name for name in ("momentum", "epsilon") if trials[f"bn_{name}"].notna().any()]
        options = ", ".join(f"{name} {_values(trials[f'bn_{name}'])}" for name in names)
        parts.append(f"batch norm: {options}" if options else "batch norm")
    seeds = trials.seed.nunique()
    return " · ".join([*parts, counted(seeds, "seed")])


def depths(trials: pd.DataFrame) -> str:
    """The depths of the trials' networks in words, such as "7 hidden layers"."""
    least, most = trials.depth.min(), trials.depth.max()
    depths = counted(most, "hidden layer")
    return depths if least == most else f"{least} to {depths}"


def _values(column):
    """The values of a setting in words: all of a few, and the range of many numbers."""
    values = list(column.dropna().sort_values().unique())
    words = [value if isinstance(value, str) else _short(value) for value in values]
    if len(words) > 4 and not isinstance(values[0], str):
        words = [f"{words[0]} to {words[-1]}"]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _short(number):
    """A number with four digits, but whole numbers with all of them."""
    return f"{number:g}" if number == int(number) else f"{number:.4g}"


def save(path: Path, draw: Callable[[Axes], Axes], title: str, subtitle: str) -> Path:
    """Draws one chart with a legend below it into a PNG file with 150 dots per inch.

    Args:
        path: Path of the PNG file.
        draw: Function of (axes). Draws the chart.
        title: Title of the figure.
        subtitle: Text below the title.

    Returns:
        The path of the file.
    """
    figure = new_figure(7.2, 4.6, title, marked(subtitle, path))
    ax = draw(figure.add_subplot())
    _tidy(ax)
    _legend(figure)
    return _write(figure, path)


def save_panels(
    path: Path,
    panels: Mapping[str, Callable[[Axes], Axes]],
    title: str,
    subtitle: str,
    *,
    columns: int,
    share: bool | str = True,
    size: tuple[float, float] = (3.6, 2.9),
) -> Path:
    """Draws panels, row by row, with one legend for all. A single one without a title fills all.

    Args:
        path: Path of the PNG file.
        panels: Functions of (axes), each of which draws a panel, by the panel's title.
        title: Title of the figure.
        subtitle: Text below the title.
        columns: Largest number of panels in a row.
        share: Whether all panels have the same axis limits. "row" shares the limits of the vertical
            axis within a row only.
        size: Width and height of a panel in inches.

    Returns:
        The path of the file.
    """
    if list(panels) == [""]:
        return save(path, panels[""], title, subtitle)
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width = max(size[0] * columns, 5.4)
    figure = new_figure(width, size[1] * rows + 1.0, title, marked(subtitle, path))
    axes = list(
        figure.subplots(rows, columns, sharex=bool(share), sharey=share, squeeze=False).flat
    )
    for number, (name, draw) in enumerate(panels.items()):
        ax = axes[number]
        draw(ax).set_title("\n".join(_wrapped(name, 0.82 * width / columns, 10)), fontsize=10)
        _tidy(ax)
        if share:
            lowest = number + columns >= len(panels)  # the lowest panel of its column
            ax.tick_params(labelbottom=lowest)
            ax.set_xlabel(ax.get_xlabel() if lowest else "")
            ax.set_ylabel(ax.get_ylabel() if number % columns == 0 else "")
    for ax in axes[len(panels) :]:
        ax.remove()
    _legend(figure)
    return _write(figure, path)


def _legend(figure):
    """Puts one legend for all axes below them."""
    handles: dict = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
        if ax.get_legend():
            ax.get_legend().remove()
    if not handles:
        return
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


def _unbroken(subtitle):
    """The subtitle with blanks that do not end a line, except between its parts."""
    return "\u00a0· ".join(part.replace(" ", "\u00a0") for part in subtitle.split(" · "))


def _wrapped(text, width, size):
    """Lines of a text of this font size that fit into this many inches."""
    columns = max(int(width / (0.0075 * size)), 1)
    return [line for each in text.split("\n") for line in textwrap.wrap(each, columns)]


def marked(text: str, path: Path) -> str:
    """The text, which begins with "demonstration" if the chart belongs to one."""
    return f"demonstration · {text}" if demonstrations.contains(path) else text


def new_figure(width: float, height: float, title: str, subtitle: str = "") -> Figure:
    """An empty figure with a title and, below it, a subtitle. The sizes are in inches."""
    # pyplot would keep global state and look for a window system.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    titles = _wrapped(title, width, 13)
    subtitles = [line.removesuffix("\u00a0·") for line in _wrapped(_unbroken(subtitle), width, 8)]
    # Empty lines reserve space for the smaller subtitle.
    space = "\n" * (-(-2 * len(subtitles) // 3))
    figure.suptitle("\n".join(titles) + space, x=0.01, ha="left", fontsize=13, fontweight="bold")
    top = 1 - (0.13 + 0.22 * len(titles)) / height
    figure.text(0.01, top, "\n".join(subtitles), va="top", fontsize=8, color="#555555")
    return figure


def level(ax: Axes, value: float, text: str = "", side: str = "right") -> None:
    """Draws a dashed line across the axes, with a text above its left or right end."""
    ax.axhline(value, color="#777777", linestyle="--", linewidth=1)
    ax.annotate(
        text,
        (0.99 if side == "right" else 0.01, value),
        xycoords=("axes fraction", "data"),
        xytext=(0, 6),
        textcoords="offset points",
        ha=side,
        color="#555555",
        fontsize=8,
    )


def _tidy(ax):
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


def _write(figure, path):
    from PIL import Image

    full, content = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=150)
    # A palette takes a third of the bytes. This method keeps the colours of thin lines apart.
    picture = Image.open(full).convert("RGB")
    picture = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
    picture.save(content, "png", optimize=True)
    write_whole(path, content.getvalue())
    return path
