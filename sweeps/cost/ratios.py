"""From samples of contenders that took turns to rows of a table, and from rows to a summary.

Ratios are taken round by round, and then the median; so are their quartiles.
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
    **columns: Any,
) -> list[dict[str, Any]]:
    """A row a contender.

    Args:
        samples: (rounds,) for each mode and contender.
        unit: Of the `median_` column.
        scale: From the samples' unit to it.
        over: Contenders to divide by: those of the same mode, or, where one of the two has no
            such mode (PyTorch is neither graph nor XLA), that of graph mode or the only one.
        columns: What all rows have in front.
    """
    made = []
    for (mode, contender), taken in samples.items():
        row = {**columns, "mode": mode, "contender": contender}
        row |= _quartiles(taken * scale, (f"median_{unit}", "q1", "q3"))
        for other in over:
            key = _same_mode(samples, mode, other)
            ratios = taken / samples[key] if key else np.array([np.nan])
            row |= _quartiles(ratios, (f"over_{other}", f"over_{other}_q1", f"over_{other}_q3"))
        made.append({**row, "rounds": len(taken)})
    return made


def geometric_mean(ratios: pd.Series) -> float:
    """The mean of ratios, in which twice and half cancel."""
    return float(np.exp(np.log(ratios.to_numpy(float)).mean()))


def summary(frame: pd.DataFrame, contender: str, over: str, by: list[str]) -> pd.DataFrame:
    """How many times another's a contender takes: geometric mean, smallest and largest, as texts.

    Args:
        frame: Rows of `rows`.
        contender: Whose multiples.
        over: Of what they are multiples.
        by: Columns to tell apart; "rank", of a layer's input, may be among them.
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
    """The rows that belong in one chart, with their backend, if they have one, mode and dtype.

    What has another mode than Keras's layer (PyTorch, the copies) goes with graph mode, as its
    multiples are of that.
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
