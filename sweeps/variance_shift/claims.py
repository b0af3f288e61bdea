"""Claims about the variance shift of dropout."""

from __future__ import annotations

import pandas as pd

from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import check, difference, sample, statistic
from sweeps.harness.claims.evidence import StudyTables, pick
from sweeps.harness.claims.verdicts import Finding, UndecidedError, all_or_some, all_parts
from sweeps.harness.results import intervals
from sweeps.variance_shift import ratios

_FOLLOWS = 0.1  # largest relative difference at which a ratio follows the formula
_REPAIRED = 0.5  # least share of the lost accuracy that counts as a repair


def ratio_follows_formula(tables: StudyTables) -> Finding:
    """Claim 35, from units, keep rates and seeds.

    A run's difference from the formula is the median over units of measured over predicted ratio,
    minus one. A seed's difference is the largest one, without its sign, over the keep rates below
    1. The formula holds in a part of the network if the median over seeds is at most 0.1. Accuracy
    falls if it is lower at the lowest keep rate than without dropout. The shift is a cause of this
    if inference is less accurate than the same network with dropout and with the statistics of the
    test batch, as in training, because no variance is shifted there. This part is an addition to
    the paper's claim.

    Reproduced: the formula holds in the first layer and in the later layers, accuracy falls, and
        the shift is a cause.
    Depends on the part: some of the four are true.
    Not reproduced: none of the four is true.
    """
    trials = tables.trials("keep_rate")
    found = tables.read("variances", "trial_id", "layer", "mean", "variance", "moving_variance")
    units = ratios.of_units(found, trials)
    units = units[units.keep_rate < 1]
    units = units.assign(quotient=units.measured / units.predicted)
    first, later = _off(units[units.layer == 1]), _off(units[units.layer > 1])
    accuracy = _accuracies(tables, "moving averages")
    lowest = min(accuracy)
    fall = difference(accuracy[lowest], _without(accuracy))
    noisy = _accuracies(tables, "as in training")[lowest]
    checks = {
        "the ratio follows the formula in the first layer": check(first, "at most", _FOLLOWS),
        "the ratio follows it in the later layers": check(later, "at most", _FOLLOWS),
        "accuracy falls with it": check(fall, "below", 0),
        "the shift is a cause": check(difference(accuracy[lowest], noisy), "below", 0),
    }
    off, off_later, points, gain = (each.number for each in checks.values())
    measured = (
        f"the measured ratio differs from the formula by a factor of 1 plus or minus {off} in the "
        f"first layer and {off_later} in the later ones; keep rate {lowest:g} changes accuracy by "
        f"{points} points (paper: from 77.42% to 68.55% with keep rate 0.5, DenseNet on "
        f"CIFAR-100); there, inference is {gain} points more accurate than the network as in "
        "training, where no variance is shifted"
    )
    layers = {"layer 1": units.layer == 1, "later layers": units.layer > 1}
    rows = []
    for rate, values in sorted(accuracy.items()):
        row = {"Keep rate": f"{rate:g}"}
        for name, chosen in layers.items():
            group = units[chosen & (units.keep_rate == rate)]
            for column in ("predicted", "measured"):
                of_seeds = group.groupby("seed")[column].median()
                shown = intervals.of_median(of_seeds).shown(".2f") if len(of_seeds) else ""
                row[f"{column.capitalize()} ratio, {name}"] = shown
        rows.append({**row, "Accuracy": intervals.of_median(values / 100).shown(".1%")})
    return Finding(measured, all_parts(checks), rows)


def recalibration_repairs(tables: StudyTables) -> Finding:
    """Claim 36, at each keep rate below 1 that costs accuracy, by the median over seeds.

    A keep rate costs accuracy if the whole interval of its difference from keep rate 1 is below 0.
    Recalibration repairs it if at least half of this difference is gone afterwards.

    Reproduced: recalibration repairs the accuracy at all these keep rates.
    Depends on the keep rate: at some of them.
    Not reproduced: at none of them.
    """
    kinds = ("moving averages", "recalibrated", "as in training")
    before, after, noisy = (_accuracies(tables, kind) for kind in kinds)
    full, checks = _without(before), {}
    for rate in sorted(before):
        if rate < 1 and check(difference(before[rate], full), "below", 0).holds:
            share = statistic(_share, before[rate], after[rate], full)
            checks[f"{rate:g}"] = check(share, "at least", _REPAIRED, ".2f")
    if not checks:
        raise UndecidedError("no keep rate costs accuracy, so there is nothing to repair")
    shown = "; ".join(f"{each.number} at keep rate {rate}" for rate, each in checks.items())
    measured = (
        f"share of the lost accuracy that recalibration brings back: {shown}; at least "
        f"{_REPAIRED:g} counts as a repair"
    )
    rows = [
        {
            "Keep rate": f"{rate:g}",
            "Moving averages": intervals.of_median(before[rate] / 100).shown(".1%"),
            "Recalibrated": intervals.of_median(after[rate] / 100).shown(".1%"),
            "As in training, with dropout": intervals.of_median(noisy[rate] / 100).shown(".1%"),
            "Share brought back": checks[f"{rate:g}"].number if f"{rate:g}" in checks else "",
        }
        for rate in sorted(before)
    ]
    lowest = min(before)
    gain = difference(before[lowest], noisy[lowest]).shown(".2g")
    reason = (
        f"without recalibration, inference at keep rate {lowest:g} is already {gain} points more "
        "accurate than the network is in training, so the shift is not what costs accuracy"
        if before[lowest].median() > noisy[lowest].median()
        else ""
    )
    return Finding(measured, all_or_some(checks, "the keep rate", "at", reason), rows)


def _off(units):
    """The median over seeds of the largest difference from the formula over the keep rates."""
    of_runs = units.groupby(["seed", "keep_rate"]).quotient.median()
    if of_runs.empty:
        raise UndecidedError("the claim needs several layers and a keep rate below 1")
    return intervals.of_median((of_runs - 1).abs().groupby("seed").max())


def _accuracies(tables, inference) -> dict[float, pd.Series]:
    """Accuracies in percent by seed, for each keep rate."""
    found = tables.recorded("accuracies", ("keep_rate",), "inference", "accuracy")
    rows = pick(found, inference=inference)
    return {
        rate: 100 * sample(group, "accuracy", blank=0.0)
        for rate, group in rows.groupby("keep_rate")
    }


def _without(accuracy):
    """The accuracies without dropout."""
    if set(accuracy) <= {1.0} or 1.0 not in accuracy:
        raise UndecidedError("the claim needs networks without dropout and networks with it")
    return accuracy[1.0]


def _share(before, after, full):
    return (after - before) / (full - before)


CLAIMS = {
    35: Claim(
        "Dropout before batch norm shifts the variance between training and inference by a factor "
        "of v / ((c^2 + v) / p - c^2), and accuracy falls with it",
        "Li et al. 2019",
        ratio_follows_formula,
    ),
    36: Claim(
        "Recalibrating batch norm without dropout repairs what the variance shift costs",
        "Hendrycks & Gimpel 2017",
        recalibration_repairs,
        charts="accuracy",
    ),
}
