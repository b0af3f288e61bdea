"""Selects the learning rate of each network, and measures how much the selection matters.

A network is a depth and an arm. A selection reads only trials that were evaluated on the validation
set, so it cannot depend on the test set.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from sweeps.harness.claims import checks
from sweeps.harness.results import intervals
from sweeps.harness.results.tables import varying_columns, with_misses

PUBLISHED = 0.01  # learning rate of the published comparison, for both arms
NETWORK = ["depth", "batch_norm"]
TOLERATED = 2.0  # largest ratio of a tolerated rate's median to the smallest median


def on(evaluation_set: str, trials: pd.DataFrame) -> pd.DataFrame:
    """The finished trials that were evaluated on the "validation" or on the "test" set."""
    return trials[(trials.evaluated_on == evaluation_set) & (trials.status != "failed")]


def steps_by_rate(trials: pd.DataFrame) -> pd.DataFrame:
    """Steps to the target of one network: a row per rate, ascending, and a column per seed.

    A miss is infinite. Seeds without a trial at some rate are left out, so that all rates have the
    same seeds.
    """
    values = trials.assign(steps=with_misses(trials.steps_to_target))
    table = values.pivot(index="learning_rate", columns="seed", values="steps")
    return table.dropna(axis="columns")


def best(steps: np.ndarray) -> int:
    """The position of the rate with the smallest median.

    Ties go to the lowest rate. If no median is finite, it is the position of the rate at which most
    seeds reach the target.

    Args:
        steps: Array of shape (rates, seeds), with the rates in ascending order.
    """
    medians = np.median(steps, axis=-1)
    if np.isfinite(medians).any():
        return int(np.argmin(medians))
    return int(np.argmax(np.isfinite(steps).sum(axis=-1)))


def rates(trials: pd.DataFrame) -> dict[tuple[int, bool], float]:
    """The selected rate of each network, by depth and arm."""
    return {
        (network["depth"], network["batch_norm"]): float(steps.index[best(steps.to_numpy())])
        for network, steps in _networks(trials)
    }


def table(trials: pd.DataFrame) -> pd.DataFrame:
    """The selected rate of each network with its evidence, one row per depth and arm.

    Columns:
        depth: Number of hidden layers.
        batch_norm: Whether the network has batch norm.
        evaluated_on: "validation".
        learning_rate: The selected rate.
        at_edge: Whether it is the lowest or the highest rate of the grid.
        median_steps: Median steps to the target at the selected rate. A miss counts as infinite.
        low: Lower end of the median's 95% interval.
        high: Upper end of the median's 95% interval.
        reached: Number of seeds that reach the target at the selected rate.
        total: Number of seeds.
        lowest_tolerated: Lowest rate whose median is at most twice the smallest. Blank if no median
            is finite.
        highest_tolerated: Highest such rate.
        tolerance: `highest_tolerated` divided by `lowest_tolerated`.
        tolerance_low: Lower end of the tolerance's 95% interval.
        tolerance_high: Upper end of the tolerance's 95% interval.
    """
    return pd.DataFrame(
        [{**network, **_selected(steps)} for network, steps in _networks(trials)],
        columns=[*NETWORK, *_selected(pd.DataFrame([[1.0]], index=[1.0]))],
    )


def reported(trials: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The trials on the test set at the "published" and at the "tuned" rate, if there are any."""
    test, selected = on("test", trials), rates(trials)
    tuned = [selected.get((row.depth, row.batch_norm)) for row in test.itertuples()]
    found = {
        "published": test[test.learning_rate == PUBLISHED],
        "tuned": test[test.learning_rate == np.array(tuned, float)],
    }
    return {} if any(frame.empty for frame in found.values()) else found


def mixed(trials: pd.DataFrame) -> bool:
    """Whether trials on the validation set differ in more than depth, arm, rate and seed."""
    known = [*NETWORK, "learning_rate"]
    return len(varying_columns(on("validation", trials), known)) > len(known)


def by_budget(trials: pd.DataFrame) -> pd.DataFrame:
    """The steps after tuning with a budget of k rates, over all subsets of k rates of the grid.

    Columns:
        depth: Number of hidden layers.
        batch_norm: Whether the network has batch norm.
        evaluated_on: "validation".
        rates: Number k of rates that are tried.
        subsets: Number of subsets of k rates.
        reaching: Share of the subsets in which some rate has a finite median.
        median_steps: Median, over the subsets, of the smallest median in the subset.
    """
    rows = []
    for network, steps in _networks(trials):
        found = np.median(steps.to_numpy(), axis=-1)
        for k in range(1, len(found) + 1):
            smallest = np.array([min(subset) for subset in itertools.combinations(found, k)])
            rows.append(
                {
                    **network,
                    "evaluated_on": "validation",
                    "rates": k,
                    "subsets": len(smallest),
                    "reaching": np.isfinite(smallest).mean(),
                    "median_steps": np.median(smallest),
                }
            )
    columns = [*NETWORK, "evaluated_on", "rates", "subsets", "reaching", "median_steps"]
    return pd.DataFrame(rows, columns=columns)


def tolerated(rates: np.ndarray, medians: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest rate whose median is at most twice the smallest.

    Args:
        rates: Array of shape (rates,).
        medians: Array of shape (rates, ...).

    Returns:
        Two arrays of shape (...). They are NaN where no median is finite.
    """
    fits = np.isfinite(medians) & (medians <= TOLERATED * medians.min(axis=0))
    rates = rates.reshape(-1, *[1] * (medians.ndim - 1))
    low = np.where(fits, rates, np.inf).min(axis=0)
    high = np.where(fits, rates, -np.inf).max(axis=0)
    known = fits.any(axis=0)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def tolerance(rates: np.ndarray, medians: np.ndarray) -> np.ndarray:
    """The highest tolerated rate divided by the lowest; see `tolerated`."""
    low, high = tolerated(rates, medians)
    return high / low


def _networks(trials):
    """Yields the depth and arm of each network, and its steps on the validation set.

    It yields nothing if the trials differ in other settings, because a selection must not mix them.
    """
    if mixed(trials):
        return
    for key, group in on("validation", trials).groupby(NETWORK):
        steps = steps_by_rate(group)
        if not steps.empty:
            yield dict(zip(NETWORK, key, strict=True)), steps


def _selected(table):
    steps, rates = table.to_numpy(float), table.index.to_numpy(float)
    chosen = best(steps)
    median = intervals.of_median(steps[chosen])
    low, high = tolerated(rates, np.median(steps, axis=-1))
    ratio = checks.statistic(
        lambda *medians: tolerance(rates, np.stack(medians)), *[row for _, row in table.iterrows()]
    )
    return {
        "evaluated_on": "validation",
        "learning_rate": rates[chosen],
        "at_edge": chosen in (0, len(rates) - 1),
        "median_steps": median.estimate,
        "low": median.low,
        "high": median.high,
        "reached": int(np.isfinite(steps[chosen]).sum()),
        "total": steps.shape[-1],
        "lowest_tolerated": float(low),
        "highest_tolerated": float(high),
        "tolerance": float(ratio.estimate),
        "tolerance_low": float(ratio.low),
        "tolerance_high": float(ratio.high),
    }
