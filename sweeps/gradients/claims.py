"""Claims about gradients from layer to layer."""

from __future__ import annotations

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import check, check_between, difference, sample
from sweeps.harness.claims.evidence import StudyTables, pick
from sweeps.harness.claims.verdicts import Finding, UndecidedError, all_or_some
from sweeps.harness.claims.wording import layers, listed, network
from sweeps.harness.results import intervals
from sweeps.harness.trial import HIDDEN_UNITS


def gradients_shrink(tables: StudyTables) -> Finding:
    """Claim 15, from the gradient norm at the first hidden layer over that at the last.

    Ratios are medians over seeds, at the start, in the deepest of the depth study's networks. The
    claim holds for plain sigmoid below a ratio of 0.1, and for plain ReLU and both activations with
    batch norm from 1/3 to 3.

    Reproduced: the claim holds for all four networks.
    Depends on the network: the claim holds for some of the networks.
    Not reproduced: the claim holds for none of the networks.
    """
    frame = _start_of(tables)
    widths = frame.hidden_units.astype(str).str.split("-").map(lambda each: len(set(each)))
    unequal = frame[widths > 1]
    if unequal.empty:
        raise UndecidedError("the claim needs a network with unequal layers")
    frame = unequal[unequal.depth == unequal.depth.max()]
    last = frame.depth.max()
    checks = {}
    for activation, arm in (("sigmoid", False), ("relu", False), ("sigmoid", True), ("relu", True)):
        rows = pick(frame, activation=activation, batch_norm=arm).sort_values("layer")
        ends = rows.groupby("trial_id").gradient_norm.agg(["first", "last"])
        ratio = intervals.of_median(ends["first"] / ends["last"])
        shrinks = (activation, arm) == ("sigmoid", False)
        checks[network(activation, arm)] = (
            check(ratio, "below", 0.1, ".2g") if shrinks else check_between(ratio, 1 / 3, 3, ".2g")
        )
    shown = listed(f"{name} {each.number}" for name, each in checks.items())
    measured = (
        f"gradient norm at layer 1 over that at layer {last}: {shown}; below 0.1 counts as strong "
        "shrinking, and 1/3 to 3 as level"
    )
    return Finding(measured, all_or_some(checks, "the network"))


def batch_norm_gradients_grow(tables: StudyTables) -> Finding:
    """Claim 16, from ReLU networks with batch norm and at least ten equal layers.

    Growth is the factor per layer, towards the input, of the squared gradient norm at the start. It
    is fitted over all layers but the last. The growth holds at a depth if its median is within 10%
    of 1.47, from 1.32 to 1.62. The deepest network is hard to train if its median final accuracy is
    at least ten percentage points below that of the next shallower one.

    Reproduced: the growth holds at every depth, and the deepest network is hard to train.
    Depends on the depth: some of these hold.
    Not reproduced: none of these holds.
    """
    frame = pick(_start_of(tables), activation="relu", batch_norm=True)
    equal = frame.hidden_units.astype(str).str.split("-").map(lambda each: len(set(each)) == 1)
    frame = frame[equal & (frame.depth >= 10)]
    if frame.empty:
        raise UndecidedError("the claim needs a network with ten or more equal layers")
    checks, growths = {}, []
    for depth, rows in frame.groupby("depth"):
        growth = intervals.of_median([_growth(run) for _, run in rows.groupby("trial_id")])
        checks[f"growth at {layers(depth)}"] = check_between(growth, 1.32, 1.62)
        growths.append(f"{growth.shown('.3g')} with {layers(depth)}")
    trials = pick(tables.trials("activation", "depth", "final_accuracy"), activation="relu")
    final = {
        depth: 100 * sample(group, "final_accuracy", blank=0.0)
        for depth, group in pick(trials, batch_norm=True).groupby("depth")
    }
    if len(final) < 2:
        raise UndecidedError("the claim needs networks of several depths")
    shallower, deepest = list(final)[-2:]
    lost = check(difference(final[shallower], final[deepest]), "at least", 10)
    checks["the deepest network is hard to train"] = lost
    measured = (
        "towards the input, the squared gradient norm grows per layer by a factor of "
        f"{listed(growths)} (1.32 to 1.62 counts as 1.47); {layers(deepest)} are {lost.number} "
        f"points less accurate than {layers(shallower)} (10 or more count as hard to train)"
    )
    rows = [
        {
            "Hidden layers": str(depth),
            f"Median accuracy after {trials.max_steps.max()} steps": (
                intervals.of_median(each / 100).shown(".1%")
            ),
        }
        for depth, each in final.items()
    ]
    return Finding(measured, all_or_some(checks, "the depth"), rows)


def _start_of(tables):
    """The gradients at the first recorded step, with the settings of their trials."""
    settings = ("depth", "hidden_units", "activation")
    frame = tables.recorded("gradients", settings, "layer", "gradient_norm")
    return frame[frame.step == frame.step.min()]


def _growth(run):
    """The fitted factor by which the squared norm grows from one layer to the one below."""
    run = run[run.layer < run.layer.max()]
    slope = np.polyfit(run.layer.to_numpy(float), 2 * np.log(run.gradient_norm.to_numpy(float)), 1)
    return float(np.exp(-slope[0]))


CLAIMS = {
    15: Claim(
        "Without batch norm, gradients shrink towards the input, strongly with sigmoids and hardly "
        "with ReLUs; batch norm keeps gradients level",
        "Ioffe & Szegedy 2015",
        gradients_shrink,
        needs=lambda trial: trial.hidden_units == HIDDEN_UNITS,
        charts="gradients_7_layers",
    ),
    16: Claim(
        "In deep ReLU networks with batch norm, squared gradients grow 1.47 times per layer "
        "towards the input, and 50 layers are hard to train",
        "Yang et al. 2019",
        batch_norm_gradients_grow,
        needs=lambda trial: trial.activation == "relu" and trial.batch_norm,
        charts="gradients_?0_layers",
    ),
}
