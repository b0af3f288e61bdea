"""Claims about the cost of batch norm.

Times are medians over rounds, and ratios are taken within rounds; see `sweeps.cost`. The mean of
ratios over several sizes is geometric.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from sweeps.cost.ratios import geometric_mean
from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import both, check, check_between, ratio, sample, statistic
from sweeps.harness.claims.evidence import StudyTables, pick
from sweeps.harness.claims.verdicts import Finding, UndecidedError, all_or_some
from sweeps.harness.claims.wording import MODES, listed
from sweeps.harness.results import intervals
from sweeps.harness.results.intervals import SEEDS_NEEDED, Interval
from sweeps.harness.wording import counted

_MUCH = 0.5  # share of the cost that counts as much of it
_THE_SAME = 0.05  # largest relative difference between equal costs
_TO_TARGET = ["steps_to_target", "seconds_to_target"]


def less_gained_in_seconds(tables: StudyTables) -> Finding:
    """Claim 3, from the depth study's networks with kerasbn's layer in graph mode.

    The claim holds at a depth if a step with batch norm takes longer than a plain one, and batch
    norm divides the median seconds to the target by a smaller factor than the median steps: the
    first factor over the second is below 1.

    Reproduced: the claim holds at every depth.
    Depends on the depth: the claim holds at some depths.
    Not reproduced: the claim holds at no depth.
    """
    names = ("size", "over_plain", "over_plain_q1", "over_plain_q3", "rounds")
    costs = tables.read("steps", "what", "mode", "contender", *names)
    costs = pick(costs, what="dense net", mode="graph", contender="kerasbn")
    costs = {int(row.size): _over_plain([row]) for row in costs[[*names]].itertuples(index=False)}
    gains = _gains(tables.of_study("depth"))
    checks, rows = {}, []
    for depth in [depth for depth in costs if depth in gains]:
        samples = gains[depth]
        cost = check(costs[depth], "above", 1)
        less = check(statistic(_gain_in_seconds_over_gain_in_steps, *samples), "below", 1)
        checks[str(depth)] = both(cost, less)
        rows.append(
            {
                "Hidden layers": str(depth),
                "Cost of a step over plain (above 1)": cost.number,
                "Gain in steps": ratio(*samples[:2]).shown(".3g"),
                "Gain in seconds": ratio(*samples[2:]).shown(".3g"),
                "Second over first (below 1)": less.number,
                "Fewer seconds with probability": (
                    f"{intervals.probability_less(samples[3], samples[2]):.2f}"
                ),
            }
        )
    verdict = all_or_some(checks, "the depth", "at")
    last = rows[-1]
    measured = (
        f"with {last['Hidden layers']} hidden layers, batch norm divides the steps by "
        f"{last['Gain in steps']} and the seconds by {last['Gain in seconds']}"
    )
    return Finding(measured, verdict, rows)


def fusing_takes_cost_away(tables: StudyTables) -> Finding:
    """Claim 23, from the times of a layer's training step in float32.

    The cost is the time of batch norm written by hand as separate operations. The claim holds for a
    method of fusing and a kind of input (rows, such as 500x100, or images or sequences) if the
    method saves at least half of that time. The intervals are over sizes of the input.

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
    checks, rows = {}, []
    for method, (mode, contender) in methods.items():
        left = (_times(layers, mode, contender) / unfused).dropna()
        for kind, ratios in left.groupby(level="input", sort=False):
            name = f"{method} on {kind}"
            checks[name] = check(_mean_saved(ratios), "at least", _MUCH, ".0%")
            least, most = 1 - ratios.max(), 1 - ratios.min()
            rows.append(
                {
                    "Fusing by": name,
                    "Saved": checks[name].number,
                    "Least and most over sizes": f"{least:.0%} to {most:.0%}",
                    "Sizes": str(len(ratios)),
                }
            )
    shown = listed(f"{each.number} with {name}" for name, each in checks.items())
    measured = (
        f"share of the time of separate operations that fusing saves: {shown}; {_MUCH:.0%} or more "
        "counts as much"
    )
    return Finding(measured, all_or_some(checks, "the method and the input"), rows)


def folded_costs_as_plain(tables: StudyTables) -> Finding:
    """Claim 24, from the times of inference passes of folded and plain networks.

    The claim holds for a kind of network in a mode if the folded network takes 0.95 to 1.05 times
    as long as the plain one.

    Reproduced: the claim holds for every kind of network in every mode.
    Depends on the network and the mode: the claim holds for some of them.
    Not reproduced: the claim holds for none of them.
    """
    names = ("over_plain", "over_plain_q1", "over_plain_q3", "rounds")
    passes = tables.read("inference", "what", "size", "mode", "contender", *names)
    passes = pick(passes[passes.what != "layer"], contender="folded").dropna(subset=["over_plain"])
    checks, rows = {}, []
    for (what, mode), group in passes.groupby(["what", "mode"], sort=False):
        name = f"{what} {MODES.get(mode, mode)}"
        mean = _over_plain(list(group.itertuples()))
        checks[name] = check_between(mean, 1 - _THE_SAME, 1 + _THE_SAME, ".2f")
        rows.append(
            {
                "Network": name,
                "Time over that of the plain network": checks[name].number,
                "Least and most over sizes": (
                    f"{group.over_plain.min():.2f} to {group.over_plain.max():.2f}"
                ),
                "Sizes": str(len(group)),
            }
        )
    shown = listed(f"{name} {each.number}" for name, each in checks.items())
    measured = (
        f"time of the folded network over that of the plain one: {shown}; {1 - _THE_SAME:.2f} to "
        f"{1 + _THE_SAME:.2f} counts as equal"
    )
    return Finding(measured, all_or_some(checks, "the network and the mode"), rows)


def _over_plain(rows):
    """The geometric mean over sizes of the time over that of the plain network.

    The tables hold quartiles over rounds. The interval of a median over n rounds lies between the
    quantiles 0.5 -+ 0.98 / sqrt(n), which are interpolated from the median and the quartiles. The
    sizes are measured in different rounds, so the squares of the relative widths add up.
    """
    if (rounds := min(row.rounds for row in rows)) < SEEDS_NEEDED:
        raise UndecidedError(
            f"{counted(rounds, 'round')} cannot give a 95% interval for a median; six are needed"
        )
    mean = geometric_mean(pd.Series([row.over_plain for row in rows]))
    low, high = (
        np.linalg.norm(
            [
                (getattr(row, quartile) / row.over_plain - 1) * 0.98 / 0.25 / row.rounds**0.5
                for row in rows
            ]
        )
        / len(rows)
        for quartile in ("over_plain_q1", "over_plain_q3")
    )
    return Interval(mean, mean * (1 - low), mean * (1 + high), rounds)


def _mean_saved(ratios):
    """One minus the geometric mean of ratios, with a bootstrap interval over them."""

    def saved(logarithms, axis):
        return 1 - np.exp(np.mean(logarithms, axis=axis))

    return intervals.bootstrap(saved, np.log(ratios.to_numpy(float)), paired=False)


def _gains(tables):
    """Steps and seconds to the target by depth: plain steps, batch norm's steps, and the seconds.

    A depth at which one of the medians is infinite is left out.
    """
    trials = tables.trials("depth", "bn_layer", "jit_compile", *_TO_TARGET)
    trials = pick(trials, jit_compile=False)
    trials = trials[~trials.batch_norm | (trials.bn_layer == "kerasbn")]
    gains = {}
    for depth, group in trials.groupby("depth"):
        samples = [
            sample(group[group.batch_norm == arm], name) for name in _TO_TARGET for arm in (0, 1)
        ]
        if all(len(each) and np.isfinite(each.median()) for each in samples):
            gains[depth] = samples
    if not gains:
        raise UndecidedError(
            "there is no depth at which the median of both arms reaches the target"
        )
    return gains


def _gain_in_seconds_over_gain_in_steps(plain_steps, steps, plain_seconds, seconds):
    return (plain_seconds / seconds) / (plain_steps / steps)


def _times(layers, mode, contender):
    """A contender's microseconds, by kind of input and size."""
    rows = pick(layers, mode=mode, contender=contender)
    return rows.set_index(["input", "size"]).median_microseconds


CLAIMS = {
    3: Claim(
        "A training step costs more with batch norm, so batch norm saves less time than steps",
        "Rawles 2018",
        less_gained_in_seconds,
        charts="steps_by_depth_*",
    ),
    23: Claim(
        "Fusing, in a dedicated kernel or by XLA, removes much of batch norm's cost",
        "practice",
        fusing_takes_cost_away,
        charts="layers_*_float32",
    ),
    24: Claim(
        "In inference, a folded network costs as much as a plain network",
        "practice",
        folded_costs_as_plain,
        charts="inference_by_depth_*",
    ),
}
