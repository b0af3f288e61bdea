"""Claims about learning rates."""

from __future__ import annotations

from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import StudyTables, first_step, or_never, pick, under, within
from sweeps.harness.claims.verdicts import (
    NOT_REPRODUCED,
    REPRODUCED,
    Finding,
    UndecidedError,
    all_or_some,
)
from sweeps.harness.claims.wording import listed, network, spelled
from sweeps.harness.results.tables import median

_NO_LOSS = 0.005  # largest loss of accuracy that counts as none


def far_fewer_steps(tables: StudyTables) -> Finding:
    """Claim 6, from the accuracy curves of ReLU networks without decay.

    The baseline is the plain network at the lowest learning rate: its median best accuracy, and the
    median steps that it takes to that accuracy. The claim holds at a learning rate if batch norm
    reaches the same accuracy in at most half of these steps.

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
    level = plain.groupby("trial_id").test_accuracy.max().median()
    needed = median(first_step(plain, level))
    steps = {
        rate: median(first_step(rows, level))
        for rate, rows in pick(frame, batch_norm=True).groupby("learning_rate")
    }
    normed = listed(f"{or_never(count)} at {rate:g}" for rate, count in steps.items())
    words = (
        f"median steps to the plain network's best accuracy ({level:.1%}): plain {needed:g} at "
        f"learning rate {lowest:g}; batch norm {normed}; at most half as many count as far fewer"
    )
    holds = {f"{rate:g}": within(count, needed / 2) for rate, count in steps.items()}
    return Finding(words, all_or_some(holds, "the learning rate", "at"))


def trains_where_plain_does_not(tables: StudyTables) -> Finding:
    """Claim 7, from the share of runs without decay that reach the target.

    The claim holds for an activation if there is a learning rate at which most runs with batch norm
    reach the target and at least half of the plain runs do not.

    Reproduced: the claim holds for every activation.
    Depends on the activation: the claim holds for some activations.
    Not reproduced: the claim holds for no activation.
    """
    trials = tables.trials("activation", "learning_rate", "decay_steps", "reached")
    trials = trials[trials.decay_steps.isna()]
    share = trials.groupby(["activation", "batch_norm", "learning_rate"]).reached.mean()
    trained, diverged, holds = [], [], {}
    for name in trials.activation.unique():
        plain, normed = (under(share, name, arm) for arm in (False, True))
        rates = [f"{r:g}" for r in normed.index if normed[r] > 0.5 >= plain.get(r, 1.0)]
        holds[spelled(name)] = bool(rates)
        rates_in_words = f"learning rate {listed(rates)}" if rates else "no learning rate"
        trained.append(f"{spelled(name)} at {rates_in_words}")
        runs = pick(trials, activation=name, batch_norm=False)
        diverged.append(f"{runs.status.eq('diverged').sum()} with {spelled(name)}")
    measured = (
        f"only batch norm trains {', and '.join(trained)}; plain runs that diverged: "
        f"{listed(diverged)}; a network trains if most of its runs reach the target"
    )
    return Finding(measured, all_or_some(holds, "the activation"))


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
    trials = tables.trials("activation", "learning_rate", "decay_steps", "reached", "best_accuracy")
    trials = trials[trials.decay_steps.isna()]
    share = trials.groupby(["activation", "batch_norm", "learning_rate"]).reached.mean()
    best = trials.groupby(["activation", "batch_norm", "learning_rate"]).best_accuracy.median()
    plain, normed = under(share, "sigmoid", False), under(share, "sigmoid", True)
    ours, relu = under(best, "sigmoid", True).max(), under(best, "relu", True).max()
    trained = [f"{rate:g}" for rate in plain.index if plain[rate] > 0.5]
    words = (
        f"best accuracy: {network('sigmoid', True)} {ours:.1%}, {network('relu', True)} "
        f"{relu:.1%}, {network('sigmoid', False)} {under(best, 'sigmoid', False).max():.1%}; with "
        f"batch norm, sigmoid trains at {_share(int((normed > 0.5).sum()), len(normed))}; without, "
        f"at {_share(len(trained), len(plain))}"
    )
    if not (normed > 0.5).any():
        return Finding(words, NOT_REPRODUCED)
    if trained:
        return Finding(
            words, f"depends on the learning rate: plain sigmoids also train at {listed(trained)}"
        )
    if ours >= relu:
        return Finding(
            words, "depends on the part: sigmoids train only with batch norm, but match ReLUs"
        )
    return Finding(words, REPRODUCED)


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
    keys = ["activation", "learning_rate", "decay_steps"]
    best = trials.groupby(keys).best_accuracy.median().unstack()
    loss = best[slow] - best[fast]
    lost = "; ".join(
        f"{spelled(name)} networks lose "
        + listed(f"{100 * value:.1f} points at {rate:g}" for (_, rate), value in losses.items())
        for name, losses in loss.groupby(level="activation")
    )
    points = f"{100 * _NO_LOSS:g} points"
    words = (
        f"best accuracy with a time constant of {fast:g} instead of {slow:g} steps, by learning "
        f"rate: {lost}; at most {points} count as no loss"
    )
    holds = {
        f"{spelled(name)} at {rate:g}": value <= _NO_LOSS for (name, rate), value in loss.items()
    }
    reason = f"every network loses more than {points} at every rate"
    return Finding(words, all_or_some(holds, "the activation and the rate", reason=reason))


def _share(count, total):
    """A number of learning rates in words: "all 4 learning rates" or "2 of 4 learning rates"."""
    return f"all {total} learning rates" if count == total else f"{count} of {total} learning rates"


CLAIMS = {
    6: Claim(
        "Batch norm reaches the plain network's accuracy in far fewer steps",
        "Ioffe & Szegedy 2015",
        far_fewer_steps,
        needs=lambda trial: trial.activation == "relu" and trial.decay_steps is None,
    ),
    7: Claim(
        "Batch norm trains at learning rates at which plain networks diverge or stall",
        "Ioffe & Szegedy 2015",
        trains_where_plain_does_not,
        needs=lambda trial: trial.decay_steps is None,
    ),
    8: Claim(
        "Sigmoid networks train only with batch norm, and are less accurate than ReLU networks",
        "Ioffe & Szegedy 2015",
        sigmoid_trains_behind_relu,
        needs=lambda trial: trial.decay_steps is None,
    ),
    25: Claim(
        "With batch norm, decaying the learning rate six times faster costs no accuracy",
        "Ioffe & Szegedy 2015",
        fast_decay_costs_nothing,
        needs=lambda trial: trial.decay_steps is not None,
    ),
}
