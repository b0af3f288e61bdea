"""Claims on LeNet with sigmoids."""

from __future__ import annotations

from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import StudyTables, first_step, or_never, pick, within
from sweeps.harness.claims.verdicts import Finding, NotRunError, all_or_some, some_of
from sweeps.harness.results.tables import median


def lenet_loss_falls_at_once(tables: StudyTables) -> Finding:
    """9. The published pair: plain at the lowest rate, batch norm at the highest. Reproduced: the
    median epoch in which the mean training loss is at most 0.55 is 1 or 2 with batch norm, and at
    least twice as late without. Depends: on the part, if one of them holds."""
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
        f"epoch with training loss at most 0.55: plain {or_never(late)} (rate {rates.min():g}), "
        f"batch norm {or_never(soon)} (rate {rates.max():g})"
    )
    parts = {
        "batch norm is there in two epochs": soon <= 2,
        "plain is later": within(2 * soon, late),
    }
    return Finding(words, all_or_some(parts, "the part"))


def lenet_accuracy_swings(tables: StudyTables) -> Finding:
    """10. Batch norm: test accuracy falls by two points or more from one epoch to the next.
    Reproduced: in all runs; depends on the seed: in some."""
    frame = pick(
        tables.recorded("curves", ("learning_rate",), "test_accuracy"), batch_norm=True
    ).dropna(subset=["test_accuracy"])
    falls = frame.groupby("trial_id").test_accuracy.agg(lambda a: (-a.diff()).max()).dropna()
    if falls.empty:
        raise NotRunError("a second epoch")
    swinging = int((falls >= 0.02).sum())
    words = (
        f"largest fall from an epoch to the next: median {100 * falls.median():.1f} points, at "
        f"least 2 in {swinging}/{len(falls)} runs"
    )
    return Finding(words, some_of(swinging, len(falls), "the seed"))


CLAIMS = {
    9: Claim(
        "LeNet's training loss is at 0.55 in an epoch or two, and much later without",
        "LeNet tutorials",
        lenet_loss_falls_at_once,
    ),
    10: Claim(
        "At such rates its test accuracy swings",
        "LeNet tutorials",
        lenet_accuracy_swings,
    ),
}
