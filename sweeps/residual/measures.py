"""Reads accuracies and learning rates from the study's trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

NAMES = {"plain": "plain", "batch_norm": "batch norm", "skip_init": "SkipInit"}


def by_branch(trials: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The finished trials of each kind of branch, in the order of `NAMES`."""
    finished = trials[trials.status != "failed"]
    return {name: finished[finished.branch == name] for name in NAMES if name in {*finished.branch}}


def accuracies(trials: pd.DataFrame) -> pd.Series:
    """The final accuracies of trials with one setting, by seed. A diverged run counts as 0."""
    values = trials.final_accuracy.astype("Float64").fillna(0.0).to_numpy(float)
    return trials.assign(found=values).set_index("seed").found.sort_index()


def by_rate(trials: pd.DataFrame) -> pd.DataFrame:
    """The final accuracies with one column per learning rate and one row per seed."""
    import pandas as pd

    columns = {rate: accuracies(found) for rate, found in trials.groupby("learning_rate")}
    return pd.DataFrame(columns)


def best_rate(trials: pd.DataFrame) -> float:
    """The learning rate with the highest median accuracy. The lowest one if there are several."""
    return float(by_rate(trials).median().idxmax())
