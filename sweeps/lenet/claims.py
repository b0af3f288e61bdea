"""Claims about LeNet with sigmoids."""

from __future__ import annotations

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import StudyTables, first_step, or_never, pick, within
from sweeps.harness.claims.verdicts import Finding, UndecidedError, all_parts, some_of
from sweeps.harness.results.tables import median


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
        median(first_step(rows.assign(step=rows.epoch), -0.55, -rows.train_loss))
        for rows in (plain, normed)
    )
    words = (
        f"median epochs to a training loss of 0.55, at the published pair of learning rates: plain "
        f"{or_never(late)} at {rates.min():g}, batch norm {or_never(soon)} at {rates.max():g} "
        "(twice as many count as much later)"
    )
    if not np.isfinite([late, soon]).any():
        raise UndecidedError("no network reaches a training loss of 0.55")
    parts = {
        "batch norm needs at most two epochs": soon <= 2,
        "plain needs at least twice as many": within(2 * soon, late),
    }
    return Finding(words, all_parts(parts))


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
    swinging = int((falls >= 0.02).sum())
    words = (
        f"the largest drop in test accuracy from one epoch to the next has a median of "
        f"{100 * falls.median():.1f} points; in {swinging}/{len(falls)} runs, it is at least "
        "2 points (a swing)"
    )
    return Finding(words, some_of(swinging, len(falls), "the seed"))


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
