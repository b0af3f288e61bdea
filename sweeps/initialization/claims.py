"""Claims about a badly initialized network."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sweeps.harness.charts.distributions import shares_in_bins
from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import both, check, ratio
from sweeps.harness.claims.evidence import StudyTables, pick
from sweeps.harness.claims.verdicts import (
    DEPENDS,
    NOT_REPRODUCED,
    REPRODUCED,
    Finding,
    all_parts,
    some_of,
)
from sweeps.harness.results import intervals
from sweeps.harness.trial import arm_name


def relu_cannot_fit_without(tables: StudyTables) -> Finding:
    """Claim 11, from the lowest test error of each ReLU run, relative to the points' variance.

    A run is stuck if its error stays above 0.5, and fits if its error falls below 0.1.

    Reproduced: all plain runs are stuck, and all runs with batch norm fit.
    Depends on the seed: some plain runs are stuck, and some runs with batch norm fit.
    Not reproduced: no plain run is stuck, or no run with batch norm fits.
    """
    frame = tables.recorded("evaluation", ("activation",), "data", "loss")
    frame = pick(frame, activation="relu", data="test")
    y = tables.read("predictions", "trial_id", "y")
    variance = y[y.trial_id == y.trial_id.iloc[0]].y.var(ddof=0)
    plain, normed = (
        pick(frame, batch_norm=arm).groupby("trial_id").loss.min() / variance
        for arm in (False, True)
    )
    stuck, fitted = int((plain > 0.5).sum()), int((normed < 0.1).sum())
    measured = (
        f"{stuck}/{len(plain)} plain runs stay above 0.5 times the variance of the data, and "
        f"{fitted}/{len(normed)} runs with batch norm fall below 0.1 times"
    )
    rows = [
        {
            "": arm_name(arm),
            "Median best test error over the variance of the data": (
                intervals.of_median(each).shown(".2g")
            ),
        }
        for arm, each in ((False, plain), (True, normed))
    ]
    arms = [some_of(stuck, len(plain), "the seed"), some_of(fitted, len(normed), "the seed")]
    if NOT_REPRODUCED in arms:
        return Finding(measured, NOT_REPRODUCED, rows)
    if any(verdict.startswith(DEPENDS) for verdict in arms):
        verdict = some_of(stuck + fitted, len(plain) + len(normed), "the seed")
        return Finding(measured, verdict, rows)
    return Finding(measured, next((v for v in arms if v != REPRODUCED), REPRODUCED), rows)


def plain_tanh_saturates(tables: StudyTables) -> Finding:
    """Claim 12, from the share of tanh activations below -0.9 and above 0.9 after training.

    Shares are means over layers and medians over seeds.

    Reproduced: without batch norm, at least a tenth of the activations saturate at each end; with
        batch norm, at most half as many saturate in all.
    Depends on the part: only one of the two holds.
    Not reproduced: neither holds.
    """
    frame = tables.recorded(
        "histograms", ("activation",), "layer", "tensor", "low", "high", "counts"
    )
    frame = pick(frame, activation="tanh", tensor="activation")
    frame = frame[frame.step == frame.step.max()]
    edges = np.array([-np.inf, -0.9, 0.9, np.inf])
    shares, rows = {}, []
    for arm in (False, True):
        of_arm = pick(frame, batch_norm=arm)
        inside = np.array([shares_in_bins(row, edges) for row in of_arm.itertuples()])
        shares[arm] = {
            end: pd.Series(inside[:, part], of_arm.seed).groupby("seed").mean()
            for end, part in (("below -0.9", 0), ("above 0.9", 2))
        }
        medians = {
            f"Median share {end}": intervals.of_median(share).shown(".0%")
            for end, share in shares[arm].items()
        }
        rows.append({"": arm_name(arm), **medians})
    ends = [
        check(intervals.of_median(share), "at least", 0.1, ".0%")
        for share in shares[False].values()
    ]
    plain, normed = (sum(shares[arm].values()) for arm in (False, True))
    checks = {
        "plain saturates at both ends": both(*ends),
        "batch norm saturates at most half as much": check(ratio(normed, plain), "at most", 0.5),
    }
    below, above = (end.number for end in ends)
    measured = (
        f"{below} of the plain network's tanh activations are below -0.9, and {above} are above "
        f"0.9 (at least 10% are needed); with batch norm, {list(checks.values())[1].number} times "
        "as many are beyond either end (at most 0.5 is needed)"
    )
    return Finding(measured, all_parts(checks), rows)


CLAIMS = {
    11: Claim(
        "A badly initialized ReLU network fits a parabola with batch norm but not without",
        "Morvan",
        relu_cannot_fit_without,
        needs=lambda trial: trial.activation == "relu",
        charts="test_error",
    ),
    12: Claim(
        "In a badly initialized network, tanh activations saturate at both ends; batch norm "
        "prevents this",
        "Morvan",
        plain_tanh_saturates,
        needs=lambda trial: trial.activation == "tanh",
        charts="*_tanh",
    ),
}
