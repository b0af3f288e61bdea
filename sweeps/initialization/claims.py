"""Claims about a badly initialized network."""

from __future__ import annotations

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import StudyTables, pick
from sweeps.harness.claims.verdicts import NOT_REPRODUCED, Finding, all_parts, some_of
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
    words = (
        f"median best test error, divided by the variance of the data (1 = predicting the mean): "
        f"plain {plain.median():.2g} ({stuck}/{len(plain)} runs stay above 0.5), batch norm "
        f"{normed.median():.2g} ({fitted}/{len(normed)} runs fall below 0.1)"
    )
    if not stuck or not fitted:
        return Finding(words, NOT_REPRODUCED)
    return Finding(words, some_of(stuck + fitted, len(plain) + len(normed), "the seed"))


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
    shares = {}
    for arm in (False, True):
        rows = pick(frame, batch_norm=arm)
        below, above = (
            rows.apply(_share_beyond, axis=1, bound=bound).groupby(rows.trial_id).mean().median()
            for bound in (-0.9, 0.9)
        )
        shares[arm] = below, above
    found = "; ".join(
        f"{arm_name(arm)} {below:.0%} below -0.9 and {above:.0%} above 0.9"
        for arm, (below, above) in shares.items()
    )
    words = (
        f"tanh activations beyond +-0.9 after training: {found}; the claim needs at least 10% at "
        "each end for plain, and at most half as many in all with batch norm"
    )
    parts = {
        "plain saturates at both ends": min(shares[False]) >= 0.1,
        "batch norm saturates at most half as much": sum(shares[True]) <= sum(shares[False]) / 2,
    }
    return Finding(words, all_parts(parts))


def _share_beyond(row, bound):
    """The share of a histogram's values beyond a bound; each bin is taken as uniform."""
    counts = np.array(str(row.counts).split("-"), float)
    edges = np.linspace(row.low, row.high, len(counts) + 1)
    if row.high == row.low:
        return float(abs(row.low) > abs(bound) and row.low * bound > 0)
    below = np.interp(bound, edges, np.concatenate([[0.0], counts.cumsum()]) / counts.sum())
    return float(1 - below if bound > 0 else below)


CLAIMS = {
    11: Claim(
        "A badly initialized ReLU network fits a parabola with batch norm but not without",
        "Morvan",
        relu_cannot_fit_without,
        needs=lambda trial: trial.activation == "relu",
    ),
    12: Claim(
        "In a badly initialized network, tanh activations saturate at both ends; batch norm "
        "prevents this",
        "Morvan",
        plain_tanh_saturates,
        needs=lambda trial: trial.activation == "tanh",
    ),
}
