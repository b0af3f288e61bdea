"""Claims about depth."""

from __future__ import annotations

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import StudyTables, steps_by, within
from sweeps.harness.claims.verdicts import NOT_REPRODUCED, REPRODUCED, Finding
from sweeps.harness.claims.wording import layers, listed

_NEARLY = 1.5  # largest ratio of steps that counts as nearly the same


def plain_steps_grow(tables: StudyTables) -> Finding:
    """Claim 1, from the median steps to the target at each depth, without batch norm.

    Reproduced: every added layer takes more steps.
    Depends on the layer: the deepest network needs more steps than the shallowest, but some of the
        added layers take no more steps.
    Not reproduced: the deepest network needs no more steps than the shallowest.
    """
    medians, words = _steps_by_depth(tables, batch_norm=False)
    adds = medians.to_numpy()[1:] > medians.to_numpy()[:-1]  # no differences of infinities
    if adds.all():
        return Finding(words, REPRODUCED)
    if medians.iloc[-1] <= medians.iloc[0]:
        return Finding(words, NOT_REPRODUCED)
    depths = list(medians.index)
    stalls = [f"from {depths[i]} to {depths[i + 1]}" for i in np.flatnonzero(~adds)]
    return Finding(words, f"depends on the layer: the steps do not grow {listed(stalls)} layers")


def batch_norm_steps_stay(tables: StudyTables) -> Finding:
    """Claim 2, from the median steps to the target at each depth, with batch norm.

    Reproduced: the largest median is at most 1.5 times the smallest.
    Depends on the baseline depth: the largest median is more than 1.5 times the smallest, but at
        most 1.5 times the shallowest network's.
    Not reproduced: the largest median is more than 1.5 times the shallowest network's, or infinite.
    """
    medians, words = _steps_by_depth(tables, batch_norm=True)
    words += f"; at most {_NEARLY:g} times as many count as nearly the same"
    if within(medians.max(), _NEARLY * medians.min()):
        return Finding(words, REPRODUCED)
    if within(medians.max(), _NEARLY * medians.iloc[0]):
        most, least = medians.index[medians == medians.max()].max(), medians.idxmin()
        return Finding(
            words,
            f"depends on the baseline depth: {layers(most)} need "
            f"{medians.max() / medians.iloc[0]:.2g} times the steps of {layers(medians.index[0])}, "
            f"but {medians.max() / medians.min():.2g} times the steps of {layers(least)}",
        )
    return Finding(words, NOT_REPRODUCED)


def _steps_by_depth(tables, *, batch_norm):
    """The median steps at each depth, as numbers and in words."""
    medians, words = steps_by(tables, "depth", batch_norm=batch_norm)
    return medians, f"median steps by number of hidden layers: {words}"


CLAIMS = {
    1: Claim(
        "Without batch norm, steps to 90% accuracy grow with every added layer",
        "Rawles 2018",
        plain_steps_grow,
        needs=lambda trial: not trial.batch_norm,
    ),
    2: Claim(
        "With batch norm, steps to 90% accuracy are nearly the same at every depth",
        "Rawles 2018",
        batch_norm_steps_stay,
        needs=lambda trial: trial.batch_norm,
    ),
}
