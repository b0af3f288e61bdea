"""Claims on gradients from layer to layer."""

from __future__ import annotations

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import StudyTables, pick
from sweeps.harness.claims.verdicts import Finding, NotRunError, all_or_some
from sweeps.harness.trial import arm_name


def gradients_shrink(tables: StudyTables) -> Finding:
    """15. The depth study's deepest net at the start; ratio of the first hidden layer's norm to the
    last's. Holds: plain sigmoid below 0.1; plain ReLU, and either with batch norm, 1/3 to 3."""
    frame = _start_of(tables)
    widths = frame.hidden_units.astype(str).str.split("-").map(lambda each: len(set(each)))
    unequal = frame[widths > 1]
    if unequal.empty:
        raise NotRunError("a network of unequal layers")
    frame = unequal[unequal.depth == unequal.depth.max()]
    ratios = {}
    for name, arm in (("sigmoid", False), ("relu", False), ("sigmoid", True), ("relu", True)):
        rows = pick(frame, activation=name, batch_norm=arm).sort_values("layer")
        ends = rows.groupby("trial_id").gradient_norm.agg(["first", "last"])
        ratios[f"{arm_name(arm)} {name}"] = (ends["first"] / ends["last"]).median()
    words = f"{frame.depth.max()} layers, first / last: " + ", ".join(
        f"{name} {ratio:.2g}" for name, ratio in ratios.items()
    )
    holds = {
        name: ratio < 0.1 if name == "plain sigmoid" else 1 / 3 <= ratio <= 3
        for name, ratio in ratios.items()
    }
    return Finding(words, all_or_some(holds, "the network"))


def batch_norm_gradients_grow(tables: StudyTables) -> Finding:
    """16. ReLU with batch norm, equal layers, at the start: growth of the squared norm a layer
    towards the input, fitted over all layers but the last. Holds at a depth if from 1.32 to 1.62
    (1.47, 10% off). Hard to train: the deepest net's median final accuracy is ten points below that
    of the next deepest. Reproduced: all of it."""
    frame = pick(_start_of(tables), activation="relu", batch_norm=True)
    equal = frame.hidden_units.astype(str).str.split("-").map(lambda each: len(set(each)) == 1)
    frame = frame[equal & (frame.depth >= 10)]
    if frame.empty:
        raise NotRunError("a network of ten equal layers or more")
    words, holds = [], {}
    for depth, rows in frame.groupby("depth"):
        growth = [_growth(run) for _, run in rows.groupby("trial_id")]
        words.append(f"{depth} layers: {np.median(growth):.3g} a layer")
        holds[f"growth at {depth} layers"] = 1.32 <= np.median(growth) <= 1.62
    trials = pick(tables.trials("activation", "depth", "final_accuracy"), activation="relu")
    final = pick(trials, batch_norm=True).groupby("depth").final_accuracy.median()
    if len(final) < 2:
        raise NotRunError("networks of several depths")
    shown = ", ".join(f"{depth} layers {final[depth]:.1%}" for depth in final.index[-2:])
    words.append(f"accuracy after {trials.max_steps.max()} steps: {shown}")
    holds["the deepest is hard to train"] = final.iloc[-1] <= final.iloc[-2] - 0.1
    return Finding("; ".join(words), all_or_some(holds, "the depth"))


def _start_of(tables):
    """The gradients at the first recorded step, with the settings of their trials."""
    settings = ("depth", "hidden_units", "activation")
    frame = tables.recorded("gradients", settings, "layer", "gradient_norm")
    return frame[frame.step == frame.step.min()]


def _growth(run):
    """The factor by which the squared norm grows from a layer to the one below, fitted."""
    run = run[run.layer < run.layer.max()]
    slope = np.polyfit(run.layer.to_numpy(float), 2 * np.log(run.gradient_norm.to_numpy(float)), 1)
    return float(np.exp(-slope[0]))


CLAIMS = {
    15: Claim(
        "Plain gradients shrink towards the input (sigmoid strongly, ReLU hardly); batch norm "
        "keeps them level",
        "Ioffe & Szegedy 2015",
        gradients_shrink,
    ),
    16: Claim(
        "Deep ReLU nets with it: squared gradients grow 1.47 times a layer; 50 layers are hard",
        "Yang et al. 2019",
        batch_norm_gradients_grow,
    ),
}
