"""The selection of learning rates, on tables made by hand. Medians are by hand, too."""

import itertools

import numpy as np
import pandas as pd
import pytest
from tuned_tables import RATES, of_rates, trials

from sweeps.tuned import selection


def rate_of(*medians, **options):
    """The selected rate of a network with these medians at 0.001, 0.01 and 0.1."""
    table = trials(*of_rates(7, False, dict(zip(RATES, medians, strict=True)), **options))
    return selection.rates(table)[7, False]


def test_the_smallest_median_is_selected():
    assert rate_of(28, 16, 40) == 0.01


def test_the_lower_of_two_equal_rates_is_selected():
    assert rate_of(28, 16, 16) == 0.01
    assert rate_of(16, 28, 16) == 0.001


def test_a_rate_that_only_some_seeds_reach_is_worse_than_any_finite_median():
    assert rate_of(149, [5, 5, 5, None, None, None], None) == 0.001


def test_if_no_median_is_finite_the_rate_with_most_hits_is_selected():
    few, more = [9, None, None, None, None, None], [99, 99, None, None, None, None]
    assert rate_of(few, more, None) == 0.01
    assert rate_of(None, None, None) == 0.001


def test_the_test_set_and_crashed_trials_do_not_count():
    validation = of_rates(7, False, {0.001: 20, 0.01: 30})
    others = of_rates(7, False, {0.001: 900, 0.01: 1}, evaluated_on="test")
    crashed = of_rates(7, False, {0.01: 1}, seeds=range(6, 60), status="failed")
    table = selection.table(trials(*validation, *others, *crashed))
    assert table[["learning_rate", "median_steps", "total"]].to_numpy().tolist() == [[0.001, 20, 6]]


def test_a_seed_that_lacks_a_rate_does_not_count():
    table = trials(*of_rates(1, True, {0.01: 30}), *of_rates(1, True, {0.1: 20}, seeds=range(2)))
    assert selection.table(table).total.tolist() == [2]


def test_trials_with_other_settings_are_never_mixed():
    made = of_rates(1, True, {0.01: 30}) + of_rates(1, True, {0.01: 20}, target_accuracy=0.95)
    assert selection.rates(trials(*made)) == {}
    assert selection.table(trials(*made)).empty


@pytest.mark.parametrize(
    ("medians", "edge"), [((9, 20, 30), True), ((20, 9, 30), False), ((20, 30, 9), True)]
)
def test_the_ends_of_the_grid_are_named(medians, edge):
    made = of_rates(2, True, dict(zip(RATES, medians, strict=True)))
    assert selection.table(trials(*made)).at_edge.tolist() == [edge]


@pytest.mark.parametrize(
    ("medians", "low", "high"),
    [
        ((28, 31, 53), 0.001, 0.1),
        ((28, 31, 57), 0.001, 0.01),
        ((57, 28, 57), 0.01, 0.01),
        ((56, None, 28), 0.001, 0.1),  # the ends count, not the rates between them
        ((None, None, None), np.nan, np.nan),
    ],
)
def test_tolerated_rates_need_at_most_twice_the_fewest_steps(medians, low, high):
    table = selection.table(
        trials(*of_rates(7, False, dict(zip(RATES, medians, strict=True))))
    ).iloc[0]
    found = table[["lowest_tolerated", "highest_tolerated", "tolerance"]].to_numpy(float)
    np.testing.assert_allclose(found, [low, high, high / low])


def test_the_interval_of_the_tolerance_is_over_the_seeds():
    steady = selection.table(trials(*of_rates(7, False, {0.001: 10, 0.01: 15, 0.1: 30}))).iloc[0]
    assert (steady.tolerance_low, steady.tolerance, steady.tolerance_high) == (10, 10, 10)
    split = [15, 15, 15, 30, 30, 30]  # half of the seeds tolerate the rate
    shaky = selection.table(trials(*of_rates(7, False, {0.001: 10, 0.01: 12, 0.1: split}))).iloc[0]
    assert (shaky.tolerance_low, shaky.tolerance_high) == (10, 100)


def test_tuning_budgets_take_all_subsets_of_the_rates():
    medians = {0.001: 10, 0.003: None, 0.01: 20, 0.1: 40}
    found = selection.by_budget(trials(*of_rates(7, False, medians)))
    for row in found.itertuples():
        values = [np.inf if steps is None else steps for steps in medians.values()]
        best = [min(subset) for subset in itertools.combinations(values, row.rates)]
        assert row.subsets == len(best)
        assert row.reaching == sum(np.isfinite(best)) / len(best)
        assert row.median_steps == np.median(best)
    assert found.rates.tolist() == [1, 2, 3, 4]
    assert found.median_steps.tolist() == [30, 15, 10, 10]
    assert found.reaching.tolist() == [0.75, 1, 1, 1]
    assert set(found.evaluated_on) == {"validation"}


def test_no_trials_give_empty_tables():
    empty = trials(*of_rates(1, True, {0.01: 30}, evaluated_on="test"))
    assert selection.rates(empty) == {}
    for frame in (selection.table(empty), selection.by_budget(empty)):
        assert isinstance(frame, pd.DataFrame)
        assert frame.empty
    assert selection.reported(empty) == {}
