"""Claims about activations in deep networks."""

from __future__ import annotations

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import (
    CHANCE,
    NEAR_CHANCE,
    StudyTables,
    in_steps,
    median_percent,
    median_steps,
    pick,
    within,
)
from sweeps.harness.claims.verdicts import (
    NOT_REPRODUCED,
    REPRODUCED,
    Finding,
    UndecidedError,
    all_or_some,
)
from sweeps.harness.claims.wording import listed, spelled

_ACTIVATIONS = ("relu", "elu", "leaky_relu")


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
    if not np.isfinite(median_steps(relu)):
        raise UndecidedError("the baseline, ReLU with batch norm, does not reach the target")
    as_relu = within(median_steps(sigmoid), 2 * median_steps(relu))
    words = (
        f"plain sigmoid has a median best accuracy of {median_percent(plain.best_accuracy)} "
        f"(chance is {CHANCE:.0%}), and {stuck}/{len(plain)} runs stay near chance, at "
        f"{NEAR_CHANCE:.0%} or below; median steps with batch norm: sigmoid {in_steps(sigmoid)}, "
        f"ReLU {in_steps(relu)} (at most twice as many count as about as many)"
    )
    if not stuck:
        return Finding(words, NOT_REPRODUCED)
    if stuck < len(plain):
        return Finding(
            words, f"depends on the seed: {stuck} of {len(plain)} plain runs stay near chance"
        )
    if not as_relu:
        return Finding(
            words,
            "depends on the part: plain sigmoids stay near chance, but with batch norm they need "
            "more than twice the steps of ReLUs",
        )
    return Finding(words, REPRODUCED)


def elu_and_leaky_relu_resist(tables: StudyTables) -> Finding:
    """Claim 5, from the median steps to the target without batch norm.

    An activation resists if it needs at most as many steps as ReLU.

    Reproduced: both ELU and leaky ReLU resist.
    Depends on the activation: one of them resists.
    Not reproduced: neither resists.
    """
    trials = pick(tables.trials("activation", "steps_to_target"), batch_norm=False)
    groups = {name: pick(trials, activation=name) for name in _ACTIVATIONS}
    steps = listed(f"{spelled(name)} {in_steps(group)}" for name, group in groups.items())
    words = f"median steps without batch norm: {steps}"
    bound = median_steps(groups["relu"])
    if not np.isfinite(bound):
        raise UndecidedError("the baseline, plain ReLU, does not reach the target")
    holds = {
        spelled(name): within(median_steps(groups[name]), bound) for name in ("elu", "leaky_relu")
    }
    reason = f"{listed(holds)} need more steps than ReLU"
    return Finding(words, all_or_some(holds, "the activation", reason=reason))


CLAIMS = {
    4: Claim(
        "Seven layers of sigmoids stay near chance without batch norm; with batch norm, they need "
        "about as many steps as ReLUs",
        "Rawles 2018",
        sigmoid_needs_batch_norm,
        needs=lambda trial: (
            trial.activation == "sigmoid" or (trial.activation == "relu" and trial.batch_norm)
        ),
    ),
    5: Claim(
        "ELU and leaky ReLU resist vanishing gradients without batch norm",
        "Rawles 2018",
        elu_and_leaky_relu_resist,
        needs=lambda trial: not trial.batch_norm and trial.activation in _ACTIVATIONS,
    ),
}
