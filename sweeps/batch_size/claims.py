"""Claims about small mini-batches."""

from __future__ import annotations

from sweeps.batch_size.kinds import BATCH_NORM, GROUP_NORM, RENORM, kinds
from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import CHANCE, NEAR_CHANCE, StudyTables, pick
from sweeps.harness.claims.verdicts import Finding, UndecidedError, all_or_some, all_parts, some_of
from sweeps.harness.claims.wording import listed

_WORSE = 1.5  # smallest ratio of errors at which a kind of normalization gets worse
_RECOVERED = 0.9  # largest ratio of errors at which renorm recovers some accuracy


def nothing_learned_from_one(tables: StudyTables) -> Finding:
    """Claim 17, from the accuracy of runs with batch norm at batch size 1.

    A run has learned nothing if its accuracy is at most 20%.

    Reproduced: no run has learned anything.
    Depends on the seed: some runs have learned nothing.
    Not reproduced: every run has learned something.
    """
    trials = pick(_kinds(tables), kind=BATCH_NORM, batch_size=1)
    stuck = int((trials.error >= 1 - NEAR_CHANCE).sum())
    words = (
        f"at batch size 1, the median accuracy is {1 - trials.error.median():.1%} (chance is "
        f"{CHANCE:.0%}), and {stuck}/{len(trials)} runs stay at {NEAR_CHANCE:.0%} or below"
    )
    return Finding(words, some_of(stuck, len(trials), "the seed"))


def small_batches_hurt_batch_norm(tables: StudyTables) -> Finding:
    """Claim 18, from the median test errors of batch norm and group norm.

    A kind of normalization gets worse if its error at the smallest batch size above 1 is at least
    1.5 times its lowest error at any batch size above 1.

    Reproduced: batch norm gets worse, and group norm does not.
    Depends on the part: only one of the two holds.
    Not reproduced: neither holds.
    """
    ratios, words = {}, []
    for kind in (BATCH_NORM, GROUP_NORM):
        errors = pick(_kinds(tables), kind=kind).groupby("batch_size").error.median()
        errors = errors[errors.index > 1]
        if len(errors) < 2:
            raise UndecidedError(f"the claim needs {kind} at several batch sizes above 1")
        ratios[kind] = errors.iloc[0] / errors.min()
        words.append(
            f"with {kind}, the median test error is {errors.iloc[0]:.1%} at batch size "
            f"{errors.index[0]}, and {errors.min():.1%} at the best size, {errors.idxmin()}"
        )
    words.append(f"{_WORSE:g} times the lowest error or more counts as worse")
    parts = {
        "batch norm gets worse": ratios[BATCH_NORM] >= _WORSE,
        "group norm does not get worse": ratios[GROUP_NORM] < _WORSE,
    }
    return Finding("; ".join(words), all_parts(parts))


def renorm_recovers(tables: StudyTables) -> Finding:
    """Claim 19, from the median test errors of batch norm and renorm at batch sizes 2 to 8.

    The claim holds at a batch size if renorm's error is at most 0.9 times batch norm's.

    Reproduced: the claim holds at every batch size.
    Depends on the batch size: the claim holds at some batch sizes.
    Not reproduced: the claim holds at no batch size.
    """
    trials = _kinds(tables)
    trials = trials[trials.batch_size.between(2, 8)]
    errors = {
        kind: pick(trials, kind=kind).groupby("batch_size").error.median()
        for kind in (BATCH_NORM, RENORM)
    }
    plain, renorm = errors.values()
    sizes = [size for size in plain.index if size in renorm.index]
    found = listed(
        f"{renorm[size]:.1%} instead of {plain[size]:.1%} at batch size {size}" for size in sizes
    )
    words = (
        f"with renorm, the median test error is {found}; {_RECOVERED:g} times the error or less "
        "counts as recovery"
    )
    holds = {str(size): renorm[size] <= _RECOVERED * plain[size] for size in sizes}
    return Finding(words, all_or_some(holds, "the batch size", "at"))


def _kinds(tables):
    """The trials with their normalization and test error. A diverged trial counts as chance."""
    names = ("group_norm", "bn_renorm", "bn_virtual_batch_size", "batch_size", "final_accuracy")
    trials = tables.trials(*names)
    return trials.assign(kind=kinds(trials), error=1 - trials.final_accuracy.fillna(CHANCE))


CLAIMS = {
    17: Claim(
        "With batch norm, nothing is learned at batch size 1",
        "arithmetic",
        nothing_learned_from_one,
    ),
    18: Claim(
        "Batch norm gets worse as the batch shrinks; group normalization does not",
        "Wu & He 2018",
        small_batches_hurt_batch_norm,
    ),
    19: Claim(
        "Batch Renormalization recovers part of the accuracy that batch norm loses on small "
        "batches",
        "Ioffe 2017",
        renorm_recovers,
    ),
}
