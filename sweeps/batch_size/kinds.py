"""The kinds of normalization that the batch_size study compares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweeps.harness.trial import arm_name

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

PLAIN, BATCH_NORM = arm_name(False), arm_name(True)
RENORM, GHOST_BATCHES = f"{BATCH_NORM}, renorm", f"{BATCH_NORM}, ghost batches"
GROUP_NORM = "group norm"


def of_large_batches(trials: pd.DataFrame) -> pd.Series:
    """Whether each trial belongs to the comparison of large batches with ghost batches.

    Only those trials record their training error.
    """
    return trials.record.astype(object).fillna("").ne("")


def kinds(trials: pd.DataFrame) -> np.ndarray:
    """Returns the name of each trial's kind of normalization."""
    import numpy as np

    return np.select(
        [
            trials.group_norm.notna(),
            ~trials.batch_norm.astype(bool),
            trials.bn_renorm.eq(True).fillna(False).astype(bool),
            trials.bn_virtual_batch_size.notna(),
        ],
        [GROUP_NORM, PLAIN, RENORM, GHOST_BATCHES],
        BATCH_NORM,
    )
