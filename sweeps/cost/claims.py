"""Claims about the cost of batch norm.

Times are medians over rounds, and ratios are taken within rounds; see `sweeps.cost`. The mean of
ratios over several sizes is geometric.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from sweeps.cost.ratios import geometric_mean
from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import StudyTables, pick
from sweeps.harness.claims.verdicts import Finding, UndecidedError, all_or_some
from sweeps.harness.claims.wording import MODES, listed
from sweeps.harness.results.tables import median, with_misses

_MUCH = 0.5  # share of the cost that counts as much of it
_THE_SAME = 0.05  # largest relative difference between equal costs
_TO_TARGET = ["steps_to_target", "seconds_to_target"]


def less_gained_in_seconds(tables: StudyTables) -> Finding:
    """Claim 3, from the depth study's networks with kerasbn's layer in graph mode.

    The claim holds at a depth if a step with batch norm takes longer than a plain one in at least
    three of four rounds, and batch norm divides the median seconds to the target by a smaller
    factor than the median steps.

    Reproduced: the claim holds at every depth.
    Depends on the depth: the claim holds at some depths.
    Not reproduced: the claim holds at no depth.
    """
    steps = tables.read("steps", "what", "size", "mode", "contender", "over_plain", "over_plain_q1")
    steps = pick(steps, what="dense net", mode="graph", contender="kerasbn")
    steps = steps.set_index(steps["size"].astype(int))
    gains = _gains(tables.of_study("depth"))
    depths = [depth for depth in steps.index if depth in gains.index]
    costs, fewer, less = (
        listed(f"{values[depth]:.2f}" for depth in depths)
        for values in (steps.over_plain, gains.steps, gains.seconds)
    )
    holds = {
        str(depth): bool(
            steps.over_plain_q1[depth] > 1 and gains.seconds[depth] < gains.steps[depth]
        )
        for depth in depths
    }
    measured = (
        f"with {listed(map(str, depths))} hidden layers, a step costs {costs} times as much with "
        f"batch norm as without; batch norm divides the steps to the target by {fewer}, and the "
        f"seconds by {less}"
    )
    return Finding(measured, all_or_some(holds, "the depth", "at"))


def fusing_takes_cost_away(tables: StudyTables) -> Finding:
    """Claim 23, from the times of a layer's training step in float32.

    The cost is the time of batch norm written by hand as separate operations. The claim holds for a
    method of fusing and a kind of input (rows, such as 500x100, or images or sequences) if the
    method saves at least half of that time.

    Reproduced: the claim holds for every method and kind of input.
    Depends on the method and the input: the claim holds for some of them.
    Not reproduced: the claim holds for none of them.
    """
    layers = tables.read("layers", "size", "dtype", "mode", "contender", "median_microseconds")
    layers = pick(layers, dtype="float32")
    layers = layers.assign(
        input=np.where(layers["size"].str.count("x") == 1, "rows", "images or sequences")
    )
    unfused = _times(layers, "graph", "by hand")
    methods = {"a kernel": ("graph", "kerasbn"), "XLA": ("xla", "by hand")}
    words, holds = [], {}
    for method, (mode, contender) in methods.items():
        left = (_times(layers, mode, contender) / unfused).dropna()
        for name, ratios in left.groupby(level="input", sort=False):
            saved = 1 - geometric_mean(ratios)
            words.append(
                f"{saved:.0%} with {method} on {name} ({1 - ratios.max():.0%} to "
                f"{1 - ratios.min():.0%})"
            )
            holds[f"{method} on {name}"] = saved >= _MUCH
    measured = (
        f"of the time of separate operations, fusing saves {listed(words)}; {_MUCH:.0%} or more "
        "counts as much"
    )
    return Finding(measured, all_or_some(holds, "the method and the input"))


def folded_costs_as_plain(tables: StudyTables) -> Finding:
    """Claim 24, from the times of inference passes of folded and plain networks.

    The claim holds for a kind of network in a mode if the folded network takes 0.95 to 1.05 times
    as long as the plain one.

    Reproduced: the claim holds for every kind of network in every mode.
    Depends on the network and the mode: the claim holds for some of them.
    Not reproduced: the claim holds for none of them.
    """
    passes = tables.read("inference", "what", "size", "mode", "contender", "over_plain")
    passes = pick(passes[passes.what != "layer"], contender="folded").dropna(subset=["over_plain"])
    words, holds = [], {}
    for (what, mode), rows in passes.groupby(["what", "mode"], sort=False):
        multiple = geometric_mean(rows.over_plain)
        spread = f" ({rows.over_plain.min():.2f} to {rows.over_plain.max():.2f})"
        name = f"{what} {MODES.get(mode, mode)}"
        words.append(f"{name} {multiple:.2f}{spread if len(rows) > 1 else ''}")
        holds[name] = abs(multiple - 1) <= _THE_SAME
    return Finding(
        f"inference time of the folded network divided by that of the plain one: {listed(words)}; "
        f"{1 - _THE_SAME:.2f} to {1 + _THE_SAME:.2f} counts as equal",
        all_or_some(holds, "the network and the mode"),
    )


def _gains(tables):
    """Plain over batch norm in median steps and seconds to the target, by depth.

    A depth at which one of the medians is infinite is left out.
    """
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
        raise UndecidedError(
            "there is no depth at which the median of both arms reaches the target"
        )
    return pd.DataFrame.from_dict(gains, orient="index", columns=["steps", "seconds"])


def _times(layers, mode, contender):
    """A contender's microseconds, by kind of input and size."""
    rows = pick(layers, mode=mode, contender=contender)
    return rows.set_index(["input", "size"]).median_microseconds


CLAIMS = {
    3: Claim(
        "A training step costs more with batch norm, so batch norm saves less time than steps",
        "Rawles 2018",
        less_gained_in_seconds,
    ),
    23: Claim(
        "Fusing, in a dedicated kernel or by XLA, removes much of batch norm's cost",
        "practice",
        fusing_takes_cost_away,
    ),
    24: Claim(
        "In inference, a folded network costs as much as a plain network",
        "practice",
        folded_costs_as_plain,
    ),
}
