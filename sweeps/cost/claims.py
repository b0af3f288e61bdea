"""Claims on what batch norm costs.

Times are medians of contenders that took turns, and multiples are taken within rounds; see
`sweeps.cost`. A multiple over several sizes is their geometric mean.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from sweeps.cost.ratios import geometric_mean
from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import StudyTables, pick
from sweeps.harness.claims.verdicts import Finding, NotRunError, all_or_some
from sweeps.harness.results.tables import median, with_misses

_MUCH = 0.5  # much of a cost: the greater part of it
_THE_SAME = 0.05  # from one another: a twentieth, for which nobody would choose another network
_TO_TARGET = ["steps_to_target", "seconds_to_target"]


def less_gained_in_seconds(tables: StudyTables) -> Finding:
    """3. The depth study's networks, in its mode, with kerasbn's layer. Holds at a depth if a step
    with batch norm takes longer than a plain one in three rounds of four, and the median seconds to
    the target shrink by a smaller factor than the median steps."""
    steps = tables.read("steps", "what", "size", "mode", "contender", "over_plain", "over_plain_q1")
    steps = pick(steps, what="dense net", mode="graph", contender="kerasbn")
    steps = steps.set_index(steps["size"].astype(int))
    gains = _gains(tables.of_study("depth"))
    depths = [depth for depth in steps.index if depth in gains.index]
    words = [
        f"{depth}: {steps.over_plain[depth]:.2f}, {gains.steps[depth]:.2f}, "
        f"{gains.seconds[depth]:.2f}"
        for depth in depths
    ]
    holds = {
        str(depth): bool(
            steps.over_plain_q1[depth] > 1 and gains.seconds[depth] < gains.steps[depth]
        )
        for depth in depths
    }
    measured = (
        f"a step over plain's, plain over batch norm in steps and seconds: {'; '.join(words)}"
    )
    return Finding(measured, all_or_some(holds, "the depth"))


def fusing_takes_cost_away(tables: StudyTables) -> Finding:
    """23. A layer's training step in float32; cost: what it takes written by hand, an operation at
    a time. Holds for a way to fuse, on rows (500x100) or on images and sequences, if it takes away
    half of that or more."""
    layers = tables.read("layers", "size", "dtype", "mode", "contender", "median_microseconds")
    layers = pick(layers, dtype="float32")
    layers = layers.assign(
        input=np.where(layers["size"].str.count("x") == 1, "rows", "images and sequences")
    )
    unfused = _times(layers, "graph", "by hand")
    ways = {"kernel": ("graph", "kerasbn"), "XLA": ("xla", "by hand")}
    words, holds = [], {}
    for way, (mode, contender) in ways.items():
        left = (_times(layers, mode, contender) / unfused).dropna()
        for name, ratios in left.groupby(level="input", sort=False):
            taken = 1 - geometric_mean(ratios)
            words.append(
                f"{way} on {name} {taken:.0%} ({1 - ratios.max():.0%} to {1 - ratios.min():.0%})"
            )
            holds[f"{way} on {name}"] = taken >= _MUCH
    measured = f"of the time of separate operations, taken away: {', '.join(words)}"
    return Finding(measured, all_or_some(holds, "the way and the input"))


def folded_costs_as_plain(tables: StudyTables) -> Finding:
    """24. Holds for a kind of network, in a mode, if the folded one's inference pass takes from
    0.95 to 1.05 of the plain one's."""
    passes = tables.read("inference", "what", "size", "mode", "contender", "over_plain")
    passes = pick(passes[passes.what != "layer"], contender="folded").dropna(subset=["over_plain"])
    words, holds = [], {}
    for (what, mode), rows in passes.groupby(["what", "mode"], sort=False):
        multiple = geometric_mean(rows.over_plain)
        spread = f" ({rows.over_plain.min():.2f} to {rows.over_plain.max():.2f})"
        words.append(f"{what} in {mode} {multiple:.2f}{spread if len(rows) > 1 else ''}")
        holds[f"{what} in {mode}"] = abs(multiple - 1) <= _THE_SAME
    return Finding(
        f"folded over plain: {', '.join(words)}", all_or_some(holds, "the network and the mode")
    )


def _gains(tables):
    """By depth, plain over batch norm: median steps and seconds to the target, where both are
    finite for both."""
    trials = tables.trials("depth", "bn_layer", "jit_compile", *_TO_TARGET)
    trials = pick(trials, jit_compile=False)
    trials = trials[~trials.batch_norm | (trials.bn_layer == "kerasbn")]
    gains = {}
    for depth, group in trials.groupby("depth"):
        of_arm = {
            arm: np.array([median(with_misses(rows[name])) for name in _TO_TARGET])
            for arm, rows in group.groupby("batch_norm")
        }
        if len(of_arm) == 2 and np.isfinite([*of_arm.values()]).all():
            gains[depth] = of_arm[False] / of_arm[True]
    if not gains:
        raise NotRunError("a depth at which the median of both arms reaches the target")
    return pd.DataFrame.from_dict(gains, orient="index", columns=["steps", "seconds"])


def _times(layers, mode, contender):
    """Microseconds by input and size."""
    rows = pick(layers, mode=mode, contender=contender)
    return rows.set_index(["input", "size"]).median_microseconds


CLAIMS = {
    3: Claim(
        "A batch-norm step costs more: less is gained in seconds",
        "Rawles 2018",
        less_gained_in_seconds,
    ),
    23: Claim(
        "Fusing (a kernel of its own, XLA) takes much of batch norm's cost away",
        "practice",
        fusing_takes_cost_away,
    ),
    24: Claim(
        "A folded net costs what the plain net costs",
        "practice",
        folded_costs_as_plain,
    ),
}
