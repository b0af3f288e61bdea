"""Summarizes what the noise study records: one number per run and recording."""

from __future__ import annotations

import pandas as pd


def ranges(landscape: pd.DataFrame) -> pd.DataFrame:
    """The smoothness of the loss along the gradient, one row per run and recorded step.

    Args:
        landscape: Rows with `trial_id`, `step`, `multiple`, `loss` and `gradient_change`.

    Returns:
        A table with the columns `trial_id` and `step`, and

        loss: Loss before the step along the gradient.
        loss_range: Largest minus smallest loss over the step sizes.
        gradient_change: Largest change of the gradient over the step sizes, in Euclidean norm.
    """
    by = ["trial_id", "step"]
    steps = landscape[landscape.multiple > 0].groupby(by)
    found = pd.DataFrame(
        {
            "loss": landscape[landscape.multiple == 0].groupby(by).loss.first(),
            "loss_range": steps.loss.max() - steps.loss.min(),
            "gradient_change": steps.gradient_change.max(),
        }
    )
    return found.reset_index()


def movements(percentiles: pd.DataFrame) -> pd.DataFrame:
    """How far the distributions of a run move, in units of their spread; medians over its units.

    The spread of a unit is the mean distance between its 15th and 85th percentiles.

    Args:
        percentiles: Rows with `trial_id`, `step`, `unit`, `p15`, `p50` and `p85`.

    Returns:
        A table with the index `trial_id` and the columns

        jump: Mean change from a training step to the next one, of the percentile that changes most.
        drift: Largest range over the whole run, of the percentile that ranges most.
    """
    ordered = percentiles.sort_values("step")
    columns, by = ["p15", "p50", "p85"], ["trial_id", "unit"]
    units = ordered.groupby(by)
    spread = (ordered.p85 - ordered.p15).groupby([ordered[name] for name in by]).mean()
    changes = units[columns].diff().abs().max(axis=1)
    changes = changes[units.step.diff() == 1]
    jump = changes.groupby([ordered[name] for name in by]).mean() / spread
    drift = (units[columns].max() - units[columns].min()).max(axis=1) / spread
    return pd.DataFrame({"jump": jump, "drift": drift}).groupby("trial_id").median()
