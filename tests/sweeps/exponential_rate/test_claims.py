"""The rule of the exponential-rate study, on tables made by hand for each verdict."""

import pytest
from claim_tables import NO, YES, assert_verdict, rows_of, trial, trials

from sweeps.harness import claims


def finding(judge, largest, seeds=6, rate=0.2):
    """largest: the largest difference of each schedule, at a step before the last one."""
    frame = trials(
        *[
            trial(batch_norm=True, learning_rate=each, schedule=name)
            for name in largest
            for each in (rate, 1.0)
        ],
        seeds=seeds,
    )

    def rows(t):
        at_rate = largest[t.schedule] * (1 + 0.01 * (t.seed % seeds))
        values = {0: 0.0, 100: at_rate if t.learning_rate == rate else 3.0, 200: 1e-15}
        return [{"step": step, "difference": value} for step, value in values.items()]

    return judge(32, trials=frame, difference=rows_of(frame, "difference", rows))


def schedules(exponential, constant, shifted):
    names = ("exponential", "constant", "exponent -2t", "rounding")
    return dict(zip(names, (exponential, constant, shifted, 1e-11), strict=True))


@pytest.mark.parametrize(
    ("largest", "verdict"),
    [
        (schedules(1e-10, 2.0, 1.0), YES),
        (schedules(1e-10, 2.0, 1e-9), "depends on the part: it is true that the exponential rate"),
        (schedules(1e-3, 2.0, 1.0), "depends on the part: it is true that a constant rate"),
        (schedules(1e-3, 1e-9, 1e-9), NO),
        (schedules(9.8e-9, 2.0, 1.0), "undecided: the 95% interval contains the threshold"),
    ],
)
def test_the_same_function(judge, largest, verdict):
    found = finding(judge, largest)
    assert_verdict(found, verdict)
    middle = 1.025 * largest["exponential"]
    assert f"within 200 steps, the logits differ by at most {middle:.1e} [" in found.measured
    assert len(found.rows) == 2 * 4


def test_the_claim_is_about_the_low_rate(judge):
    with pytest.raises(claims.UndecidedError, match=r"learning_rate=0\.2"):
        finding(judge, schedules(1e-10, 2.0, 1.0), rate=0.1)
