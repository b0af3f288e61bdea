"""Claims about the statistics that batch norm uses in inference."""

from __future__ import annotations

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import StudyTables, or_never, within
from sweeps.harness.claims.verdicts import (
    NOT_REPRODUCED,
    REPRODUCED,
    Finding,
    UndecidedError,
    all_or_some,
)
from sweeps.harness.claims.wording import listed
from sweeps.harness.results.tables import median
from sweeps.moving_average.steps import first_steps

_RATIO = 2  # smallest ratio of the momenta
_NO_LAG = 1.25  # largest multiple of the baseline's steps without a lag
# The kinds of statistics in the words of the report, by their names in the tables.
_STATISTICS = {
    "momentum 0.99": "moving averages (momentum 0.99)",
    "momentum 0.99, debiased": "debiased averages (momentum 0.99)",
    "recalibrated": "recalibrated statistics",
    "batch": "the test batch's own statistics, which have no lag",
}


def momentum_decides(tables: StudyTables) -> Finding:
    """Claim 21, from the median steps to the target with each momentum.

    The ratio of the momenta is the largest median over the smallest. The ratio of the seeds is the
    slowest seed's steps over the fastest seed's, at the fastest momentum.

    Reproduced: the ratio of the momenta is at least 2, and exceeds that of the seeds.
    Depends on the threshold: the ratio of the momenta exceeds that of the seeds, but is below 2.
    Not reproduced: the ratio of the momenta does not exceed that of the seeds.
    """
    steps = _statistics_steps(tables)
    momenta = steps[steps.index.str.fullmatch(r"momentum [\d.]+")]
    if len(momenta) < 2:
        raise UndecidedError("the claim needs several momenta")
    medians = momenta.apply(lambda row: median(row.to_numpy(float)), axis=1)
    found = listed(f"{or_never(value)} with {name}" for name, value in medians.items())
    if not np.isfinite(medians.min()):
        raise UndecidedError("there are no runs that reach the target")
    fastest = momenta.loc[medians.idxmin()]
    ratio, seeds = medians.max() / medians.min(), fastest.max() / fastest.min()
    words = (
        f"median steps to the target: {found}; with {medians.idxmin()}, the slowest seed takes "
        f"{seeds:.2g} times as many steps as the fastest; the momentum matters more if its ratio "
        f"is larger than that, and at least {_RATIO}"
    )
    if not ratio > seeds:
        return Finding(words, NOT_REPRODUCED)
    if ratio >= _RATIO:
        return Finding(words, REPRODUCED)
    return Finding(
        words,
        f"depends on the threshold: the slowest momentum takes {ratio:.2g} times the steps of the "
        "fastest",
    )


def debiased_removes_lag(tables: StudyTables) -> Finding:
    """Claim 22, from the median steps to the target with each kind of statistics.

    The baseline is the test batch's own statistics, which have no lag. A kind of statistics removes
    the lag if it takes at most 1.25 times the baseline's steps.

    Reproduced: both recalibrated and debiased statistics remove the lag.
    Depends on the statistics: one of them removes the lag.
    Not reproduced: neither removes the lag.
    """
    steps = _statistics_steps(tables).apply(lambda row: median(row.to_numpy(float)), axis=1)
    kinds = ("recalibrated", "momentum 0.99, debiased")
    missing = [kind for kind in (*kinds, "batch", "momentum 0.99") if kind not in steps]
    if missing:
        raise UndecidedError(f"there are no results for {', '.join(missing)}")
    if not np.isfinite(steps["batch"]):
        raise UndecidedError(
            "there are no runs that reach the target with the test batch's statistics"
        )
    found = "; ".join(f"{or_never(steps[kind])} with {name}" for kind, name in _STATISTICS.items())
    words = (
        f"median steps to the target: {found}; at most {_NO_LAG:g} times as many as the last count "
        "as no lag"
    )
    holds = {_STATISTICS[kind]: within(steps[kind], _NO_LAG * steps["batch"]) for kind in kinds}
    return Finding(words, all_or_some(holds, "the statistics"))


def _statistics_steps(tables):
    """The first recorded step at which each run reaches the target with each statistics."""
    found = tables.read("statistics", "trial_id", "step", "statistics", "accuracy")
    return first_steps(found, tables.trials())


CLAIMS = {
    21: Claim(
        "Steps to 90% accuracy depend more on the momentum of the moving averages than on the "
        "training",
        "Wu & Johnson 2021",
        momentum_decides,
    ),
    22: Claim(
        "Recalibrated and debiased statistics remove the lag of the moving averages",
        "Wu & Johnson 2021",
        debiased_removes_lag,
    ),
}
