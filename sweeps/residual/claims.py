"""Claims about residual networks."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import check, check_between, difference, statistic
from sweeps.harness.claims.evidence import NEAR_CHANCE, StudyTables, pick
from sweeps.harness.claims.verdicts import Finding, UndecidedError, all_parts
from sweeps.harness.results import intervals
from sweeps.residual import measures
from sweeps.residual.measures import NAMES

_SLOPE = (-1.1, -0.9)  # of log share against log (l + 1)
_LEVEL = (0.8, 1.25)  # of share times (l + 1)
_TRAINED = 0.9  # accuracy of a network that has learned
_AS_WELL = -0.02  # smallest difference in accuracy between SkipInit and batch norm
_SAME, _LARGER = 2, 4  # ratios of best learning rates, on a grid of powers of two


def branches_share_falls_with_depth(tables: StudyTables) -> Finding:
    """Claim 39, from the branch's share of the variance at block l of the deepest networks.

    The slope is that of the straight line fitted to log share against log (l + 1), over all blocks.
    The level is the geometric mean of share times (l + 1). With a share of exactly 1 / (l + 1), the
    slope is -1 and the level is 1.

    Reproduced: with batch norm, the slope is -1.1 to -0.9 and the level is 0.8 to 1.25.
    Depends on the part: only one of the two holds.
    Not reproduced: neither holds.
    """
    rows = tables.recorded("branches", ("depth", "branch", "learning_rate"), "block", "share")
    rows = rows[(rows.depth == rows.depth.max()) & (rows.step == 0)]
    rows = rows.drop_duplicates(["branch", "seed", "block"])  # all rates start equal
    normed = pick(rows, branch="batch_norm")
    slopes = normed.groupby("seed").apply(_slope, include_groups=False)
    levels = normed.groupby("seed").apply(_level, include_groups=False)
    depth = normed.depth.max()
    checks = {
        "the share falls as 1 / (l + 1)": check_between(intervals.of_median(slopes), *_SLOPE),
        "the share is about 1 / (l + 1)": check_between(intervals.of_median(levels), *_LEVEL),
    }
    slope, level = (each.number for each in checks.values())
    measured = (
        f"in networks of {depth} blocks with batch norm, the share falls as (l + 1) to the power "
        f"of {slope}, and it is {level} times 1 / (l + 1); the paper derives 1 / (l + 1)"
    )
    shown = [block for block in (1, 10, 100, depth) if block <= depth]
    table = [
        {
            "Block": str(block),
            "1 / (l + 1)": f"{1 / (block + 1):.3g}",
            **{
                f"Share, {NAMES[branch]}": intervals.of_median(
                    pick(rows, branch=branch, block=block).share
                ).shown(".3g")
                for branch in NAMES
                if branch in set(rows.branch)
            },
        }
        for block in dict.fromkeys(shown)
    ]
    return Finding(measured, all_parts(checks), table)


def only_plain_networks_fail(tables: StudyTables) -> Finding:
    """Claim 40, from the final accuracy of the deepest networks, each at its best learning rate.

    The best rate is the one with the highest median. It is chosen from the same runs, which favors
    all three branches. A diverged run has an accuracy of 0.

    Reproduced: plain networks stay below an accuracy of 0.2 (chance is 0.1), networks with batch
    norm reach at least 0.9, and SkipInit is at most 0.02 below batch norm.
    Depends on the part: only some of the three hold.
    Not reproduced: none holds.
    """
    trials = pick(_trials(tables), part="depth")
    found = {
        depth: {
            branch: _at_best_rate(of_branch)
            for branch, of_branch in measures.by_branch(group).items()
        }
        for depth, group in trials.groupby("depth")
    }
    depth = max(found)
    if set(found[depth]) != set(NAMES):
        raise UndecidedError(f"the claim needs networks of {depth} blocks with all three branches")
    deepest = found[depth]
    checks = {
        "plain networks fail": check(intervals.of_median(deepest["plain"]), "below", NEAR_CHANCE),
        "batch norm trains": check(
            intervals.of_median(deepest["batch_norm"]), "at least", _TRAINED
        ),
        "SkipInit trains as well": check(
            difference(deepest["skip_init"], deepest["batch_norm"]), "at least", _AS_WELL
        ),
    }
    plain, normed, gap = (each.number for each in checks.values())
    measured = (
        f"with {depth} blocks, the accuracy is {plain} for plain branches and {normed} with batch "
        f"norm; SkipInit minus batch norm is {gap}; in the paper, SkipInit trains 1,000 layers "
        "without normalization"
    )
    rows = [
        {
            "Blocks": str(depth),
            **{
                f"Accuracy, {NAMES[branch]}": intervals.of_median(each).shown(".1%")
                for branch, each in of_depth.items()
            },
        }
        for depth, of_depth in found.items()
    ]
    return Finding(measured, all_parts(checks), rows)


def larger_rates_help_at_large_batches(tables: StudyTables) -> Finding:
    """Claim 41, from the best learning rate of each batch size, with batch norm and with SkipInit.

    The best rate is the one with the highest median of the final accuracy. The advantage of batch
    norm is the ratio of its best rate to that of SkipInit. The grid has powers of two. The table
    also has the largest rates that train, which the rule does not use.

    Reproduced: the advantage is at least 4 at the largest batches, and at most 2 at the smallest.
    Depends on the part: only one of the two holds.
    Not reproduced: neither holds.
    """
    trials = pick(_trials(tables), part="batch size")
    sizes = sorted(trials.batch_size.unique())
    if len(sizes) < 2:
        raise UndecidedError("the claim needs several batch sizes")
    checks, rows = {}, []
    for size in sizes:
        branches = measures.by_branch(pick(trials, batch_size=size))
        if not {"batch_norm", "skip_init"} <= set(branches):
            raise UndecidedError("the claim needs networks with batch norm and with SkipInit")
        skip, normed = (measures.by_rate(branches[name]) for name in ("skip_init", "batch_norm"))
        bound = ("at least", _LARGER) if size == sizes[-1] else ("at most", _SAME)
        checks[size] = check(_ratio_of_best_rates(normed, skip), *bound)
        rows.append(_at_batch_size(size, skip, normed, checks[size].number))
    small, large = sizes[0], sizes[-1]
    measured = (
        f"the best learning rate with batch norm over that with SkipInit is "
        f"{checks[large].number} at batches of {large:,} (at least {_LARGER} is needed), and "
        f"{checks[small].number} at batches of {small:,} (at most {_SAME} is needed)"
    )
    parts = {
        f"the best rate is larger at batches of {large:,}": checks[large],
        f"it is about the same at batches of {small:,}": checks[small],
    }
    return Finding(measured, all_parts(parts), rows)


def _at_batch_size(size, skip, normed, ratio):
    """A row of the table below claim 41, from accuracies with one column per rate."""
    best = {name: each.median().idxmax() for name, each in (("skip", skip), ("normed", normed))}
    columns = {
        "SkipInit at its best rate": skip[best["skip"]],
        "batch norm at SkipInit's best rate": normed[best["skip"]],
        "batch norm at its own": normed[best["normed"]],
    }
    return {
        "Batch size": f"{size:,}",
        "Best rate, SkipInit": f"{best['skip']:g}",
        "Best rate, batch norm": f"{best['normed']:g}",
        "Ratio": ratio,
        "Largest rate that trains, SkipInit": _largest(skip),
        "Largest rate that trains, batch norm": _largest(normed),
        **{
            f"Accuracy, {name}": intervals.of_median(each).shown(".1%")
            for name, each in columns.items()
        },
    }


def _ratio_of_best_rates(accuracies, others):
    """The ratio of the rates with the highest median accuracy, the lowest one of several."""

    def best(medians, rates):
        return np.asarray(rates)[np.argmax(medians, axis=0)]

    def of_medians(*medians):
        first, second = medians[: accuracies.shape[1]], medians[accuracies.shape[1] :]
        return best(first, accuracies.columns) / best(second, others.columns)

    columns = [each[rate] for each in (accuracies, others) for rate in each]
    return statistic(of_medians, *columns)


def _trials(tables):
    columns = ("part", "branch", "depth", "batch_size", "learning_rate", "final_accuracy")
    return tables.trials(*columns)


def _at_best_rate(trials):
    """Accuracies by seed at the best learning rate."""
    return measures.by_rate(trials)[measures.best_rate(trials)]


def _largest(accuracies):
    """The largest learning rate with a median accuracy of at least half, as text."""
    medians = accuracies.median()
    usable = medians[medians >= 0.5]
    return f"{usable.index.max():g}" if len(usable) else "none"


def _slope(rows: pd.DataFrame) -> float:
    return float(np.polyfit(np.log(rows.block + 1.0), np.log(rows.share), 1)[0])


def _level(rows: pd.DataFrame) -> float:
    return float(np.exp(np.mean(np.log(rows.share * (rows.block + 1)))))


CLAIMS = {
    39: Claim(
        "At initialization, batch norm makes the branch's share of the variance at block l about "
        "1 / (l + 1)",
        "De & Smith 2020",
        branches_share_falls_with_depth,
        needs=lambda trial: dict(trial.options)["part"] == "depth" and trial.batch_norm,
        charts="branch_share",
    ),
    40: Claim(
        "Without batch norm, deep residual networks fail to train; with SkipInit they train as "
        "with batch norm",
        "De & Smith 2020",
        only_plain_networks_fail,
        needs=lambda trial: dict(trial.options)["part"] == "depth",
        charts="accuracy_by_depth",
    ),
    41: Claim(
        "Batch norm allows larger learning rates than SkipInit at large batches, and not at small "
        "ones",
        "De & Smith 2020",
        larger_rates_help_at_large_batches,
        needs=lambda trial: dict(trial.options)["part"] == "batch size",
        charts="accuracy_by_rate",
    ),
}
