"""Claims about learning rates."""

from __future__ import annotations

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import (
    Check,
    both,
    check,
    conjunction,
    difference,
    disjunction,
    ratio,
    rows,
    sample,
    statistic,
)
from sweeps.harness.claims.evidence import StudyTables, first_step, pick
from sweeps.harness.claims.verdicts import (
    NOT_REPRODUCED,
    REPRODUCED,
    Finding,
    UndecidedError,
    all_or_some,
    undecided,
)
from sweeps.harness.claims.wording import listed, network, spelled
from sweeps.harness.results import intervals

_FAR_FEWER = 0.5  # largest ratio of steps that counts as far fewer
_MOST = 0.5  # share of the runs above which most of them reach the target
_NO_LOSS = 0.5  # largest loss of accuracy, in percentage points, that counts as none


def far_fewer_steps(tables: StudyTables) -> Finding:
    """Claim 6, from the accuracy curves of ReLU networks without decay.

    The baseline is the plain network at the lowest learning rate: the best accuracy of each seed,
    and the steps that this seed takes to it. The claim holds at a learning rate if batch norm
    reaches the accuracies of the same seeds in at most half of these steps, in medians.

    Reproduced: the claim holds at every learning rate.
    Depends on the learning rate: the claim holds at some learning rates.
    Not reproduced: the claim holds at no learning rate.
    """
    frame = tables.recorded(
        "curves", ("activation", "learning_rate", "decay_steps"), "test_accuracy"
    ).dropna(subset=["test_accuracy"])
    frame = frame[(frame.activation == "relu") & frame.decay_steps.isna()]
    lowest = frame.learning_rate.min()
    plain = pick(frame, batch_norm=False, learning_rate=lowest)
    best = plain.groupby("seed").test_accuracy.max()
    needed = first_step(plain, plain.seed.map(best))
    steps = {
        rate: first_step(group, group.seed.map(best))
        for rate, group in pick(frame, batch_norm=True).groupby("learning_rate")
    }
    checks = {
        f"{rate:g}": check(ratio(each, needed), "at most", _FAR_FEWER)
        for rate, each in steps.items()
    }
    shown = listed(f"{each.number} at {rate}" for rate, each in checks.items())
    measured = (
        f"steps over those of the plain network at learning rate {lowest:g}: {shown}; at most "
        f"{_FAR_FEWER:g} counts as far fewer"
    )
    arms = {"plain": {lowest: needed}, "batch norm": steps}
    table = [
        {
            "": name,
            "Learning rate": f"{rate:g}",
            "Median steps to plain's best accuracy": intervals.of_median(each).shown(
                infinite="never"
            ),
            "Faster than plain with probability": (
                "" if each is needed else f"{intervals.probability_less(each, needed):.2f}"
            ),
        }
        for name, of_arm in arms.items()
        for rate, each in of_arm.items()
    ]
    return Finding(measured, all_or_some(checks, "the learning rate", "at"), table)


def trains_where_plain_does_not(tables: StudyTables) -> Finding:
    """Claim 7, from the share of runs without decay that reach the target.

    The claim holds for an activation if there is a learning rate at which most runs with batch norm
    reach the target and at least half of the plain runs do not.

    Reproduced: the claim holds for every activation.
    Depends on the activation: the claim holds for some activations.
    Not reproduced: the claim holds for no activation.
    """
    trials = _without_decay(tables)
    trained, table, checks = [], [], {}
    for name, group in trials.groupby("activation", sort=False):
        at_rate, rates = [], []
        for rate, runs in group.groupby("learning_rate"):
            plain, normed = (pick(runs, batch_norm=arm) for arm in (False, True))
            trains, fails = _share(normed, "above"), _share(plain, "at most")
            at_rate.append(both(trains, fails))
            if normed.reached.mean() > _MOST >= plain.reached.mean():
                rates.append(f"{rate:g}")
            table.append(
                {
                    "Activation": spelled(name),
                    "Learning rate": f"{rate:g}",
                    "Batch norm reaches the target": trains.number,
                    "Plain reaches the target": fails.number,
                    "Plain runs that diverged": str(plain.status.eq("diverged").sum()),
                }
            )
        answer = disjunction(each.holds for each in at_rate)
        checks[spelled(name)] = Check("", "", answer, min(each.seeds for each in at_rate))
        trained.append(
            f"{spelled(name)} at learning rate {listed(rates)}"
            if rates
            else f"{spelled(name)} networks at no rate"
        )
    measured = (
        f"rates at which only batch norm trains: {'; '.join(trained)}; a network trains if most of "
        "its runs reach the target"
    )
    return Finding(measured, all_or_some(checks, "the activation"), table)


def sigmoid_trains_behind_relu(tables: StudyTables) -> Finding:
    """Claim 8, from runs without decay.

    A network trains at a learning rate if most of its runs reach the target there. Accuracies are
    medians of the best accuracy at the best learning rate.

    Reproduced: sigmoid networks train at some learning rate with batch norm and at none without,
        and with batch norm they are less accurate than ReLU networks.
    Depends on the learning rate: plain sigmoid networks train at some learning rates, too.
    Depends on the part: sigmoid networks train only with batch norm, but are as accurate as ReLU
        networks.
    Not reproduced: sigmoid networks train at no learning rate with batch norm.
    """
    trials = _without_decay(tables)
    sigmoid = pick(trials, activation="sigmoid")
    plain, normed = (
        {
            f"{network('sigmoid', arm)} at {rate:g}": _share(group, "above")
            for rate, group in pick(sigmoid, batch_norm=arm).groupby("learning_rate")
        }
        for arm in (False, True)
    )
    accuracies = [
        [
            sample(group, "best_accuracy", blank=0.0)
            for _, group in pick(trials, activation=name, batch_norm=True).groupby("learning_rate")
        ]
        for name in ("relu", "sigmoid")
    ]
    rates = len(accuracies[0])
    lead = statistic(
        lambda *m: 100 * (np.max(m[:rates], axis=0) - np.max(m[rates:], axis=0)),
        *accuracies[0],
        *accuracies[1],
    )
    behind = check(lead, "above", 0)
    learns = disjunction(each.holds for each in normed.values())
    never = conjunction(None if each.holds is None else not each.holds for each in plain.values())
    trained = [name.split()[-1] for name, each in plain.items() if each.holds]
    measured = (
        f"with batch norm, sigmoid trains at {_rates(pick(sigmoid, batch_norm=True))}; without, at "
        f"{_rates(pick(sigmoid, batch_norm=False))}; with batch norm, ReLU is {behind.number} "
        "points more accurate than sigmoid"
    )
    table = rows(normed | plain, "Share of runs that reach the target")
    if learns is False:
        return Finding(measured, NOT_REPRODUCED, table)
    if learns and trained:
        verdict = f"depends on the learning rate: plain sigmoids also train at {listed(trained)}"
        return Finding(measured, verdict, table)
    answers = {
        "training with batch norm": behind._replace(holds=learns),
        "training without batch norm": behind._replace(holds=never),
        "the accuracy": behind,
    }
    if learns is None or never is None or behind.holds is None:
        return Finding(measured, undecided(answers), table)
    if not behind.holds:
        verdict = "depends on the part: sigmoids train only with batch norm, but match ReLUs"
        return Finding(measured, verdict, table)
    return Finding(measured, REPRODUCED, table)


def fast_decay_costs_nothing(tables: StudyTables) -> Finding:
    """Claim 25, from the best accuracy of batch-norm networks at the fastest and slowest decay.

    The claim holds for an activation at a learning rate if the median best accuracy with the
    fastest decay is at most half a percentage point below that with the slowest.

    Reproduced: the claim holds everywhere.
    Depends on the activation and the rate: the claim holds in some places.
    Not reproduced: the claim holds nowhere.
    """
    trials = tables.trials("activation", "learning_rate", "decay_steps", "best_accuracy")
    trials = pick(trials, batch_norm=True).dropna(subset=["decay_steps"])
    if trials.decay_steps.nunique() < 2:
        raise UndecidedError("the claim needs two decays of the learning rate with batch norm")
    fast, slow = trials.decay_steps.min(), trials.decay_steps.max()
    lost = {
        f"{spelled(name)} at {rate:g}": difference(
            *(
                100 * sample(pick(group, decay_steps=each), "best_accuracy", blank=0.0)
                for each in (slow, fast)
            )
        )
        for (name, rate), group in trials.groupby(["activation", "learning_rate"])
    }
    checks = {name: check(each, "at most", _NO_LOSS, ".1f") for name, each in lost.items()}
    least = min(lost, key=lambda name: lost[name].estimate)
    measured = (
        f"accuracy lost with a time constant of {fast:g} instead of {slow:g} steps: at least "
        f"{checks[least].number} points ({least}); at most {_NO_LOSS:g} points count as no loss"
    )
    reason = f"every network loses more than {_NO_LOSS:g} points at every rate"
    verdict = all_or_some(checks, "the activation and the rate", reason=reason)
    return Finding(measured, verdict, rows(checks, "Points lost"))


def _without_decay(tables):
    names = ("activation", "learning_rate", "decay_steps", "reached", "best_accuracy")
    trials = tables.trials(*names)
    return trials[trials.decay_steps.isna()]


def _share(runs, relation):
    """The share of runs that reach the target, compared with a half."""
    share = intervals.of_share(int(runs.reached.sum()), len(runs))
    return check(share, relation, _MOST, ".0%")


def _rates(trials):
    """The number of learning rates at which most runs reach the target: "2 of 4 learning rates"."""
    trained = trials.groupby("learning_rate").reached.mean() > _MOST
    count, total = int(trained.sum()), len(trained)
    return f"all {total} learning rates" if count == total else f"{count} of {total} learning rates"


CLAIMS = {
    6: Claim(
        "Batch norm reaches the plain network's accuracy in far fewer steps",
        "Ioffe & Szegedy 2015",
        far_fewer_steps,
        needs=lambda trial: trial.activation == "relu" and trial.decay_steps is None,
        charts="best_accuracy",
    ),
    7: Claim(
        "Batch norm trains at learning rates at which plain networks diverge or stall",
        "Ioffe & Szegedy 2015",
        trains_where_plain_does_not,
        needs=lambda trial: trial.decay_steps is None,
        charts="best_accuracy",
    ),
    8: Claim(
        "Sigmoid networks train only with batch norm, and are less accurate than ReLU networks",
        "Ioffe & Szegedy 2015",
        sigmoid_trains_behind_relu,
        needs=lambda trial: trial.decay_steps is None,
        charts="best_accuracy",
    ),
    25: Claim(
        "With batch norm, decaying the learning rate six times faster costs no accuracy",
        "Ioffe & Szegedy 2015",
        fast_decay_costs_nothing,
        needs=lambda trial: trial.decay_steps is not None,
        charts="decay",
    ),
}
