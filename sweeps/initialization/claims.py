"""Claims on a badly initialized network."""

from __future__ import annotations

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import StudyTables, pick
from sweeps.harness.claims.verdicts import NOT_REPRODUCED, Finding, all_or_some, some_of
from sweeps.harness.trial import arm_name


def relu_cannot_fit_without(tables: StudyTables) -> Finding:
    """11. Errors are the best over epochs, relative to the test points' variance. Reproduced: ReLU
    nets are above a half in all plain runs and below a tenth in all with batch norm. Depends: on
    the seed. Not reproduced: where one holds in no run."""
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
        f"best test error / variance: plain {plain.median():.2g} ({stuck}/{len(plain)} above 0.5), "
        f"batch norm {normed.median():.2g} ({fitted}/{len(normed)} below 0.1)"
    )
    if not stuck or not fitted:
        return Finding(words, NOT_REPRODUCED)
    return Finding(words, some_of(stuck + fitted, len(plain) + len(normed), "the seed"))


def plain_tanh_saturates(tables: StudyTables) -> Finding:
    """12. Saturated: beyond 0.9, after the last step, over all layers. Reproduced: plain, at least
    a tenth at either end; batch norm, at most half the plain share. Depends: on the part."""
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
    words = "; ".join(
        f"{name}: {below:.0%} below -0.9, {above:.0%} above 0.9"
        for name, (below, above) in ((arm_name(arm), share) for arm, share in shares.items())
    )
    parts = {
        "plain saturates at both ends": min(shares[False]) >= 0.1,
        "batch norm stays inside": sum(shares[True]) <= sum(shares[False]) / 2,
    }
    return Finding(words, all_or_some(parts, "the part"))


def _share_beyond(row, bound):
    """The share of a histogram's values beyond a bound, away from zero; even within a bin."""
    counts = np.array(str(row.counts).split("-"), float)
    edges = np.linspace(row.low, row.high, len(counts) + 1)
    if row.high == row.low:
        return float(abs(row.low) > abs(bound) and row.low * bound > 0)
    below = np.interp(bound, edges, np.concatenate([[0.0], counts.cumsum()]) / counts.sum())
    return float(1 - below if bound > 0 else below)


CLAIMS = {
    11: Claim(
        "ReLU, badly initialized: the plain net cannot fit, batch norm can",
        "Morvan",
        relu_cannot_fit_without,
    ),
    12: Claim(
        "Plain tanh saturates at both ends, batch norm keeps it inside",
        "Morvan",
        plain_tanh_saturates,
    ),
}
