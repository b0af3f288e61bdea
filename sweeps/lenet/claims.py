"""Claims about LeNet with sigmoids."""

from __future__ import annotations

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import check, ratio
from sweeps.harness.claims.evidence import StudyTables, first_step, pick
from sweeps.harness.claims.verdicts import Finding, UndecidedError, all_parts, some_of
from sweeps.harness.results import intervals

_LOSS = 0.55
_SWING = 0.02  # smallest drop in accuracy that counts as a swing


def lenet_loss_falls_at_once(tables: StudyTables) -> Finding:
    """Claim 9, from the median number of epochs until the mean training loss is at most 0.55.

    The plain network is taken at its lowest learning rate, the one with batch norm at its highest:
    the two rates that the tutorials publish.

    Reproduced: batch norm needs one or two epochs, and the plain network at least twice as many.
    Depends on the part: only one of the two holds.
    Not reproduced: neither holds.
    """
    frame = tables.recorded("curves", ("learning_rate",), "train_loss")
    frame["epoch"] = frame.groupby("trial_id").step.rank()
    rates = frame.learning_rate
    plain = pick(frame[rates == rates.min()], batch_norm=False)
    normed = pick(frame[rates == rates.max()], batch_norm=True)
    late, soon = (
        first_step(rows.assign(step=rows.epoch), -_LOSS, -rows.train_loss)
        for rows in (plain, normed)
    )
    if not np.isfinite([late.median(), soon.median()]).any():
        raise UndecidedError(f"no network reaches a training loss of {_LOSS:g}")
    epochs = check(intervals.of_median(soon), "at most", 2, infinite="never")
    checks = {
        "batch norm needs at most two epochs": epochs,
        "plain needs at least twice as many": check(ratio(late, soon), "at least", 2),
    }
    faster = intervals.probability_less(soon, late)
    measured = (
        f"epochs to a training loss of {_LOSS:g}: {epochs.number} with batch norm (at most 2 are "
        f"needed), and plain needs {checks['plain needs at least twice as many'].number} times as "
        f"many (at least 2 times is needed); batch norm is faster with probability {faster:.2f}"
    )
    shown = {
        f"plain at {rates.min():g}": late,
        f"batch norm at {rates.max():g}": soon,
    }
    rows = [
        {
            "At learning rate": name,
            f"Median epochs to a training loss of {_LOSS:g}": (
                intervals.of_median(each).shown(infinite="never")
            ),
        }
        for name, each in shown.items()
    ]
    return Finding(measured, all_parts(checks), rows)


def lenet_accuracy_swings(tables: StudyTables) -> Finding:
    """Claim 10, from each batch-norm run's largest drop in test accuracy between two epochs.

    A run swings if its test accuracy drops by at least two percentage points from one epoch to the
    next.

    Reproduced: all runs swing.
    Depends on the seed: some runs swing.
    Not reproduced: no run swings.
    """
    frame = pick(
        tables.recorded("curves", ("learning_rate",), "test_accuracy"), batch_norm=True
    ).dropna(subset=["test_accuracy"])
    falls = frame.groupby("trial_id").test_accuracy.agg(lambda a: (-a.diff()).max()).dropna()
    if falls.empty:
        raise UndecidedError("the claim needs a second epoch")
    swinging = int((falls >= _SWING).sum())
    drop = intervals.of_median(100 * falls).shown(".1f")
    measured = (
        f"in {swinging}/{len(falls)} runs, the test accuracy drops by {100 * _SWING:g} points or "
        f"more from one epoch to the next (a swing); the median of the largest drops is {drop} "
        "points"
    )
    return Finding(measured, some_of(swinging, len(falls), "the seed"))


CLAIMS = {
    9: Claim(
        "With batch norm, the training loss of a sigmoid LeNet falls to 0.55 within two epochs; "
        "without batch norm, much later",
        "LeNet tutorials",
        lenet_loss_falls_at_once,
    ),
    10: Claim(
        "At a learning rate near 1, the test accuracy of LeNet with batch norm swings",
        "LeNet tutorials",
        lenet_accuracy_swings,
        needs=lambda trial: trial.batch_norm,
    ),
}
