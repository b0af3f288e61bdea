"""Claims on depth."""

from __future__ import annotations

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import StudyTables, steps_by, within
from sweeps.harness.claims.verdicts import NOT_REPRODUCED, REPRODUCED, Finding


def plain_steps_grow(tables: StudyTables) -> Finding:
    """1. Reproduced: median steps grow with every added layer. Depends: the deepest net needs more
    than the shallowest, but not every layer adds."""
    medians, words = steps_by(tables, "depth", batch_norm=False)
    adds = medians.to_numpy()[1:] > medians.to_numpy()[:-1]  # no differences of infinities
    if adds.all():
        return Finding(words, REPRODUCED)
    if medians.iloc[-1] <= medians.iloc[0]:
        return Finding(words, NOT_REPRODUCED)
    depths = list(medians.index)
    stalls = [f"from {depths[i]} to {depths[i + 1]}" for i in np.flatnonzero(~adds)]
    return Finding(words, f"depends on the layer: no growth {', '.join(stalls)}")


def batch_norm_steps_stay(tables: StudyTables) -> Finding:
    """2. Reproduced: the largest median over depths is at most 1.5 times the smallest. Depends: at
    most 1.5 times that of the shallowest net, though not of the smallest."""
    medians, words = steps_by(tables, "depth", batch_norm=True)
    if within(medians.max(), 1.5 * medians.min()):
        return Finding(words, REPRODUCED)
    if within(medians.max(), 1.5 * medians.iloc[0]):
        least = medians.idxmin()
        return Finding(
            words,
            f"depends on the depth to compare with: at most {medians.max() / medians.iloc[0]:.2g} "
            f"times the steps at {medians.index[0]}, but {medians.max() / medians.min():.2g} times "
            f"those at {least}",
        )
    return Finding(words, NOT_REPRODUCED)


CLAIMS = {
    1: Claim(
        "Plain: steps to 90% grow with every added layer",
        "Rawles 2018",
        plain_steps_grow,
    ),
    2: Claim(
        "Batch norm: they are nearly constant",
        "Rawles 2018",
        batch_norm_steps_stay,
    ),
}
