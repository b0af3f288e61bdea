"""Claims on dropout and L2."""

from __future__ import annotations

from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import StudyTables, under
from sweeps.harness.claims.verdicts import Finding, NotRunError, all_or_some


def regularization_matters_less(tables: StudyTables) -> Finding:
    """20. Gap: training less test accuracy, without dropout and L2. Matter: the range of median
    test accuracies over settings. Reproduced: both are smaller with batch norm."""
    frame = tables.recorded("evaluation", ("dropout", "l2"), "data", "accuracy")
    frame = frame[frame.step == frame.step.max()].fillna({"dropout": 0.0, "l2": 0.0})
    keys = ["batch_norm", "dropout", "l2", "trial_id"]
    wide = frame.pivot(index=keys, columns="data", values="accuracy")
    medians = wide.assign(gap=wide.train - wide.test).groupby(keys[:3]).median()
    gaps, ranges = {}, {}
    for arm in (False, True):
        of_arm = under(medians, arm)
        if (0.0, 0.0) not in of_arm.index:
            raise NotRunError("runs without dropout and L2")
        gaps[arm] = of_arm.gap[(0.0, 0.0)]
        ranges[arm] = of_arm.test.max() - of_arm.test.min()
    words = (
        f"gap: plain {100 * gaps[False]:.2f} points, batch norm {100 * gaps[True]:.2f}; dropout "
        f"and L2 move test accuracy by {100 * ranges[False]:.2f} and {100 * ranges[True]:.2f}"
    )
    parts = {
        "the gap is smaller": gaps[True] < gaps[False],
        "dropout and L2 move the accuracy less": ranges[True] < ranges[False],
    }
    return Finding(words, all_or_some(parts, "the part"))


CLAIMS = {
    20: Claim(
        "Dropout and L2 matter less: without them, the gap is smaller",
        "Ioffe & Szegedy 2015",
        regularization_matters_less,
    ),
}
