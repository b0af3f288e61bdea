"""Tables of the tuned study made by hand: a selection, and a report with other seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import claim_tables
import pandas as pd

RATES = (0.001, 0.01, 0.1)
SELECTING, REPORTING = range(6), range(6, 16)
Steps = float | Sequence[float | None] | None  # of all seeds, or of each; None for a miss


def trials(*rows: dict[str, Any]) -> pd.DataFrame:
    """The trials as a table."""
    return claim_tables.trials(*rows, seeds=1)


def of_rates(
    depth: int,
    batch_norm: bool,
    steps: Mapping[float, Steps],
    *,
    evaluated_on: str = "validation",
    seeds: Iterable[int] | None = None,
    **fields: Any,
) -> list[dict[str, Any]]:
    """The trials of a network with these steps at each rate."""
    seeds = list(seeds or (SELECTING if evaluated_on == "validation" else REPORTING))
    return [
        claim_tables.trial(
            depth=depth,
            batch_norm=batch_norm,
            learning_rate=rate,
            evaluated_on=evaluated_on,
            steps_to_target=each[number] if isinstance(each, list) else each,
            **{"seed": seed, **fields},
        )
        for rate, each in steps.items()
        for number, seed in enumerate(seeds)
    ]


def network(
    depth: int,
    batch_norm: bool,
    selecting: Mapping[float, Steps],
    reporting: Mapping[float, Steps],
) -> list[dict[str, Any]]:
    """The trials of a network in both parts of the study."""
    return [
        *of_rates(depth, batch_norm, selecting),
        *of_rates(depth, batch_norm, reporting, evaluated_on="test"),
    ]
