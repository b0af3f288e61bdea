"""The rules of the moving-average study, on tables made by hand for each verdict."""

import pytest
from claim_tables import NO, YES, assert_verdict, rows_of, trial, trials

from sweeps.harness import claims


def statistics(judge, number, *seeds):
    """Each seed: the step at which each kind reaches the target; None: it does not."""
    seeds = seeds * 6
    frame = trials(*[trial(batch_norm=True, seed=n) for n in range(len(seeds))], seeds=1)
    found = rows_of(
        frame,
        "statistics",
        lambda t: [
            {"step": s, "statistics": name, "accuracy": 0.95 if at and s >= at else 0.5}
            for name, at in seeds[t.seed].items()
            for s in range(5, 301, 5)
        ],
    )
    return judge(number, trials=frame, statistics=found)


@pytest.mark.parametrize(
    ("slow", "verdict"),
    [
        (40, YES),
        (None, YES),
        (25, "depends on the threshold: the slowest momentum takes 1.67 ["),
        (20, NO),
    ],
)
def test_momentum(judge, slow, verdict):
    # Over seeds, the fastest momentum takes 15 or 20: a ratio of 1.33, as 20 to 15 is.
    finding = statistics(
        judge,
        21,
        {"momentum 0.5": 15, "momentum 0.99": slow, "momentum 0.99, debiased": 300},
        {"momentum 0.5": 15, "momentum 0.99": slow, "momentum 0.99, debiased": 300},
        {"momentum 0.5": 15, "momentum 0.99": slow, "momentum 0.99, debiased": 300},
        {"momentum 0.5": 15, "momentum 0.99": slow, "momentum 0.99, debiased": 300},
        {"momentum 0.5": 20, "momentum 0.99": slow, "momentum 0.99, debiased": 300},
    )
    assert_verdict(finding, verdict)


@pytest.mark.parametrize(
    ("recalibrated", "debiased", "verdict"),
    [
        (20, 25, YES),
        (20, 30, "depends on the statistics: it holds for recalibrated statistics"),
        (30, None, NO),
    ],
)
def test_debiased(judge, recalibrated, debiased, verdict):
    kinds = {"momentum 0.99": 80, "recalibrated": recalibrated, "batch": 20}
    finding = statistics(judge, 22, kinds | {"momentum 0.99, debiased": debiased})
    assert_verdict(finding, verdict)


@pytest.mark.parametrize("number", [21, 22])
def test_statistics_at_none_of_which_the_target_is_reached_are_no_result(judge, number):
    kinds = ["momentum 0.5", "momentum 0.99", "momentum 0.99, debiased", "recalibrated", "batch"]
    with pytest.raises(claims.UndecidedError, match="runs that reach the target"):
        statistics(judge, number, dict.fromkeys(kinds))
