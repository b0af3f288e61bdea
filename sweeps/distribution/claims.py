"""Claims about the inputs of deep sigmoids."""

from __future__ import annotations

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import check, difference, ratio, sample
from sweeps.harness.claims.evidence import StudyTables, in_steps, pick, steps, under
from sweeps.harness.claims.verdicts import (
    NOT_REPRODUCED,
    REPRODUCED,
    Finding,
    UndecidedError,
    all_parts,
    undecided,
)
from sweeps.harness.results import intervals
from sweeps.harness.results.tables import target
from sweeps.harness.trial import arm_name

_IN_PLACE = 0.5  # largest ratio of drifts at which the percentiles stay in place


def higher_and_sooner(tables: StudyTables) -> Finding:
    """Claim 13, from the median final accuracy and the median steps to the target.

    Reproduced: with batch norm, the accuracy is higher and the steps are fewer.
    Depends on the part: only one of the two holds.
    Not reproduced: neither holds.
    """
    trials = tables.trials("final_accuracy", "steps_to_target")
    arms = [pick(trials, batch_norm=arm) for arm in (False, True)]
    plain, normed = (steps(arm) for arm in arms)
    if not np.isfinite([plain.median(), normed.median()]).any():
        raise UndecidedError("neither arm reaches the target")
    lead = difference(*(100 * sample(arm, "final_accuracy", blank=0.0) for arm in reversed(arms)))
    checks = {
        "the accuracy is higher": check(lead, "above", 0),
        "the steps are fewer": check(ratio(normed, plain), "below", 1),
    }
    measured = (
        f"with batch norm, the accuracy is {checks['the accuracy is higher'].number} points "
        f"higher, and the steps are {checks['the steps are fewer'].number} times those of plain "
        f"networks; batch norm is faster with probability "
        f"{intervals.probability_less(normed, plain):.2f}"
    )
    rows = [
        {
            "": arm_name(normed),
            "Median final accuracy": intervals.of_median(arm.final_accuracy).shown(".1%"),
            f"Median steps to {target(arm)}": in_steps(arm),
        }
        for normed, arm in zip((False, True), arms, strict=True)
    ]
    return Finding(measured, all_parts(checks), rows)


def percentiles_stay(tables: StudyTables) -> Finding:
    """Claim 14, from the median drift over seeds. A run's drift is the median over its units.

    The drift of a unit is the largest range over steps of its 15th, 50th and 85th percentiles,
    divided by the mean distance between the 15th and the 85th.

    Reproduced: batch norm drifts at most half as much as plain.
    Depends on the threshold: batch norm drifts less than plain, but more than half as much.
    Not reproduced: batch norm drifts at least as much as plain.
    """
    frame = tables.recorded("percentiles", (), "unit", "p15", "p50", "p85")
    frame["spread"] = frame.p85 - frame.p15
    units = frame.groupby(["batch_norm", "seed", "trial_id", "unit"])
    columns = ["p15", "p50", "p85"]
    drifts = (units[columns].max() - units[columns].min()).max(axis=1) / units.spread.mean()
    drift = drifts.groupby(["batch_norm", "seed", "trial_id"]).median().droplevel("trial_id")
    plain, normed = (under(drift, arm) for arm in (False, True))
    found = ratio(normed, plain)
    in_place, less = check(found, "at most", _IN_PLACE), check(found, "below", 1)
    measured = (
        f"with batch norm, the percentiles move {in_place.number} times as far as without; at most "
        f"{_IN_PLACE:g} times counts as in place"
    )
    rows = [
        {
            "": arm_name(arm),
            "Median drift, in spreads": intervals.of_median(each).shown(".2g"),
            "Runs": str(len(each)),
        }
        for arm, each in ((False, plain), (True, normed))
    ]
    if in_place.holds:
        return Finding(measured, REPRODUCED, rows)
    if in_place.holds is None or less.holds is None:
        checks = {"staying in place": in_place, "moving less": less}
        return Finding(measured, undecided(checks), rows)
    if less.holds:
        verdict = f"depends on the threshold: with batch norm, they move {less.number} times as far"
        return Finding(measured, verdict, rows)
    return Finding(measured, NOT_REPRODUCED, rows)


CLAIMS = {
    13: Claim(
        "With batch norm, a sigmoid network reaches higher test accuracy, and in fewer steps",
        "Ioffe & Szegedy 2015",
        higher_and_sooner,
        charts="accuracy_by_step",
    ),
    14: Claim(
        "Without batch norm, the percentiles of a sigmoid's input drift during training; with "
        "batch norm, they stay in place",
        "Ioffe & Szegedy 2015",
        percentiles_stay,
        charts="percentiles",
    ),
}
