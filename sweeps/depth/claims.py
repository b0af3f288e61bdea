"""Claims about depth."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import check, ratio, statistic
from sweeps.harness.claims.evidence import StudyTables, in_steps, steps, steps_by
from sweeps.harness.claims.verdicts import NOT_REPRODUCED, REPRODUCED, Finding, undecided
from sweeps.harness.claims.wording import layers, listed

_NEARLY = 1.5  # largest ratio of steps that counts as nearly the same


def plain_steps_grow(tables: StudyTables) -> Finding:
    """Claim 1, from the median steps to the target at each depth, without batch norm.

    Reproduced: every added layer takes more steps: the ratio of the medians is above 1.
    Depends on the layer: the deepest network needs more steps than the shallowest, but some of the
        added layers take no more steps.
    Not reproduced: the deepest network needs no more steps than the shallowest.
    """
    groups = steps_by(tables, "depth", batch_norm=False)
    found = {depth: steps(group) for depth, group in groups.items()}
    checks = {
        f"{layers(deep)} instead of {shallow}": check(
            ratio(found[deep], found[shallow]), "above", 1
        )
        for shallow, deep in pairwise(found)
    }
    first, last = min(found), max(found)
    whole = check(ratio(found[last], found[first]), "above", 1)
    measured = f"{layers(last)} need {whole.number} times the steps of {layers(first)}"
    rows = _medians(groups)
    for row, each in zip(rows[1:], checks.values(), strict=True):
        row["Steps over those of one layer less (above 1)"] = each.number
    if whole.holds is False:
        return Finding(measured, NOT_REPRODUCED, rows)
    stalls = [name for name, each in checks.items() if each.holds is False]
    if stalls and whole.holds:
        verdict = f"depends on the layer: the steps do not grow with {listed(stalls)}"
        return Finding(measured, verdict, rows)
    if all(each.holds for each in checks.values()):
        return Finding(measured, REPRODUCED, rows)
    overall = {f"{layers(last)} instead of {layers(first)}": whole}
    return Finding(measured, undecided(overall | checks), rows)


def batch_norm_steps_stay(tables: StudyTables) -> Finding:
    """Claim 2, from the median steps to the target at each depth, with batch norm.

    Reproduced: the largest median is at most 1.5 times the smallest.
    Depends on the baseline depth: the largest median is more than 1.5 times the smallest, but at
        most 1.5 times the shallowest network's.
    Not reproduced: the largest median is more than 1.5 times the shallowest network's, or infinite.
    """
    groups = steps_by(tables, "depth", batch_norm=True)
    found = [steps(group) for group in groups.values()]
    over_least = statistic(lambda *m: np.max(m, axis=0) / np.min(m, axis=0), *found)
    over_first = statistic(lambda *m: np.max(m, axis=0) / m[0], *found)
    least, first = (check(each, "at most", _NEARLY) for each in (over_least, over_first))
    shallowest = layers(min(groups))
    measured = (
        f"the largest median is {least.number} times the smallest, and {first.number} times that "
        f"of {shallowest}; at most {_NEARLY:g} times counts as nearly the same"
    )
    rows = _medians(groups)
    if least.holds:
        return Finding(measured, REPRODUCED, rows)
    if least.holds is None:
        return Finding(measured, undecided({"the smallest median": least}), rows)
    if first.holds is None:
        return Finding(measured, undecided({f"the median of {shallowest}": first}), rows)
    if first.holds:
        return Finding(
            measured,
            f"depends on the baseline depth: the slowest depth needs {first.number} times the "
            f"steps of {shallowest}, but {least.number} times those of the fastest depth",
            rows,
        )
    return Finding(measured, NOT_REPRODUCED, rows)


def _medians(groups):
    """A row for each depth with its median steps."""
    return [
        {"Hidden layers": str(depth), "Median steps": in_steps(group)}
        for depth, group in groups.items()
    ]


CLAIMS = {
    1: Claim(
        "Without batch norm, steps to the target accuracy grow with every added layer",
        "Rawles 2018",
        plain_steps_grow,
        needs=lambda trial: not trial.batch_norm,
        charts="steps_to_target",
    ),
    2: Claim(
        "With batch norm, steps to the target accuracy are nearly the same at every depth",
        "Rawles 2018",
        batch_norm_steps_stay,
        needs=lambda trial: trial.batch_norm,
        charts="steps_to_target",
    ),
}
