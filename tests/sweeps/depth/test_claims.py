"""The rules of the depth study, on tables made by hand for each verdict."""

import pytest
from claim_tables import NO, YES, assert_verdict, depths, trial, trials

from sweeps.harness import claims


@pytest.mark.parametrize(
    ("number", "arm", "steps", "verdict"),
    [
        (1, False, (17, 20, 25), YES),
        (1, False, (17, 20, None), YES),
        (
            *(1, False, (17, 30, 25)),
            "depends on the layer: the steps do not grow with 3 layers instead of 2",
        ),
        (
            *(1, False, (17, None, None)),
            "undecided: the 95% interval contains the threshold for 3 layers instead of 2",
        ),
        (1, False, (17, 20, 16), NO),
        (2, True, (16, 12, 18), YES),
        (
            *(2, True, (16, 9, 19, 19)),
            "depends on the baseline depth: the slowest depth needs 1.19 [1.19, 1.19] times the "
            "steps of 1 layer, but 2.11 [2.11, 2.11] times those of the fastest depth",
        ),
        (2, True, (16, 17, 30), NO),
        (2, True, (16, 17, None), NO),
    ],
)
def test_depth(judge, number, arm, steps, verdict):
    finding = judge(number, trials=depths(arm, *steps))
    assert_verdict(finding, verdict)
    medians = [row["Median steps"] for row in finding.rows]
    assert medians[0] == f"{steps[0]} [{steps[0]}, {steps[0]}] (6/6)"
    if steps[-1] is None:
        assert medians[-1] == ">300 [>300, >300] (0/6)"


@pytest.mark.parametrize("number", [1, 2])
def test_five_seeds_do_not_suffice(judge, number):
    finding = judge(number, trials=depths(number == 2, 17, 20, 25, seeds=5))
    assert finding.verdict == (
        "undecided: 5 seeds cannot give a 95% interval for a median; six are needed"
    )
    assert finding.rows[0]["Median steps"] == "17 (5/5)"


def varied(*groups):
    """Plain trials: the steps of each seed, by depth."""
    return trials(
        *[
            trial(depth=depth, batch_norm=False, seed=seed, steps_to_target=each)
            for depth, steps in enumerate(groups, 1)
            for seed, each in enumerate(steps)
        ],
        seeds=1,
    )


def test_a_ratio_that_may_be_on_either_side_of_1_is_undecided(judge):
    shallow, deep = [15, 16, 17, 18, 19, 20], [15, 18, 18, 20, 20, 18]
    finding = judge(1, trials=varied(shallow, deep, [3 * steps for steps in shallow]))
    assert finding.verdict == (
        "undecided: the 95% interval contains the threshold for 2 layers instead of 1"
    )
    assert finding.measured == "3 layers need 3 [3, 3] times the steps of 1 layer"


def test_claims_are_undecided_if_no_run_reaches_the_target(judge):
    for number, batch_norm in ((1, False), (2, True)):
        with pytest.raises(claims.UndecidedError, match="no run reached the target"):
            judge(number, trials=depths(batch_norm, None, None))
