"""Intervals for numbers that are measured with several seeds.

A run that misses its target counts as infinitely many steps. All functions accept infinity. They do
not drop it or replace it by the budget. Seeds are along the last axis of every array.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

CONFIDENCE = 0.95
SEEDS_NEEDED = 6  # the range of n values misses the median with probability 2 / 2**n, below 5%
_RESAMPLES = 9999


class Interval(NamedTuple):
    """A number with its 95% interval. Both ends belong to the interval.

    A comparison returns None if the interval has numbers on both sides of the bound.

    Attributes:
        estimate: Number, measured with all seeds.
        low: Lower end. Minus infinity if there are too few seeds for an interval.
        high: Upper end. Infinity if there are too few seeds for an interval.
        seeds: Number of seeds, in the smallest sample if there are several.
    """

    estimate: float
    low: float
    high: float
    seeds: int

    def above(self, bound: float) -> bool | None:
        """True if the whole interval is above a bound, False if no part of it is."""
        return True if self.low > bound else False if self.high <= bound else None

    def below(self, bound: float) -> bool | None:
        """True if the whole interval is below a bound, False if no part of it is."""
        return True if self.high < bound else False if self.low >= bound else None

    def at_least(self, bound: float) -> bool | None:
        """True if the whole interval is at or above a bound, False if no part of it is."""
        return True if self.low >= bound else False if self.high < bound else None

    def at_most(self, bound: float) -> bool | None:
        """True if the whole interval is at or below a bound, False if no part of it is."""
        return True if self.high <= bound else False if self.low > bound else None

    def shown(self, form: str = "g", infinite: str = "infinite") -> str:
        """The number and its interval as text, such as "16 [15, 18]".

        Args:
            form: Format of a finite number.
            infinite: Text for infinity, such as ">300".
        """
        number, low, high = (_shown(value, form, infinite) for value in self[:3])
        return number if self.seeds < SEEDS_NEEDED else f"{number} [{low}, {high}]"


def of_median(values: ArrayLike) -> Interval:
    """The median, with the interval between two order statistics.

    The k-th smallest value is above the true median if fewer than k values are below the median.
    The number of values below the median is binomial for every distribution. So the coverage is at
    least 95%.

    Args:
        values: One value per seed.
    """
    ordered = np.sort(np.asarray(values, float), axis=-1)
    seeds = ordered.shape[-1]
    rank = int(stats.binom.ppf((1 - CONFIDENCE) / 2, seeds, 0.5))  # 0 if there are too few seeds
    low: Any = ordered[..., rank - 1] if rank else -np.inf
    high: Any = ordered[..., -rank] if rank else np.inf
    return Interval(np.median(ordered, axis=-1), low, high, seeds)


def of_share(count: int, total: int) -> Interval:
    """The share of runs for which something is true, with the Clopper-Pearson interval."""
    found = stats.binomtest(count, total).proportion_ci(CONFIDENCE, method="exact")
    enough = total >= SEEDS_NEEDED
    low, high = (found.low, found.high) if enough else (-np.inf, np.inf)
    return Interval(count / total, low, high, total)


def of_median_ratio(numerators: ArrayLike, denominators: ArrayLike, *, paired: bool) -> Interval:
    """The ratio of two medians, with a bootstrap interval.

    A ratio of two infinities could be any number. It counts as 0 for the lower end of the interval,
    and as infinity for the upper end.

    Args:
        numerators: One value per seed, none below 0.
        denominators: One value per seed, none below 0.
        paired: Whether both have the same seeds, in the same order.
    """
    found = bootstrap(_ratio_of_medians, numerators, denominators, paired=paired)
    return found._replace(low=np.maximum(found.low, 0.0))


def bootstrap(statistic: Callable[..., Any], *samples: ArrayLike, paired: bool) -> Interval:
    """Any statistic of several samples, with a bootstrap interval over seeds.

    The ends of the interval are percentiles of the statistic's values on 9,999 resamples. The
    coverage is approximate: for ratios of medians, 94% to 97% with 6 to 20 seeds. A statistic that
    is NaN could be any number. It counts as minus infinity for the lower end, and as infinity for
    the upper end.

    Args:
        statistic: Function of (*samples, axis). It reduces the axis of the seeds, as `np.median`
            does.
        samples: Arrays with one value per seed on the last axis.
        paired: Whether all samples have the same seeds, in the same order. If so, each resample
            takes the same seeds from all samples.
    """
    arrays = [np.asarray(sample, float) for sample in samples]
    seeds = min(array.shape[-1] for array in arrays)
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        # SciPy warns about NaN, but the code below handles it.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        estimate = statistic(*arrays, axis=-1)
        if seeds < SEEDS_NEEDED:
            return Interval(estimate, -np.inf, np.inf, seeds)
        values = stats.bootstrap(
            arrays,
            statistic,
            n_resamples=_RESAMPLES,
            paired=paired,
            vectorized=True,
            axis=-1,
            method="percentile",
            rng=0,
        ).bootstrap_distribution
    tail = (1 - CONFIDENCE) / 2
    # "lower" and "higher" do not interpolate, because that would give NaN between two infinities.
    unknown = np.isnan(values)
    low: Any = np.quantile(np.where(unknown, -np.inf, values), tail, method="lower", axis=-1)
    high: Any = np.quantile(np.where(unknown, np.inf, values), 1 - tail, method="higher", axis=-1)
    return Interval(estimate, low, high, seeds)


def probability_less(values: ArrayLike, others: ArrayLike) -> float:
    """The probability that a value is less than one of `others`, plus half that of a tie.

    This is the Mann-Whitney statistic, divided by the number of pairs. Two infinities are a tie.
    """
    pairs = np.asarray(values, float)[:, None], np.asarray(others, float)
    return float(np.less(*pairs).mean() + np.equal(*pairs).mean() / 2)


def _ratio_of_medians(numerators, denominators, axis):
    return np.median(numerators, axis=axis) / np.median(denominators, axis=axis)


def _shown(value, form, infinite):
    """A number as text. NaN is a ratio of infinities."""
    if np.isnan(value):
        return "unknown"
    return infinite if value == np.inf else format(value, form)
