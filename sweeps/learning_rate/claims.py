"""Claims on learning rates."""

from __future__ import annotations

from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import StudyTables, first_step, or_never, pick, under, within
from sweeps.harness.claims.verdicts import (
    NOT_REPRODUCED,
    REPRODUCED,
    Finding,
    NotRunError,
    all_or_some,
)
from sweeps.harness.results.tables import median


def far_fewer_steps(tables: StudyTables) -> Finding:
    """6. ReLU: the accuracy is the median best of the plain net at the lowest rate. Holds at a rate
    if batch norm (no decay) is there in half the steps that the plain net at the lowest takes."""
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
    words = f"{level:.1%}: plain at {lowest:g} in {needed:g} steps; batch norm " + ", ".join(
        f"at {rate:g} in {or_never(count)}" for rate, count in steps.items()
    )
    holds = {f"{rate:g}": within(count, needed / 2) for rate, count in steps.items()}
    return Finding(words, all_or_some(holds, "the learning rate"))


def trains_where_plain_does_not(tables: StudyTables) -> Finding:
    """7. Holds for an activation if at some rate most seeds reach the target with batch norm (no
    decay) and most do not without."""
    trials = tables.trials("activation", "learning_rate", "decay_steps", "reached")
    trials = trials[trials.decay_steps.isna()]
    share = trials.groupby(["activation", "batch_norm", "learning_rate"]).reached.mean()
    words, holds = [], {}
    for name in trials.activation.unique():
        plain, normed = (under(share, name, arm) for arm in (False, True))
        rates = [f"{r:g}" for r in normed.index if normed[r] > 0.5 >= plain.get(r, 1.0)]
        holds[name] = bool(rates)
        diverged = pick(trials, activation=name, batch_norm=False).status.eq("diverged").sum()
        words.append(
            f"{name}: batch norm alone at {', '.join(rates) or 'no rate'} ({diverged} plain runs "
            "diverged)"
        )
    return Finding("; ".join(words), all_or_some(holds, "the activation"))


def sigmoid_trains_behind_relu(tables: StudyTables) -> Finding:
    """8. Reproduced: at some rate most sigmoid nets reach the target with batch norm, at none
    without, and the best median accuracy over rates is below ReLU's. Not reproduced: at no rate
    with batch norm. Depends: on the learning rate, if plain nets reach it; else on the part."""
    trials = tables.trials("activation", "learning_rate", "decay_steps", "reached", "best_accuracy")
    trials = trials[trials.decay_steps.isna()]
    share = trials.groupby(["activation", "batch_norm", "learning_rate"]).reached.mean()
    best = trials.groupby(["activation", "batch_norm", "learning_rate"]).best_accuracy.median()
    plain, normed = under(share, "sigmoid", False), under(share, "sigmoid", True)
    ours, relu = under(best, "sigmoid", True).max(), under(best, "relu", True).max()
    trained = [f"{rate:g}" for rate in plain.index if plain[rate] > 0.5]
    words = (
        f"best with batch norm: sigmoid {ours:.1%}, ReLU {relu:.1%}; sigmoid without: "
        f"{under(best, 'sigmoid', False).max():.1%}; rates at which most sigmoid nets train: "
        f"{int((normed > 0.5).sum())} with, {len(trained)} without, of {len(normed)}"
    )
    if not (normed > 0.5).any():
        return Finding(words, NOT_REPRODUCED)
    if trained:
        return Finding(
            words, f"depends on the learning rate: plain sigmoids train at {', '.join(trained)}"
        )
    if ours >= relu:
        return Finding(words, "depends on the part: sigmoids train, and are not behind ReLUs")
    return Finding(words, REPRODUCED)


def fast_decay_costs_nothing(tables: StudyTables) -> Finding:
    """25. Holds at a rate and activation if with the fastest decay the median best accuracy is at
    most half a percentage point below that with the slowest."""
    trials = tables.trials("activation", "learning_rate", "decay_steps", "best_accuracy")
    trials = pick(trials, batch_norm=True).dropna(subset=["decay_steps"])
    if trials.decay_steps.nunique() < 2:
        raise NotRunError("two decays of the rate with batch norm")
    fast, slow = trials.decay_steps.min(), trials.decay_steps.max()
    keys = ["activation", "learning_rate", "decay_steps"]
    best = trials.groupby(keys).best_accuracy.median().unstack()
    loss = best[slow] - best[fast]
    words = f"best accuracy lost by decay in {fast:g} and not {slow:g} steps: " + ", ".join(
        f"{name} at {rate:g} {100 * value:+.1f} points" for (name, rate), value in loss.items()
    )
    holds = {f"{name} at {rate:g}": value <= 0.005 for (name, rate), value in loss.items()}
    return Finding(words, all_or_some(holds, "the activation and the rate"))


CLAIMS = {
    6: Claim(
        "Batch norm reaches the plain net's accuracy in far fewer steps",
        "Ioffe & Szegedy 2015",
        far_fewer_steps,
    ),
    7: Claim(
        "It trains at rates where plain nets diverge or stall",
        "Ioffe & Szegedy 2015",
        trains_where_plain_does_not,
    ),
    8: Claim(
        "Sigmoids train with it and not without, and stay behind ReLUs",
        "Ioffe & Szegedy 2015",
        sigmoid_trains_behind_relu,
    ),
    25: Claim(
        "Decaying the rate six times faster costs the batch-norm net nothing",
        "Ioffe & Szegedy 2015",
        fast_decay_costs_nothing,
    ),
}
