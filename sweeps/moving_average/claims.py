"""Claims about the statistics that batch norm uses in inference."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import check, ratio, statistic
from sweeps.harness.claims.evidence import StudyTables
from sweeps.harness.claims.verdicts import (
    NOT_REPRODUCED,
    REPRODUCED,
    Finding,
    UndecidedError,
    all_or_some,
    undecided,
)
from sweeps.harness.claims.wording import listed
from sweeps.harness.results import intervals
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
    samples = _by_kind(momenta)
    medians = {name: steps.median() for name, steps in samples.items()}
    fastest = min(medians, key=medians.__getitem__)
    if not np.isfinite(medians[fastest]):
        raise UndecidedError("there are no runs that reach the target")
    if not np.isfinite(samples[fastest].max()):
        raise UndecidedError("a seed misses the target at the fastest momentum")
    seeds = samples[fastest].max() / samples[fastest].min()
    found = statistic(lambda *m: np.max(m, axis=0) / np.min(m, axis=0), *samples.values())
    more, twice = check(found, "above", seeds), check(found, "at least", _RATIO)
    measured = (
        f"steps with the slowest momentum over those with the fastest: {more.number}; at least "
        f"{_RATIO} is needed, and more than {seeds:.2g}, the ratio of the slowest to the fastest "
        "seed at the fastest momentum"
    )
    rows = _rows(samples)
    if more.holds is False:
        return Finding(measured, NOT_REPRODUCED, rows)
    if more.holds and twice.holds:
        return Finding(measured, REPRODUCED, rows)
    if more.holds and twice.holds is False:
        verdict = (
            f"depends on the threshold: the slowest momentum takes {more.number} times the steps "
            "of the fastest"
        )
        return Finding(measured, verdict, rows)
    checks = {"the ratio of the seeds": more, f"the ratio {_RATIO}": twice}
    return Finding(measured, undecided(checks), rows)


def debiased_removes_lag(tables: StudyTables) -> Finding:
    """Claim 22, from the median steps to the target with each kind of statistics.

    The baseline is the test batch's own statistics, which have no lag. A kind of statistics removes
    the lag if it takes at most 1.25 times the baseline's steps.

    Reproduced: both recalibrated and debiased statistics remove the lag.
    Depends on the statistics: one of them removes the lag.
    Not reproduced: neither removes the lag.
    """
    samples = _by_kind(_statistics_steps(tables))
    kinds = ("recalibrated", "momentum 0.99, debiased")
    missing = [kind for kind in (*kinds, "batch", "momentum 0.99") if kind not in samples]
    if missing:
        raise UndecidedError(f"there are no results for {', '.join(missing)}")
    if not np.isfinite(samples["batch"].median()):
        raise UndecidedError(
            "there are no runs that reach the target with the test batch's statistics"
        )
    checks = {
        _STATISTICS[kind]: check(ratio(samples[kind], samples["batch"]), "at most", _NO_LAG)
        for kind in kinds
    }
    shown = listed(f"{each.number} with {name}" for name, each in checks.items())
    measured = (
        f"steps over those with the test batch's own statistics: {shown}; at most {_NO_LAG:g} "
        "counts as no lag"
    )
    rows = _rows({name: samples[kind] for kind, name in _STATISTICS.items()})
    return Finding(measured, all_or_some(checks, "the statistics"), rows)


def _by_kind(steps):
    """The steps by seed of each kind of statistics, with infinity for a miss."""
    return {kind: pd.Series(row.astype(float)).fillna(np.inf) for kind, row in steps.iterrows()}


def _rows(samples):
    """A row with the median steps of each kind of statistics."""
    return [
        {
            "Statistics": name,
            "Median steps to the target": intervals.of_median(each).shown(infinite="never"),
        }
        for name, each in samples.items()
    ]


def _statistics_steps(tables):
    """The first recorded step at which each run reaches the target with each statistics."""
    found = tables.read("statistics", "trial_id", "step", "statistics", "accuracy")
    return first_steps(found, tables.trials())


CLAIMS = {
    21: Claim(
        "Steps to the target accuracy depend more on the momentum of the moving averages than on "
        "the training",
        "Wu & Johnson 2021",
        momentum_decides,
    ),
    22: Claim(
        "Recalibrated and debiased statistics remove the lag of the moving averages",
        "Wu & Johnson 2021",
        debiased_removes_lag,
    ),
}
