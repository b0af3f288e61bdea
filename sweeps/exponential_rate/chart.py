"""The chart of the exponential-rate study."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.harness import charts
from sweeps.harness.charts import looks, spreads

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from sweeps.harness.results.tables import Tables

_LABELS = {
    "rounding": "weight decay again, weights one rounding error away",
    "exponential": "exponential rate",
    "exponent -2t": "control: exponent \N{MINUS SIGN}2t",
    "constant": "control: constant rate",
}
_LOOKS = {
    # The rounding level is a broad line behind the others, because the claim's line covers it.
    "rounding": {"color": looks.LOOKS[4]["color"], "lw": 6, "alpha": 0.25},
    "exponential": {**looks.LOOKS[1], "lw": 2},
    "exponent -2t": {**looks.LOOKS[2], "lw": 2},
    "constant": {**looks.LOOKS[3], "lw": 2},
}


def differences_by_step(tables: Tables, path: Path) -> Path:
    """Draws the largest difference of the logits by step, with a panel per learning rate."""
    trials = tables.trials
    found = tables.recorded["difference"].merge(
        trials[["trial_id", "learning_rate", "schedule"]], on="trial_id"
    )
    panels = {
        f"rate {rate:g}": functools.partial(_panel, rows)
        for rate, rows in found.groupby("learning_rate")
    }
    decays = " and ".join(f"{each:g}" for each in sorted(trials.weight_decay.unique()))
    return charts.save_panels(
        path,
        panels,
        "Difference of the logits from those of weight decay, by step",
        f"{charts.settings(trials)} · weight decay {decays}",
        columns=2,
        size=(4, 3.6),
    )


def _panel(rows: pd.DataFrame, ax: Axes) -> Axes:
    """Draws the median over seeds for each schedule, with its interval as a band."""
    rows = rows[rows.difference > 0]  # equal weights give equal logits, which have no logarithm
    for name, label in _LABELS.items():
        chosen = rows[rows.schedule == name]
        if chosen.empty:
            continue
        found = spreads.medians(chosen.difference, chosen.step)
        look = _LOOKS[name]
        wide = name != "rounding" and spreads.draw_band(ax, found, str(look["color"]))
        ax.plot(
            [*found],
            [each.estimate for each in found.values()],
            label=f"{label} (median{f', {spreads.NAME}' if wide else ''})",
            markersize=4,
            markevery=looks.marker_every(len(found)),
            **look,
        )
    ax.set_yscale("log")
    ax.set_xlabel("training step")
    ax.set_ylabel("largest difference of a logit")
    return ax
