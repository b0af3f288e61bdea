"""Comparisons of measured numbers with the thresholds of a claim.

A sample is a series with one value per seed, indexed by the seed. Two samples with the same seeds
are paired, because runs with one seed see the training images in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from sweeps.harness.results import intervals
from sweeps.harness.results.intervals import Interval


class Check(NamedTuple):
    """A measured number and the condition that a claim sets for it.

    Attributes:
        number: Number with its interval, as text.
        condition: Condition as text, such as "at most 1.5".
        holds: Whether the condition holds. None if the interval has numbers on both sides of the
            threshold.
        seeds: Number of seeds behind the interval.
    """

    number: str
    condition: str
    holds: bool | None
    seeds: int


def check(
    interval: Interval, relation: str, bound: float, form: str = ".3g", infinite: str = "infinite"
) -> Check:
    """Compares a number with a threshold.

    Args:
        interval: The number with its interval.
        relation: "above", "below", "at least" or "at most".
        bound: The threshold.
        form: Format of the numbers.
        infinite: Text for infinity.
    """
    holds = getattr(interval, relation.replace(" ", "_"))(bound)
    shown = interval.shown(form, infinite)
    return Check(shown, f"{relation} {bound:{form}}", holds, interval.seeds)


def check_between(interval: Interval, low: float, high: float, form: str = ".3g") -> Check:
    """Checks that a number is at least `low` and at most `high`."""
    holds = conjunction([interval.at_least(low), interval.at_most(high)])
    return Check(interval.shown(form), f"{low:{form}} to {high:{form}}", holds, interval.seeds)


def both(first: Check, second: Check) -> Check:
    """Combines two checks into one that holds if both hold."""
    return Check(
        f"{first.number}; {second.number}",
        f"{first.condition}; {second.condition}",
        conjunction([first.holds, second.holds]),
        min(first.seeds, second.seeds),
    )


def conjunction(answers: Iterable[bool | None]) -> bool | None:
    """Whether all answers are true. None if no answer is false, but some are undecided."""
    found = list(answers)
    return False if False in found else None if None in found else True


def disjunction(answers: Iterable[bool | None]) -> bool | None:
    """Whether an answer is true. None if no answer is true, but some are undecided."""
    found = list(answers)
    return True if True in found else None if None in found else False


def sample(rows: pd.DataFrame, column: str, blank: float = np.inf) -> pd.Series:
    """A column's values by seed.

    Args:
        rows: Rows with the column and `seed`.
        column: Name of the column.
        blank: Value of a blank entry. Default: infinity, for the steps of a miss. An accuracy needs
            0, because a diverged run has learned nothing.
    """
    values = rows[column].astype("Float64").fillna(blank).to_numpy(float)
    return pd.Series(values, index=rows.seed.to_numpy()).sort_index()


def ratio(numerators: pd.Series, denominators: pd.Series) -> Interval:
    """The ratio of two medians."""
    samples = numerators, denominators
    return intervals.of_median_ratio(*samples, paired=_paired(samples))


def difference(minuends: pd.Series, subtrahends: pd.Series) -> Interval:
    """The difference of two medians."""
    return statistic(lambda a, b: a - b, minuends, subtrahends)


def statistic(function: Callable[..., np.ndarray], *samples: pd.Series) -> Interval:
    """A number that is computed from the medians of several samples, with its interval.

    Args:
        function: Function of the medians, one array per sample. It returns an array of their shape.
        samples: Values by seed.
    """

    def of_medians(*values, axis):
        return function(*(np.median(each, axis=axis) for each in values))

    return intervals.bootstrap(of_medians, *samples, paired=_paired(samples))


def rows(checks: Mapping[str, Check], title: str = "") -> list[dict[str, str]]:
    """The table below a claim, with one row per check.

    Args:
        checks: The checks by name.
        title: Heading of the column with the names.
    """
    words = {True: "yes", False: "no", None: "undecided"}
    return [
        {title: name, "Measured": each.number, "Needed": each.condition, "Holds": words[each.holds]}
        for name, each in checks.items()
    ]


def _paired(samples):
    """Whether all samples have the same seeds, each of them once."""
    first = samples[0].index
    return first.is_unique and all(first.equals(each.index) for each in samples[1:])
