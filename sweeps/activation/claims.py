"""Claims on activations in deep networks."""

from __future__ import annotations

from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import (
    NEAR_CHANCE,
    StudyTables,
    in_steps,
    median_percent,
    median_steps,
    pick,
    within,
)
from sweeps.harness.claims.verdicts import NOT_REPRODUCED, REPRODUCED, Finding, all_or_some


def sigmoid_needs_batch_norm(tables: StudyTables) -> Finding:
    """4. Plain: best accuracy at most 20%. Batch norm: at most twice the steps of ReLU. Reproduced:
    both, for all seeds and for medians. Depends: on the seed, where some plain nets do better than
    chance; on the part, if one holds. Not reproduced: no plain net stays near chance."""
    trials = tables.trials("activation", "steps_to_target", "best_accuracy")
    plain = pick(trials, activation="sigmoid", batch_norm=False)
    sigmoid = pick(trials, activation="sigmoid", batch_norm=True)
    relu = pick(trials, activation="relu", batch_norm=True)
    stuck = int((plain.best_accuracy <= NEAR_CHANCE).sum())
    as_relu = within(median_steps(sigmoid), 2 * median_steps(relu))
    words = (
        f"plain: best accuracy {median_percent(plain.best_accuracy)}, {stuck}/{len(plain)} at "
        f"most {NEAR_CHANCE:.0%}; batch norm: {in_steps(sigmoid)} steps, ReLU {in_steps(relu)}"
    )
    if not stuck:
        return Finding(words, NOT_REPRODUCED)
    if stuck < len(plain):
        return Finding(words, f"depends on the seed: {stuck} of {len(plain)} stay near chance")
    if not as_relu:
        return Finding(words, "depends on the part: at chance without batch norm, slower with it")
    return Finding(words, REPRODUCED)


def elu_and_leaky_relu_resist(tables: StudyTables) -> Finding:
    """5. Each: at most as many median steps as ReLU, all without batch norm. Reproduced: both."""
    trials = pick(tables.trials("activation", "steps_to_target"), batch_norm=False)
    groups = {name: pick(trials, activation=name) for name in ("relu", "elu", "leaky_relu")}
    words = "plain: " + ", ".join(f"{name} {in_steps(group)}" for name, group in groups.items())
    bound = median_steps(groups["relu"])
    holds = {name: within(median_steps(groups[name]), bound) for name in ("elu", "leaky_relu")}
    return Finding(words, all_or_some(holds, "the activation"))


CLAIMS = {
    4: Claim(
        "7 layers of sigmoids stay near chance; with batch norm, about as many steps as ReLU",
        "Rawles 2018",
        sigmoid_needs_batch_norm,
    ),
    5: Claim(
        "ELU and leaky ReLU resist vanishing gradients without batch norm",
        "Rawles 2018",
        elu_and_leaky_relu_resist,
    ),
}
