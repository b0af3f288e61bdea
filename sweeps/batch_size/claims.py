"""Claims on small batches."""

from __future__ import annotations

from sweeps.batch_size.kinds import BATCH_NORM, GROUP_NORM, RENORM, kinds
from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import NEAR_CHANCE, StudyTables, pick
from sweeps.harness.claims.verdicts import Finding, NotRunError, all_or_some, some_of


def nothing_learned_from_one(tables: StudyTables) -> Finding:
    """17. Batch norm at batch 1: accuracy at most 20%. Depends: on the seed."""
    trials = pick(_kinds(tables), kind=BATCH_NORM, batch_size=1)
    stuck = int((trials.error >= 1 - NEAR_CHANCE).sum())
    words = (
        f"accuracy at batch 1: {1 - trials.error.median():.1%}, {stuck}/{len(trials)} at most "
        f"{NEAR_CHANCE:.0%}"
    )
    return Finding(words, some_of(stuck, len(trials), "the seed"))


def small_batches_hurt_batch_norm(tables: StudyTables) -> Finding:
    """18. Median test error at the smallest batch above 1, over the kind's least at any batch.
    Reproduced: at least 1.5 for batch norm, less for group norm. Depends: on the part."""
    ratios, words = {}, []
    for kind in (BATCH_NORM, GROUP_NORM):
        errors = pick(_kinds(tables), kind=kind).groupby("batch_size").error.median()
        errors = errors[errors.index > 1]
        if len(errors) < 2:
            raise NotRunError(f"{kind} at several batch sizes above 1")
        ratios[kind] = errors.iloc[0] / errors.min()
        words.append(
            f"{kind}: error {errors.iloc[0]:.1%} at batch {errors.index[0]}, least "
            f"{errors.min():.1%} at {errors.idxmin()}"
        )
    parts = {
        "batch norm gets worse": ratios[BATCH_NORM] >= 1.5,
        "group norm does not": ratios[GROUP_NORM] < 1.5,
    }
    return Finding("; ".join(words), all_or_some(parts, "the part"))


def renorm_recovers(tables: StudyTables) -> Finding:
    """19. Holds at a batch of 2 to 8 if renorm's median error is at most 0.9 of batch norm's."""
    trials = _kinds(tables)
    trials = trials[trials.batch_size.between(2, 8)]
    errors = {
        kind: pick(trials, kind=kind).groupby("batch_size").error.median()
        for kind in (BATCH_NORM, RENORM)
    }
    plain, renorm = errors.values()
    sizes = [size for size in plain.index if size in renorm.index]
    words = "error without and with renorm: " + ", ".join(
        f"batch {size} {plain[size]:.1%} and {renorm[size]:.1%}" for size in sizes
    )
    holds = {str(size): renorm[size] <= 0.9 * plain[size] for size in sizes}
    return Finding(words, all_or_some(holds, "the batch size"))


def _kinds(tables):
    """The trials with their kind of normalization and test error, a diverged one's being chance."""
    names = ("group_norm", "bn_renorm", "bn_virtual_batch_size", "batch_size", "final_accuracy")
    trials = tables.trials(*names)
    return trials.assign(kind=kinds(trials), error=1 - trials.final_accuracy.fillna(0.1))


CLAIMS = {
    17: Claim(
        "At batch 1 nothing is learned",
        "arithmetic",
        nothing_learned_from_one,
    ),
    18: Claim(
        "Batch norm gets worse as the batch shrinks, group norm does not",
        "Wu & He 2018",
        small_batches_hurt_batch_norm,
    ),
    19: Claim(
        "Renorm recovers part of it",
        "Ioffe 2017",
        renorm_recovers,
    ),
}
