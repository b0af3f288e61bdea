"""Reads the accuracies on corrupted images from the study's tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("noise", "blur", "contrast", "brightness")
MIDDLE = 3  # strength at which the number of images varies
BEFORE, AFTER, PLAIN = "batch norm", "batch norm, recalibrated", "plain"


def with_settings(found: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """The table of the recorder "corruption", with the columns `seed` and `batch_norm`."""
    return found.merge(trials[["trial_id", "seed", "batch_norm"]], on="trial_id")


def by_network(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each network, by its name: `PLAIN`, `BEFORE` and `AFTER`.

    The last one is recalibrated on the largest number of images. A network without rows is left
    out.

    Args:
        rows: Rows with `batch_norm` and `images`.
    """
    most = rows.images.max()
    selections = {
        PLAIN: rows[~rows.batch_norm],
        BEFORE: rows[rows.batch_norm & (rows.images == 0)],
        AFTER: rows[rows.batch_norm & (rows.images == most) & (rows.images > 0)],
    }
    return {name: chosen for name, chosen in selections.items() if len(chosen)}


def mean_accuracy(rows: pd.DataFrame, *kinds: str) -> pd.Series:
    """The mean accuracy over all strengths of these corruptions, by seed."""
    return rows[rows.corruption.isin(kinds)].groupby("seed").accuracy.mean()
