"""Claims about noise after batch norm, and about the smoothness of the loss.

The paper shows its results as curves and gives no numbers for them.
"""

from __future__ import annotations

from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import check, ratio, sample
from sweeps.harness.claims.evidence import StudyTables, first_step, in_steps, pick, steps
from sweeps.harness.claims.verdicts import Finding, all_parts
from sweeps.harness.results import intervals
from sweeps.harness.trial import Trial
from sweeps.noise import measures

_LEARNED = 0.5  # training loss of a mini-batch that shows progress whatever inference does
_AS_FAST = 1.5  # largest ratio of steps at which two networks train about as fast
_ARMS = {
    "plain": (False, 0.0),
    "batch norm": (True, 0.0),
    "plain with noise": (False, 1.0),
    "batch norm with noise": (True, 1.0),
}


def noise_moves_distributions_only(tables: StudyTables) -> Finding:
    """Claim 29, from medians over seeds: steps to the target, and jumps of the distributions.

    The jump of a unit is the mean change of its distribution from one training step to the next,
    divided by its spread, see `measures.movements`. A run's jump is the median over its units.

    Reproduced: with noise, the distributions of batch norm jump farther than the plain network's
    (ratio above 1), the steps of batch norm are at most 1.5 times those without noise, and the
    plain network with noise misses the target within the budget.
    Depends on the part: some of the three hold.
    Not reproduced: none of them holds.
    """
    trials = tables.trials("noise", "steps_to_target")
    moved = measures.movements(tables.read("percentiles", "step", "unit", "p15", "p50", "p85"))
    trials = trials.merge(moved, left_on="trial_id", right_index=True)
    curves = tables.recorded("curves", ("noise",), "train_loss")
    budget = trials.max_steps.max()
    arms = {name: pick(trials, batch_norm=arm, noise=noise) for name, (arm, noise) in _ARMS.items()}

    def learned(name):
        arm, noise = _ARMS[name]
        rows = pick(curves, batch_norm=arm, noise=noise)
        found = first_step(rows, -_LEARNED, -rows.train_loss)
        return intervals.of_median(found).shown("g", f">{budget}")

    kinds = ("moving_averages", "recalibrated")
    found = tables.recorded("recalibrated", ("noise", "target_accuracy"), *kinds)

    def recorded(name, statistics):
        """The first recorded step at which a part of the test set reaches the target."""
        arm, noise = _ARMS[name]
        rows = pick(found, batch_norm=arm, noise=noise)
        return first_step(rows, 0, rows[statistics] - rows.target_accuracy)

    jumps = {name: sample(arm, "jump") for name, arm in arms.items()}
    slower = ratio(steps(arms["batch norm with noise"]), steps(arms["batch norm"]))
    stopped = intervals.of_median(steps(arms["plain with noise"]))
    parts = {
        "noise makes batch norm's distributions less stable than the plain network's": check(
            ratio(jumps["batch norm with noise"], jumps["plain"]), "above", 1
        ),
        "batch norm with noise trains about as fast as without": check(slower, "at most", _AS_FAST),
        "the same noise stops the plain network": check(
            stopped, "above", budget, "g", f">{budget}"
        ),
    }
    farther, slower_by, plain_steps = (each.number for each in parts.values())
    slower_then = ratio(
        *(recorded(name, "recalibrated") for name in ("batch norm with noise", "batch norm"))
    )
    measured = (
        f"with noise, the distributions of batch norm jump {farther} times as far as the plain "
        f"network's; batch norm needs {slower_by} times the steps that it needs without noise (at "
        f"most {_AS_FAST:g} times counts as about as fast), but {slower_then.shown('.3g')} times "
        "if both have recalibrated statistics, at the recorded steps; the plain network with noise "
        f"needs {plain_steps} steps"
    )
    rows = [
        {
            "": name,
            f"Median steps to {100 * arm.target_accuracy.iloc[0]:g}%": in_steps(arm),
            **{
                f"The same at recorded steps, {statistics.replace('_', ' ')}": (
                    intervals.of_median(recorded(name, statistics)).shown("g", f">{budget}")
                    if name.startswith("batch norm")
                    else ""
                )
                for statistics in kinds
            },
            f"Median steps to a training loss of {_LEARNED:g}": learned(name),
            "Median jump, in spreads": intervals.of_median(arm.jump).shown(".2g"),
            "Median drift over the run, in spreads": intervals.of_median(arm.drift).shown(".2g"),
        }
        for name, arm in arms.items()
    ]
    return Finding(measured, all_parts(parts), rows)


def batch_norm_makes_the_loss_smoother(tables: StudyTables) -> Finding:
    """Claim 30, from networks without noise, along the gradient for 1/2 to 4 learning rates.

    Numbers are medians over seeds of a run's median over its recordings: the range of the loss, and
    the largest change of the gradient.

    Reproduced: both are smaller with batch norm (ratios below 1).
    Depends on the part: only one of the two is smaller.
    Not reproduced: neither is smaller.
    """
    names = ("multiple", "loss", "gradient_change")
    recorded = tables.recorded("landscape", ("noise",), *names)
    found = measures.ranges(pick(recorded, noise=0.0))
    found["relative"] = found.loss_range / found.loss
    columns = ["loss_range", "gradient_change", "loss", "relative"]
    runs = found.groupby("trial_id")[columns].median()
    trials = tables.trials("noise").merge(runs, left_on="trial_id", right_index=True)
    plain, normed = (pick(trials, batch_norm=arm, noise=0.0) for arm in (False, True))

    def compared(column):
        return ratio(sample(normed, column), sample(plain, column))

    parts = {
        "the loss varies less": check(compared("loss_range"), "below", 1),
        "the gradient changes less": check(compared("gradient_change"), "below", 1),
    }
    loss, gradient = (each.number for each in parts.values())
    measured = (
        f"with batch norm, the range of the loss along the gradient is {loss} times the plain "
        f"network's, and the change of the gradient {gradient} times"
    )
    rows = [
        {
            "Median over the run": title,
            "plain": intervals.of_median(plain[column]).shown(".3g"),
            "batch norm": intervals.of_median(normed[column]).shown(".3g"),
            "Ratio": compared(column).shown(".3g"),
        }
        for title, column in (
            ("range of the loss", "loss_range"),
            ("change of the gradient", "gradient_change"),
            ("loss", "loss"),
            ("range of the loss / loss", "relative"),
        )
    ]
    return Finding(measured, all_parts(parts), rows)


def _quiet(trial: Trial) -> bool:
    return dict(trial.options)["noise"] == 0


CLAIMS = {
    29: Claim(
        "With noise after it, batch norm's distributions are less stable than a plain network's, "
        "and it still trains about as fast; the same noise stops the plain network",
        "Santurkar et al. 2018",
        noise_moves_distributions_only,
    ),
    30: Claim(
        "Batch norm makes the loss smoother: along the gradient, the loss varies less and the "
        "gradient changes less",
        "Santurkar et al. 2018",
        batch_norm_makes_the_loss_smoother,
        needs=_quiet,
        charts="landscape",
    ),
}
