"""From samples of contenders that took turns to rows of a table, and from rows to a summary.

Ratios are taken round by round, and then the median; so are their quartiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

Key = tuple[str, str]  # mode and contender


def rows(
    samples: Mapping[Key, np.ndarray],
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
    """Geometric mean, smallest and largest ratio of a contender's time to another's.

    Args:
        frame: Rows of `rows`.
        contender: Whose ratios.
        over: Of what they are multiples.
        by: Columns to tell apart.
    """
    column = f"over_{over}"
    chosen = frame[(frame.contender == contender) & frame[column].notna()]
    made = []
    for key, group in chosen.groupby(by, sort=False):
        best, worst = group.loc[group[column].idxmin()], group.loc[group[column].idxmax()]
        made.append(
            {
                **dict(zip(by, key, strict=True)),
                f"{contender} / {over}": f"{geometric_mean(group[column]):.2f}",
                "best": f"{best[column]:.2f} ({best['size']})",
                "worst": f"{worst[column]:.2f} ({worst['size']})",
                "of": len(group),
            }
        )
    return pd.DataFrame(made)


def _quartiles(values, names):
    return dict(zip(names, np.quantile(values, [0.5, 0.25, 0.75]).tolist(), strict=True))


def _same_mode(samples, mode, contender):
    keys = [key for key in samples if key[1] == contender]
    same = [key for key in keys if key[0] == mode]
    graph = [key for key in keys if key[0] == "graph"]
    return next(iter(same or graph or keys), None)
