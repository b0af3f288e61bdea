"""Comparisons with thresholds, and the verdicts that follow from several of them."""

import numpy as np
import pandas as pd
import pytest

from sweeps.harness.claims import checks, verdicts
from sweeps.harness.claims.checks import Check
from sweeps.harness.results.intervals import Interval

YES, NO, OPEN = (Check("", "", holds, 10) for holds in (True, False, None))
FEW = Check("", "", None, 5)


@pytest.mark.parametrize(
    ("cases", "verdict"),
    [
        ([YES, YES], "reproduced"),
        ([NO, NO], "not reproduced: all are slower"),
        ([YES, NO], "depends on the depth: it holds at a, but not at b"),
        (
            [YES, NO, OPEN],
            "depends on the depth: it holds at a, but not at b, and is undecided at c",
        ),
        ([YES, OPEN], "undecided: the 95% interval contains the threshold for b"),
        ([OPEN, NO, OPEN], "undecided: the 95% interval contains the threshold for a and c"),
        (
            [YES, FEW],
            "undecided: 5 seeds cannot give a 95% interval for a median; six are needed",
        ),
    ],
)
def test_all_or_some(cases, verdict):
    named = dict(zip("abc", cases, strict=False))
    assert verdicts.all_or_some(named, "the depth", "at", "all are slower") == verdict


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ([YES, NO, OPEN], "depends on the part: it is true that p, but not that q, and it is "),
        ([YES, OPEN], 'undecided: the 95% interval contains the threshold for "q"'),
        ([FEW, FEW], "undecided: 5 seeds cannot give"),
    ],
)
def test_all_parts(parts, verdict):
    assert verdicts.all_parts(dict(zip("pqr", parts, strict=False))).startswith(verdict)


@pytest.mark.parametrize(
    ("count", "total", "verdict"),
    [
        (6, 6, "reproduced"),
        (0, 6, "not reproduced"),
        (5, 5, "undecided: 5 seeds cannot give a 95% interval"),
        (0, 5, "undecided: 5 seeds cannot give a 95% interval"),
        (2, 5, "depends on the seed: it holds for 2 of 5 runs"),
    ],
)
def test_some_of(count, total, verdict):
    assert verdicts.some_of(count, total, "the seed").startswith(verdict)


@pytest.mark.parametrize(
    ("answers", "every", "some"),
    [
        ([True, None], None, True),
        ([False, None], False, None),
        ([True, False, None], False, True),
        ([True, True], True, True),
        ([False, False], False, False),
    ],
)
def test_answers_with_undecided_ones(answers, every, some):
    assert checks.conjunction(answers) is every
    assert checks.disjunction(answers) is some


def test_a_check_shows_its_number_and_its_condition():
    ratio = Interval(2.111, 1.9, 2.4, 10)
    assert checks.check(ratio, "at most", 1.5) == ("2.11 [1.9, 2.4]", "at most 1.5", False, 10)
    level = checks.check_between(Interval(1, 0.9, 1.2, 10), 0.95, 1.05, ".2f")
    assert level == ("1.00 [0.90, 1.20]", "0.95 to 1.05", None, 10)
    two = checks.both(checks.check(ratio, "above", 2), level)
    assert two.holds is None
    assert two.number == "2.11 [1.9, 2.4]; 1.00 [0.90, 1.20]"


def by_seed(values, first=0):
    return pd.Series(values, index=range(first, first + len(values)), dtype=float)


def test_samples_with_the_same_seeds_are_paired():
    steps = np.random.default_rng(0).lognormal(4, 0.4, 10)
    paired = checks.ratio(by_seed(2 * steps), by_seed(steps))
    assert paired[:3] == pytest.approx((2, 2, 2))
    unpaired = checks.ratio(by_seed(2 * steps, first=10), by_seed(steps))
    assert unpaired.low < 1.9 < 2.1 < unpaired.high


def test_a_blank_step_is_a_miss_and_values_are_in_the_order_of_seeds():
    rows = pd.DataFrame({"seed": [2, 0, 1], "steps_to_target": [7, None, 5]})
    assert checks.sample(rows, "steps_to_target").to_dict() == {0: np.inf, 1: 5, 2: 7}


def test_a_number_from_several_medians():
    samples = [by_seed([1.0] * 6), by_seed([9.0] * 6), by_seed([3.0] * 6)]
    found = checks.statistic(lambda *m: np.max(m, axis=0) / np.min(m, axis=0), *samples)
    assert found == (9, 9, 9, 6)
    assert checks.difference(*samples[:2]) == (-8, -8, -8, 6)
