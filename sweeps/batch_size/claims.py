"""Claims about small and large mini-batches."""

from __future__ import annotations

import numpy as np

from sweeps.batch_size.kinds import (
    BATCH_NORM,
    GHOST_BATCHES,
    GROUP_NORM,
    RENORM,
    kinds,
    of_large_batches,
)
from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import check, difference, ratio, sample, statistic
from sweeps.harness.claims.evidence import CHANCE, NEAR_CHANCE, StudyTables, pick
from sweeps.harness.claims.verdicts import Finding, UndecidedError, all_or_some, all_parts, some_of
from sweeps.harness.claims.wording import listed
from sweeps.harness.results import intervals
from sweeps.harness.trial import Trial

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
    accuracy = intervals.of_median(1 - trials.error).shown(".1%")
    measured = (
        f"{stuck}/{len(trials)} runs at batch size 1 stay at {NEAR_CHANCE:.0%} or below (chance is "
        f"{CHANCE:.0%}); the median accuracy is {accuracy}"
    )
    return Finding(measured, some_of(stuck, len(trials), "the seed"))


def small_batches_hurt_batch_norm(tables: StudyTables) -> Finding:
    """Claim 18, from the median test errors of batch norm and group norm.

    A kind of normalization gets worse if its error at the smallest batch size above 1 is at least
    1.5 times its lowest error at any batch size above 1.

    Reproduced: batch norm gets worse, and group norm does not.
    Depends on the part: only one of the two holds.
    Not reproduced: neither holds.
    """
    trials = _kinds(tables)
    found, rows = {}, []
    for kind in (BATCH_NORM, GROUP_NORM):
        of_kind = pick(trials, kind=kind)
        errors = {
            size: sample(group, "error")
            for size, group in of_kind.groupby("batch_size")
            if size > 1
        }
        if len(errors) < 2:
            raise UndecidedError(f"the claim needs {kind} at several batch sizes above 1")
        found[kind] = statistic(lambda *m: m[0] / np.min(m, axis=0), *errors.values())
        rows += [
            {
                "Kind": kind,
                "Batch size": str(size),
                "Median test error": intervals.of_median(each).shown(".1%"),
            }
            for size, each in errors.items()
        ]
    checks = {
        "batch norm gets worse": check(found[BATCH_NORM], "at least", _WORSE),
        "group norm does not get worse": check(found[GROUP_NORM], "below", _WORSE),
    }
    shown = listed(f"{found[kind].shown('.3g')} with {kind}" for kind in found)
    measured = (
        f"error at the smallest batch size over the lowest error: {shown}; {_WORSE:g} or more "
        "counts as worse"
    )
    return Finding(measured, all_parts(checks), rows)


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
        kind: {size: sample(group, "error") for size, group in of_kind.groupby("batch_size")}
        for kind in (BATCH_NORM, RENORM)
        for of_kind in [pick(trials, kind=kind)]
    }
    plain, renorm = errors.values()
    checks = {
        str(size): check(ratio(renorm[size], plain[size]), "at most", _RECOVERED)
        for size in plain
        if size in renorm
    }
    shown = listed(f"{each.number} at batch size {size}" for size, each in checks.items())
    measured = (
        f"test error with renorm over that of batch norm: {shown}; at most {_RECOVERED:g} counts "
        "as recovery"
    )
    rows = [
        {"Batch size": str(size)}
        | {
            f"Median test error with {kind}": intervals.of_median(of_kind[size]).shown(".1%")
            for kind, of_kind in errors.items()
        }
        for size in map(int, checks)
    ]
    return Finding(measured, all_or_some(checks, "the batch size", "at"), rows)


def ghost_batches_close_the_gap(tables: StudyTables) -> Finding:
    """Claim 42, from the median test errors of large batches, whole and in ghost batches.

    The generalization gap is the test error with the largest batch size minus the test error with
    small batches, after the same number of epochs.

    Reproduced: the gap is above 0, and ghost batches lower the test error of large batches.
    Depends on the part: only one of the two holds.
    Not reproduced: neither holds.
    """
    trials = _trials(tables, "record")
    trials = trials[of_large_batches(trials)]
    if trials.empty:
        raise UndecidedError("the claim needs the trials of --gap_epochs")
    large = trials.batch_size == trials.batch_size.max()
    groups = {
        "large batches": pick(trials[large], kind=BATCH_NORM),
        "large batches, ghost batches": pick(trials[large], kind=GHOST_BATCHES),
        "small batches": pick(trials[~large], kind=BATCH_NORM),
    }
    whole, ghost, small = (sample(group, "error") for group in groups.values())
    gap, closed = difference(whole, small), difference(whole, ghost)
    checks = {
        "small batches have the lower test error": check(gap, "above", 0, ".2%"),
        "ghost batches lower the test error of large batches": check(closed, "above", 0, ".2%"),
    }
    measured = f"the gap is {gap.shown('.2%')}, and ghost batches take {closed.shown('.2%')} off"
    evaluation = tables.recorded("evaluation", (), "data", "accuracy")
    training = 1 - evaluation[evaluation.data == "train"].set_index("trial_id").accuracy
    rows = [
        {
            "Training": name,
            "Batch size": f"{group.batch_size.iloc[0]:g}",
            "Test error": intervals.of_median(sample(group, "error")).shown(".2%"),
            "Training error": intervals.of_median(group.trial_id.map(training)).shown(".2%"),
        }
        for name, group in groups.items()
    ]
    return Finding(measured, all_parts(checks), rows)


def _kinds(tables):
    """The trials that see the same number of examples."""
    trials = _trials(tables, "record")
    return trials[~of_large_batches(trials)]


def _trials(tables, *more):
    """The trials with their normalization and test error. A diverged trial counts as chance."""
    names = ("group_norm", "bn_renorm", "bn_virtual_batch_size", "batch_size", "final_accuracy")
    trials = tables.trials(*names, *more)
    return trials.assign(kind=kinds(trials), error=1 - trials.final_accuracy.fillna(CHANCE))


def _sees_the_same_examples(trial: Trial) -> bool:
    return not trial.record


CLAIMS = {
    17: Claim(
        "With batch norm, nothing is learned at batch size 1",
        "arithmetic",
        nothing_learned_from_one,
        needs=_sees_the_same_examples,
        charts="test_error",
    ),
    18: Claim(
        "Batch norm gets worse as the batch shrinks; group normalization does not",
        "Wu & He 2018",
        small_batches_hurt_batch_norm,
        needs=_sees_the_same_examples,
        charts="test_error",
    ),
    19: Claim(
        "Batch Renormalization recovers part of the accuracy that batch norm loses on small "
        "batches",
        "Ioffe 2017",
        renorm_recovers,
        needs=_sees_the_same_examples,
        charts="test_error",
    ),
    42: Claim(
        "Ghost batches close a part of the generalization gap of large batches",
        "Hoffer, Hubara & Soudry 2017",
        ghost_batches_close_the_gap,
        needs=lambda trial: bool(trial.record),
        charts="large_batches",
    ),
}
