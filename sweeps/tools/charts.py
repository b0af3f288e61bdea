"""The chart of inference times before and after folding."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sweeps.harness import charts

_BARS = {
    "to_keras": "keras.layers.BatchNormalization",
    "recalibrated": "kerasbn.BatchNorm",
    "folded": "folded",
}  # stage: label


def draw(stages: pd.DataFrame, folder: Path) -> Path:
    """Draws each network's inference time with either layer, relative to the folded network."""
    shown = stages[stages.stage.isin(_BARS)]
    table = shown.pivot(index="network", columns="stage", values="time_over_folded")
    table = table.loc[shown.network.unique(), list(_BARS)].rename(columns=_BARS)

    def bars(ax):
        return charts.bars(table, ax, "time of an inference pass (folded = 1)")

    return charts.save(
        folder / "inference.png",
        bars,
        "Inference time before and after folding",
        "graph mode, medians, float32",
    )
