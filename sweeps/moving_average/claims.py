"""Claims on the statistics of inference."""

from __future__ import annotations

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import StudyTables, or_never, within
from sweeps.harness.claims.verdicts import (
    NOT_REPRODUCED,
    REPRODUCED,
    Finding,
    NotRunError,
    all_or_some,
)
from sweeps.harness.results.tables import median
from sweeps.moving_average.steps import first_steps


def momentum_decides(tables: StudyTables) -> Finding:
    """21. Reproduced: over momenta, the largest median of steps to the target is at least twice the
    smallest, and their ratio is larger than that of the slowest to the fastest seed at the fastest
    momentum. Depends: larger than the seeds' ratio, but not twice."""
    steps = _statistics_steps(tables)
    momenta = steps[steps.index.str.fullmatch(r"momentum [\d.]+")]
    if len(momenta) < 2:
        raise NotRunError("several momenta")
    medians = momenta.apply(lambda row: median(row.to_numpy(float)), axis=1)
    words = ", ".join(f"{name} {or_never(value)}" for name, value in medians.items())
    if not np.isfinite(medians.min()):
        raise NotRunError("runs that reach the target")
    fastest = momenta.loc[medians.idxmin()]
    ratio, seeds = medians.max() / medians.min(), fastest.max() / fastest.min()
    words = f"median steps: {words}; slowest over fastest seed {seeds:.2g}"
    if not ratio > seeds:
        return Finding(words, NOT_REPRODUCED)
    if ratio >= 2:
        return Finding(words, REPRODUCED)
    return Finding(words, f"depends on how much is more: {ratio:.2g} times over momenta")


def debiased_removes_lag(tables: StudyTables) -> Finding:
    """22. Holds for a kind if its median steps to the target are at most 1.25 times those with the
    test batch's own statistics, which have no lag."""
    steps = _statistics_steps(tables).apply(lambda row: median(row.to_numpy(float)), axis=1)
    kinds = ("recalibrated", "momentum 0.99, debiased")
    missing = [kind for kind in (*kinds, "batch", "momentum 0.99") if kind not in steps]
    if missing:
        raise NotRunError(", ".join(missing))
    if not np.isfinite(steps["batch"]):
        raise NotRunError("runs that reach the target with the batch's statistics")
    words = ", ".join(
        f"{kind} {or_never(steps[kind])}" for kind in ("momentum 0.99", *kinds, "batch")
    )
    holds = {kind: within(steps[kind], 1.25 * steps["batch"]) for kind in kinds}
    return Finding(f"median steps: {words}", all_or_some(holds, "the statistics"))


def _statistics_steps(tables):
    """First recorded step at the target: a row a kind of statistics, a column a run."""
    found = tables.read("statistics", "trial_id", "step", "statistics", "accuracy")
    return first_steps(found, tables.trials())


CLAIMS = {
    21: Claim(
        "Steps to 90% depend on the momentum more than on the training",
        "Wu & Johnson 2021",
        momentum_decides,
    ),
    22: Claim(
        "Recalibrated and debiased statistics remove the lag",
        "Wu & Johnson 2021",
        debiased_removes_lag,
    ),
}
