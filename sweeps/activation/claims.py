"""Claims about activations in deep networks."""

from __future__ import annotations

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import check, ratio
from sweeps.harness.claims.evidence import (
    CHANCE,
    NEAR_CHANCE,
    StudyTables,
    in_steps,
    pick,
    steps,
)
from sweeps.harness.claims.verdicts import (
    REPRODUCED,
    Finding,
    UndecidedError,
    all_or_some,
    some_of,
    undecided,
)
from sweeps.harness.claims.wording import listed, network, spelled
from sweeps.harness.results import intervals

_ACTIVATIONS = ("relu", "elu", "leaky_relu")
_ABOUT_AS_MANY = 2  # largest ratio of steps


def sigmoid_needs_batch_norm(tables: StudyTables) -> Finding:
    """Claim 4, from best accuracies without batch norm and median steps to the target with it.

    A plain sigmoid network stays near chance if its best accuracy is at most 20%.

    Reproduced: all plain sigmoid networks stay near chance, and with batch norm sigmoids need at
        most twice the steps of ReLUs.
    Depends on the seed: only some of the plain sigmoid networks stay near chance.
    Depends on the part: all of them do, but with batch norm sigmoids need more than twice the steps
        of ReLUs.
    Not reproduced: no plain sigmoid network stays near chance.
    """
    trials = tables.trials("activation", "steps_to_target", "best_accuracy")
    plain = pick(trials, activation="sigmoid", batch_norm=False)
    sigmoid = pick(trials, activation="sigmoid", batch_norm=True)
    relu = pick(trials, activation="relu", batch_norm=True)
    stuck = int((plain.best_accuracy <= NEAR_CHANCE).sum())
    if not np.isfinite(steps(relu).median()):
        raise UndecidedError("the baseline, ReLU with batch norm, does not reach the target")
    as_relu = check(ratio(steps(sigmoid), steps(relu)), "at most", _ABOUT_AS_MANY)
    share = intervals.of_share(stuck, len(plain)).shown(".0%")
    best = intervals.of_median(plain.best_accuracy).shown(".1%")
    measured = (
        f"{stuck}/{len(plain)} plain sigmoid networks stay near chance; with batch norm, sigmoids "
        f"need {as_relu.number} times the steps of ReLUs"
    )
    rows = [
        {"": f"Best accuracy of {network('sigmoid', False)}", "Median": best},
        {
            "": f"Share of these at {NEAR_CHANCE:.0%} or below (chance: {CHANCE:.0%})",
            "Median": share,
        },
        {"": f"Steps of {network('sigmoid', True)}", "Median": in_steps(sigmoid)},
        {"": f"Steps of {network('relu', True)}", "Median": in_steps(relu)},
    ]
    verdict = some_of(stuck, len(plain), "the seed")
    if verdict == REPRODUCED and as_relu.holds is None:
        verdict = undecided({"the steps": as_relu})
    if verdict == REPRODUCED and not as_relu.holds:
        verdict = (
            "depends on the part: plain sigmoids stay near chance, but with batch norm they need "
            "more than twice the steps of ReLUs"
        )
    return Finding(measured, verdict, rows)


def elu_and_leaky_relu_resist(tables: StudyTables) -> Finding:
    """Claim 5, from the median steps to the target without batch norm.

    An activation resists if it needs at most as many steps as ReLU.

    Reproduced: both ELU and leaky ReLU resist.
    Depends on the activation: one of them resists.
    Not reproduced: neither resists.
    """
    trials = pick(tables.trials("activation", "steps_to_target"), batch_norm=False)
    groups = {name: pick(trials, activation=name) for name in _ACTIVATIONS}
    relu = steps(groups["relu"])
    if not np.isfinite(relu.median()):
        raise UndecidedError("the baseline, plain ReLU, does not reach the target")
    checks = {
        spelled(name): check(ratio(steps(groups[name]), relu), "at most", 1)
        for name in ("elu", "leaky_relu")
    }
    shown = listed(f"{name} {each.number}" for name, each in checks.items())
    measured = f"steps without batch norm over those of ReLU: {shown}; at most 1 is needed"
    rows = [
        {"": network(name, False), "Median steps": in_steps(group)}
        for name, group in groups.items()
    ]
    reason = f"{listed(checks)} need more steps than ReLU"
    return Finding(measured, all_or_some(checks, "the activation", reason=reason), rows)


CLAIMS = {
    4: Claim(
        "Seven layers of sigmoids stay near chance without batch norm; with batch norm, they need "
        "about as many steps as ReLUs",
        "Rawles 2018",
        sigmoid_needs_batch_norm,
        needs=lambda trial: (
            trial.activation == "sigmoid" or (trial.activation == "relu" and trial.batch_norm)
        ),
        charts="steps_to_target",
    ),
    5: Claim(
        "ELU and leaky ReLU resist vanishing gradients without batch norm",
        "Rawles 2018",
        elu_and_leaky_relu_resist,
        needs=lambda trial: not trial.batch_norm and trial.activation in _ACTIVATIONS,
        charts="steps_to_target",
    ),
}
