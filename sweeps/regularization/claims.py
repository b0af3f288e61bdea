"""The claim about dropout and L2."""

from __future__ import annotations

from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import StudyTables, under
from sweeps.harness.claims.verdicts import Finding, UndecidedError, all_parts


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
    keys = ["batch_norm", "dropout", "l2", "trial_id"]
    wide = frame.pivot(index=keys, columns="data", values="accuracy")
    medians = wide.assign(gap=wide.train - wide.test).groupby(keys[:3]).median()
    gaps, ranges = {}, {}
    for arm in (False, True):
        of_arm = under(medians, arm)
        if (0.0, 0.0) not in of_arm.index:
            raise UndecidedError("there are no runs without dropout and L2")
        gaps[arm] = of_arm.gap[(0.0, 0.0)]
        ranges[arm] = of_arm.test.max() - of_arm.test.min()
    words = (
        f"without dropout and L2, training accuracy exceeds test accuracy by "
        f"{100 * gaps[False]:.2f} points in plain networks, and by {100 * gaps[True]:.2f} points "
        f"with batch norm; dropout and L2 change test accuracy by up to {100 * ranges[False]:.2f} "
        f"points in plain networks, and by up to {100 * ranges[True]:.2f} points with batch norm"
    )
    parts = {
        "the gap is smaller": gaps[True] < gaps[False],
        "dropout and L2 change the accuracy less": ranges[True] < ranges[False],
    }
    return Finding(words, all_parts(parts))


CLAIMS = {
    20: Claim(
        "With batch norm, dropout and L2 matter less, and the gap between training and test "
        "accuracy without them is smaller",
        "Ioffe & Szegedy 2015",
        regularization_matters_less,
    ),
}
