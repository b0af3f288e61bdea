"""The charts of the variance-shift study."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sweeps.harness import charts
from sweeps.harness.charts import looks
from sweeps.harness.charts.facets import Series
from sweeps.variance_shift import ratios

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sweeps.harness.results.tables import Tables

_DOTS = 600  # per panel and keep rate; more would hide each other
_LABELS = {
    "moving averages": "moving averages from training",
    "recalibrated": "recalibrated without dropout",
    "as in training": "as in training: with dropout, statistics of the batch",
}


def measured_by_predicted(tables: Tables, path: Path) -> Path:
    """Draws each unit's measured ratio against the predicted one: first, middle and last layer."""
    units = ratios.of_units(tables.recorded["variances"], tables.trials)
    last = units.layer.max()
    panels = {
        f"hidden layer {layer}": functools.partial(_units, units[units.layer == layer])
        for layer in sorted({1, (last + 1) // 2, last})
    }
    return charts.save_panels(
        path,
        panels,
        "Variance in inference over variance in training, by unit",
        charts.settings(tables.trials),
        columns=3,
        size=(3.4, 3.4),
    )


def _units(units: pd.DataFrame, ax: Axes) -> Axes:
    """Draws a dot per unit, coloured by keep rate, and the line where the formula holds."""
    from matplotlib import colormaps

    rates = sorted(units.keep_rate.unique())
    for number, rate in enumerate(rates):
        dots = units[units.keep_rate == rate]
        dots = dots.sample(min(_DOTS, len(dots)), random_state=0)
        color = colormaps["viridis"](number / max(len(rates) - 0.9, 1))
        ax.scatter(dots.predicted, dots.measured, s=6, lw=0, alpha=0.6, color=color)
        ax.scatter([], [], s=40, color=color, label=f"keep rate {rate:g}")  # for the legend
    ax.axline((0, 0), (1, 1), color="#777777", linestyle="--", linewidth=1, label="formula")
    ax.set_xlim(0, 1.1)
    ax.set_ylim(0, 1.1 * units.measured.quantile(0.999))
    ax.set_xlabel("predicted ratio")
    ax.set_ylabel("measured ratio")
    return ax


def accuracy_by_keep_rate(tables: Tables, path: Path) -> Path:
    """Draws test accuracy against the keep rate, before and after recalibration."""
    found = tables.recorded["accuracies"].merge(tables.trials, on="trial_id")
    shown = dict(zip(_LABELS, looks.of_series(list(_LABELS)), strict=True))
    series = [
        Series(label, found[found.inference == name], shown[name])
        for name, label in _LABELS.items()
    ]

    def draw(ax):
        ax = charts.value(series, ax, "keep_rate", "accuracy")
        ax.set_xlabel("keep rate of dropout")
        ax.set_ylabel("accuracy on the test set")
        ax.set_ylim(top=1)
        return ax

    title = "Test accuracy with dropout before batch norm, by keep rate"
    return charts.save(path, draw, title, charts.settings(tables.trials))
