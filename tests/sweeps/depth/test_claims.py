"""The rules of the depth study, on tables made by hand for each verdict."""

import pytest
from claim_tables import NO, YES, assert_verdict, depths

from sweeps.harness import claims


@pytest.mark.parametrize(
    ("number", "arm", "steps", "verdict"),
    [
        (1, False, (17, 20, 25), YES),
        (1, False, (17, 20, None), YES),
        (1, False, (17, 30, 25), "depends on the layer: the steps do not grow from 2 to 3"),
        (1, False, (17, None, None), "depends on the layer: the steps do not grow from 2 to 3"),
        (1, False, (17, 20, 16), NO),
        (2, True, (16, 12, 18), YES),
        (
            *(2, True, (16, 9, 19, 19)),
            "depends on the baseline depth: 4 layers need 1.2 times the steps of 1 layer, but 2.1 "
            "times the steps of 2 layers",
        ),
        (2, True, (16, 17, 30), NO),
        (2, True, (16, 17, None), NO),
    ],
)
def test_depth(judge, number, arm, steps, verdict):
    finding = judge(number, trials=depths(arm, *steps))
    assert_verdict(finding, verdict)
    assert f"1: {steps[0]} (3/3)" in finding.measured
    if steps[-1] is None:
        assert "3: >300 (0/3)" in finding.measured


def test_claims_are_undecided_if_no_run_reaches_the_target(judge):
    for number, batch_norm in ((1, False), (2, True)):
        with pytest.raises(claims.UndecidedError, match="no run reached the target"):
            judge(number, trials=depths(batch_norm, None, None))
