"""Intervals over seeds: their coverage, and runs that miss the target as infinities."""

import numpy as np
import pytest
from scipy import stats

from sweeps.harness.results import intervals

INF = np.inf


def steps(rng, size, *, median, budget, hard=1.0):
    """Steps to a target from a log-normal distribution, infinite beyond the budget."""
    found = hard * rng.lognormal(np.log(median), 0.5, size)
    return np.where(found > budget, INF, found)


def covered(interval, truth):
    return np.mean((interval.low <= truth) & (truth <= interval.high))


@pytest.mark.parametrize(("seeds", "rank"), [(6, 1), (10, 2), (20, 6)])
def test_coverage_for_medians_is_the_binomial_one_and_at_least_95_percent(seeds, rank):
    exact = 1 - 2 * stats.binom.cdf(rank - 1, seeds, 0.5)
    assert exact >= 0.95
    sample = steps(np.random.default_rng(seeds), (10_000, seeds), median=100, budget=120)
    assert np.isinf(sample).mean() > 0.3
    found = covered(intervals.of_median(sample), 100)
    assert abs(found - exact) < 4 * np.sqrt(exact * (1 - exact) / 10_000)


@pytest.mark.parametrize("seeds", [6, 10, 20])
def test_coverage_for_medians_beyond_the_budget(seeds):
    sample = steps(np.random.default_rng(seeds), (10_000, seeds), median=100, budget=80)
    assert covered(intervals.of_median(sample), INF) >= 0.95


@pytest.mark.parametrize("seeds", [6, 7, 8, 9, 10, 15, 31])
def test_medians_have_the_interval_of_scipys_quantile_test(seeds):
    sample = np.random.default_rng(seeds).normal(size=seeds)
    expected = stats.quantile_test(sample, p=0.5).confidence_interval(0.95)
    found = intervals.of_median(sample)
    assert (found.low, found.high) == tuple(expected)
    assert found.estimate == np.median(sample)


# With 10,000 samples and 6, 10 and 20 seeds: 95.8%, 96.6% and 96.8%; paired 94.3%, 95.7%, 96.3%.
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("seeds", [6, 10, 20])
def test_coverage_for_ratios_of_medians_is_near_95_percent(seeds, paired, monkeypatch):
    monkeypatch.setattr(intervals, "_RESAMPLES", 499)
    rng = np.random.default_rng(seeds)
    hard = rng.lognormal(0, 0.2, (1000, seeds)) if paired else 1.0  # some seeds need more
    plain, normed = (
        steps(rng, (1000, seeds), median=median, budget=budget, hard=hard)
        for median, budget in ((100, 150), (50, INF))
    )
    found = covered(intervals.of_median_ratio(plain, normed, paired=paired), 2)
    assert 0.90 < found < 0.999


def test_paired_resamples_take_the_same_seeds_from_both_samples():
    sample = np.random.default_rng(0).lognormal(size=10)
    paired = intervals.of_median_ratio(3 * sample, sample, paired=True)
    assert paired[:3] == pytest.approx((3, 3, 3))
    unpaired = intervals.of_median_ratio(3 * sample, sample, paired=False)
    assert unpaired.low < 2.5 < 3.5 < unpaired.high


def test_samples_that_are_not_paired_may_differ_in_size():
    found = intervals.of_median_ratio([8.0] * 7, [2.0] * 10, paired=False)
    assert found == (4, 4, 4, 7)


def test_ratios_with_misses():
    hits, misses = [10.0] * 6, [INF] * 6
    ratio = intervals.of_median_ratio
    assert ratio(misses, hits, paired=True)[:3] == (INF, INF, INF)
    assert ratio(hits, misses, paired=True)[:3] == (0, 0, 0)
    both = ratio(misses, misses, paired=True)
    assert np.isnan(both.estimate)
    assert (both.low, both.high) == (0, INF)
    assert both.shown() == "unknown [0, infinite]"
    half = ratio([10.0] * 4 + [INF] * 3, hits, paired=False)  # some resamples have most misses
    assert (half.estimate, half.low, half.high) == (1, 1, INF)


def test_bootstrap_takes_any_statistic_of_several_samples():
    def spread(*samples, axis):
        medians = np.stack([np.median(sample, axis=axis) for sample in samples])
        return medians.max(axis=0) - medians.min(axis=0)

    found = intervals.bootstrap(spread, [1.0] * 6, [5.0] * 6, [2.0] * 5 + [9.0], paired=True)
    # Of six draws, three or more are the 9 with probability 6.2%, and four or more with 0.9%.
    assert found == (4, 4, 4.5, 6)


def test_bootstrap_agrees_with_scipy_where_every_value_is_finite():
    sample = np.random.default_rng(1).normal(size=12)
    expected = stats.bootstrap([sample], np.mean, method="percentile", rng=5).confidence_interval
    found = intervals.bootstrap(np.mean, sample, paired=False)
    assert [found.low, found.high] == pytest.approx(list(expected), abs=0.03)


@pytest.mark.parametrize("seeds", [1, 5])
def test_fewer_than_six_seeds_give_no_interval(seeds):
    assert 2 / 2**intervals.SEEDS_NEEDED < 1 - intervals.CONFIDENCE < 4 / 2**intervals.SEEDS_NEEDED
    for found in (
        intervals.of_median([7.0] * seeds),
        intervals.of_median_ratio([7.0] * seeds, [1.0] * 9, paired=False),
        intervals.of_share(seeds, seeds),
    ):
        assert found.low <= 0
        assert (found.high, found.seeds) == (INF, seeds)
        assert found.above(0.5) is found.below(0.5) is None
        assert "[" not in found.shown()


def test_shares_have_the_clopper_pearson_interval():
    found = intervals.of_share(4, 10)
    assert found.estimate == 0.4
    beta = stats.beta.ppf([0.025, 0.975], [4, 5], [7, 6])
    assert [found.low, found.high] == pytest.approx(beta.tolist())
    assert intervals.of_share(6, 6).above(0.5)


def test_an_interval_with_numbers_on_both_sides_of_the_bound_does_not_decide():
    found = intervals.of_median([15, 16, 16, 16, 17, 18])
    assert found == (16, 15, 18, 6)
    bounds = (14, 15, 16, 18, 19)
    assert [found.above(bound) for bound in bounds] == [True, None, None, False, False]
    assert [found.at_most(bound) for bound in bounds] == [False, None, None, True, True]
    assert [found.below(bound) for bound in bounds] == [False, False, None, None, True]
    assert [found.at_least(bound) for bound in bounds] == [True, True, None, None, False]


def test_intervals_in_words():
    assert intervals.of_median([15, 16, 16, 16, 17, 18]).shown() == "16 [15, 18]"
    slow = intervals.of_median([210, 250, 260, INF, INF, INF, INF])
    assert slow.shown(infinite=">300") == ">300 [210, >300]"
    assert intervals.of_median([0.5, 0.25]).shown(".1%") == "37.5%"


def test_probability_less_is_mann_whitneys_statistic():
    rng = np.random.default_rng(0)
    values, others = rng.integers(0, 5, 9).astype(float), rng.integers(0, 5, 6).astype(float)
    values[0] = others[0] = INF
    greater = stats.mannwhitneyu(others, values).statistic  # pairs in which the other is greater
    assert intervals.probability_less(values, others) == pytest.approx(greater / 54)
    assert intervals.probability_less([1, 2], [3, INF]) == 1
    assert intervals.probability_less([INF], [INF]) == 0.5
