"""The claim about dropout and L2."""

from __future__ import annotations

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import check, difference, statistic
from sweeps.harness.claims.evidence import StudyTables, under
from sweeps.harness.claims.verdicts import Finding, UndecidedError, all_parts
from sweeps.harness.results import intervals
from sweeps.harness.trial import arm_name


def regularization_matters_less(tables: StudyTables) -> Finding:
    """Claim 20, from the median accuracies of each setting.

    The gap is training accuracy minus test accuracy, without dropout and L2. The effect of dropout
    and L2 is the range of test accuracies over their settings.

    Reproduced: with batch norm, both the gap and the effect are smaller.
    Depends on the part: only one of the two is smaller.
    Not reproduced: neither is smaller.
    """
    frame = tables.recorded("evaluation", ("dropout", "l2"), "data", "accuracy")
    frame = frame[frame.step == frame.step.max()].fillna({"dropout": 0.0, "l2": 0.0})
    keys = ["batch_norm", "dropout", "l2", "seed"]
    wide = 100 * frame.pivot(index=keys, columns="data", values="accuracy")
    wide["gap"] = wide.train - wide.test
    gaps, tests = {}, {}
    for arm in (False, True):
        of_arm = under(wide, arm)
        settings = {key: rows.droplevel([0, 1]) for key, rows in of_arm.groupby(["dropout", "l2"])}
        if (0.0, 0.0) not in settings:
            raise UndecidedError("there are no runs without dropout and L2")
        gaps[arm] = settings[0.0, 0.0].gap
        tests[arm] = [rows.test for rows in settings.values()]
    plain = len(tests[False])
    effects = {arm: statistic(_range, *tests[arm]) for arm in (False, True)}
    less = statistic(
        lambda *m: _range(*m[plain:]) - _range(*m[:plain]), *tests[False], *tests[True]
    )
    checks = {
        "the gap is smaller": check(difference(gaps[True], gaps[False]), "below", 0, ".2f"),
        "dropout and L2 change the accuracy less": check(less, "below", 0, ".2f"),
    }
    gap, effect = (each.number for each in checks.values())
    measured = (
        f"with batch norm minus without, the gap changes by {gap} points, and the effect of "
        f"dropout and L2 on test accuracy by {effect} points"
    )
    rows = [
        {
            "": arm_name(arm),
            "Gap without dropout and L2, points": intervals.of_median(gaps[arm]).shown(".2f"),
            "Effect of dropout and L2, points": effects[arm].shown(".2f"),
        }
        for arm in (False, True)
    ]
    return Finding(measured, all_parts(checks), rows)


def _range(*medians):
    return np.max(medians, axis=0) - np.min(medians, axis=0)


CLAIMS = {
    20: Claim(
        "With batch norm, dropout and L2 matter less, and the gap between training and test "
        "accuracy without them is smaller",
        "Ioffe & Szegedy 2015",
        regularization_matters_less,
    ),
}
