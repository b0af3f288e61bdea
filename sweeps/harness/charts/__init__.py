"""Draws charts from tables: (frame, ax) -> ax. Nothing here trains or reads files."""

from sweeps.harness.charts.bars import bars, bars_of_seeds
from sweeps.harness.charts.by_setting import steps_to_target, value
from sweeps.harness.charts.curves import (
    accuracy,
    by_epoch,
    errors_by_step,
    fits,
    percentiles,
    statistics,
)
from sweeps.harness.charts.distributions import save_distributions
from sweeps.harness.charts.facets import Series, facets, series
from sweeps.harness.charts.figures import depths, save, save_panels, settings
from sweeps.harness.charts.layers import (
    animate_histograms,
    gradients,
    histograms,
)

__all__ = [
    "Series",
    "accuracy",
    "animate_histograms",
    "bars",
    "bars_of_seeds",
    "by_epoch",
    "depths",
    "errors_by_step",
    "facets",
    "fits",
    "gradients",
    "histograms",
    "percentiles",
    "save",
    "save_distributions",
    "save_panels",
    "series",
    "settings",
    "statistics",
    "steps_to_target",
    "value",
]
