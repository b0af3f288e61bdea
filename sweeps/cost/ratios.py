"""Table rows from samples, and summaries of those rows.

A ratio is taken within each round. Its median and quartiles are over rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def rows(
    samples: Mapping[tuple[str, str], np.ndarray],
    unit: str,
    scale: float,
    over: tuple[str, ...],
    over_modes: tuple[str, ...] = (),
    **columns: Any,
) -> list[dict[str, Any]]:
    """One row per mode and contender.

    Args:
        samples: Samples of each mode and contender, one per round.
        unit: Unit of the table, which names the column of medians.
        scale: Factor that converts samples to `unit`.
        over: Baselines to divide by. A contender is divided by the baseline in its own mode. If
            the baseline does not run in that mode, its graph mode is used, or else its only mode.
            PyTorch, for example, runs neither in graph mode nor with XLA.
        over_modes: Modes to divide by. A contender is divided by itself in that mode.
        columns: Leading columns, the same in all rows.
    """
    made = []
    for (mode, contender), taken in samples.items():
        row = {**columns, "mode": mode, "contender": contender}
        row |= _quartiles(taken * scale, (f"median_{unit}", "q1", "q3"))
        for other in over:
            key = _same_mode(samples, mode, other)
            ratios = taken / samples[key] if key else np.array([np.nan])
            row |= _quartiles(ratios, (f"over_{other}", f"over_{other}_q1", f"over_{other}_q3"))
        for other in over_modes:
            ratios = taken / samples[other, contender]
            row |= _quartiles(ratios, (f"over_{other}", f"over_{other}_q1", f"over_{other}_q3"))
        made.append({**row, "rounds": len(taken)})
    return made


def geometric_mean(ratios: pd.Series) -> float:
    """The geometric mean, in which ratios of 2 and 1/2 cancel."""
    return float(np.exp(np.log(ratios.to_numpy(float)).mean()))


def summary(frame: pd.DataFrame, contender: str, over: str, by: list[str]) -> pd.DataFrame:
    """A contender's ratios to a baseline, as text: geometric mean, smallest and largest.

    Args:
        frame: Rows made by `rows`.
        contender: Contender to report.
        over: Baseline to divide by.
        by: Columns to group by. "rank" is the rank of a layer's input.
    """
    column = f"over_{over}"
    frame = frame.assign(rank=frame["size"].str.count("x") + 1)
    chosen = frame[(frame.contender == contender) & frame[column].notna()]
    made = []
    for key, group in chosen.groupby(by, sort=False):
        row = dict(zip(by, key, strict=True)) | {"mean": f"{geometric_mean(group[column]):.2f}"}
        for title, n in (("best", group[column].idxmin()), ("worst", group[column].idxmax())):
            row |= {title: f"{group[column][n]:.2f}", f"{title} at": group["size"][n]}
        made.append({**row, "of": len(group)})
    return pd.DataFrame(made)


def by_mode(frame: pd.DataFrame) -> list[tuple[list[str], pd.DataFrame]]:
    """The rows of each chart, with the chart's backend (if the table has one), mode and dtype.

    Contenders in a mode that Keras's layer does not have (PyTorch, the copies) are in graph mode's
    chart, because their ratios are to Keras's layer in graph mode.
    """
    modes = frame["mode"][frame.contender == "keras"]
    shown = frame["mode"].where(frame["mode"].isin(modes), "graph")
    backend = ["backend"] if "backend" in frame else []
    return [(list(key), g) for key, g in frame.groupby([*backend, shown, "dtype"], sort=False)]


def _quartiles(values, names):
    return dict(zip(names, np.quantile(values, [0.5, 0.25, 0.75]).tolist(), strict=True))


def _same_mode(samples, mode, contender):
    keys = [key for key in samples if key[1] == contender]
    same = [key for key in keys if key[0] == mode]
    graph = [key for key in keys if key[0] == "graph"]
    return next(iter(same or graph or keys), None)
