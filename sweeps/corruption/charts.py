"""The charts of the corruption study."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sweeps.corruption.measures import (
    AFTER,
    BEFORE,
    KINDS,
    MIDDLE,
    PLAIN,
    by_network,
    with_settings,
)
from sweeps.harness import charts
from sweeps.harness.charts import looks, spreads

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sweeps.harness.results.tables import Tables

_SIDE = 28  # pixels
_LOOKS = {
    PLAIN: looks.LOOKS[0],
    BEFORE: looks.LOOKS[1],
    AFTER: looks.LOOKS[3] | {"linestyle": "-"},
}


def by_strength(tables: Tables, path: Path) -> Path:
    """Draws accuracy by strength, one panel per corruption, with example images above the lines."""
    rows = with_settings(tables.recorded["corruption"], tables.trials)
    examples = tables.recorded["examples"].drop_duplicates(["corruption", "strength"])
    networks = by_network(rows)
    title, subtitle = "Accuracy on corrupted images", charts.settings(tables.trials)
    if rows.images.max():
        title += ", before and after recalibration"
        subtitle += f" · recalibrated on {rows.images.max():,} images"

    def draw(kind, ax):
        for name, found in networks.items():
            chosen = found[found.corruption.isin([kind, "none"])]
            _line(ax, chosen.accuracy, chosen.strength, name, _LOOKS[name])
        _strip(ax, examples[examples.corruption.isin([kind, "none"])])
        ax.set_xticks(range(6), ["clean", *range(1, 6)])
        ax.set_xlabel("strength of the corruption")
        ax.set_ylabel("accuracy on corrupted test images")
        return ax

    return charts.save_panels(
        path,
        {kind: functools.partial(draw, kind) for kind in KINDS},
        title,
        subtitle,
        columns=2,
        size=(4.2, 3.5),
    )


def by_images(tables: Tables, path: Path) -> list[Path]:
    """Draws accuracy by the number of images, if there are networks with batch norm."""
    rows = with_settings(tables.recorded["corruption"], tables.trials)
    rows = rows[rows.batch_norm & (rows.strength == MIDDLE)]
    if rows.empty:
        return []

    def draw(kind, ax):
        found = rows[rows.corruption == kind]
        after, before = found[found.images > 0], found[found.images == 0]
        _line(ax, after.accuracy, after.images, AFTER, _LOOKS[AFTER])
        look = {"color": _LOOKS[BEFORE]["color"], "linestyle": "--", "lw": 2}
        ax.axhline(before.accuracy.median(), label=f"{BEFORE}, not recalibrated (median)", **look)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.set_ylim(0, 1)
        ax.set_xlabel("images for recalibration")
        ax.set_ylabel("accuracy on corrupted test images")
        return ax

    return [
        charts.save_panels(
            path,
            {kind: functools.partial(draw, kind) for kind in KINDS},
            "Accuracy on corrupted images, by the number of images for recalibration",
            f"{charts.settings(tables.trials[tables.trials.batch_norm])} · strength {MIDDLE}",
            columns=2,
            size=(4.2, 2.8),
        )
    ]


def _line(ax, values, places, name, look):
    """Draws medians over seeds as a line with markers, and their intervals as a band."""
    found = spreads.medians(values, places)
    wide = spreads.draw_band(ax, found, look["color"])
    medians = [each.estimate for each in found.values()]
    label = f"{name} (median, {spreads.NAME})" if wide else f"{name} (median)"
    ax.plot([*found], medians, lw=2, markersize=5, label=label, **look)


def _strip(ax: Axes, examples: pd.DataFrame) -> None:
    """Draws the example image of each strength above its place on the horizontal axis."""
    ax.set_xlim(-0.5, 5.5)
    ax.set_ylim(0, 1.28)
    ax.set_yticks(np.arange(0, 1.1, 0.2))
    for row in examples.itertuples():
        pixels = np.frombuffer(bytes.fromhex(row.pixels), np.uint8).reshape(_SIDE, _SIDE)
        inset = ax.inset_axes((row.strength - 0.43, 1.04, 0.86, 0.24), transform=ax.transData)
        inset.imshow(pixels, cmap="gray", vmin=0, vmax=255)
        inset.set_axis_off()
