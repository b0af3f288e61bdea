"""Names the parts of a network that train, and summarizes what the study records."""

from __future__ import annotations

import pandas as pd

# What trains, by the value of the option `trained`.
TRAINED = {
    "all": "all parameters",
    "batch_norm": "gamma and beta only",
    "output": "output layer only",
    "random": "as many random weights",
}
NETWORKS = {"dense": "three dense layers", "lenet": "LeNet"}
NEAR_ZERO = 0.01  # size of a gamma below which it is near 0


def at_end(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each run's last recording."""
    return rows[rows.step == rows.groupby("trial_id").step.transform("max")]


def near_zero(gammas: pd.DataFrame) -> pd.Series:
    """The share of a run's gammas that are near 0 at its end, by `trial_id`."""
    last = at_end(gammas)
    return (last.gamma.abs() < NEAR_ZERO).groupby(last.trial_id).mean()
