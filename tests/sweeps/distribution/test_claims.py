"""The rules of the distribution study, on tables made by hand for each verdict."""

import pytest
from claim_tables import NO, YES, assert_verdict, rows_of, trial, trials


@pytest.mark.parametrize(
    ("accuracy", "steps", "verdict"),
    [
        (0.97, 50, YES),
        (
            0.97,
            150,
            "depends on the part: it is true that the accuracy is higher, but",
        ),
        (0.93, 150, NO),
    ],
)
def test_higher_and_sooner(judge, accuracy, steps, verdict):
    frame = trials(
        trial(batch_norm=False, final_accuracy=0.95, steps_to_target=100),
        trial(batch_norm=True, final_accuracy=accuracy, steps_to_target=steps),
    )
    assert_verdict(judge(13, trials=frame), verdict)


@pytest.mark.parametrize(
    ("drift", "verdict"),
    [
        (1.0, YES),
        (3.0, "depends on the threshold: with batch norm, they move 0.75 [0.75, 0.75] times"),
        (5.0, NO),
    ],
)
def test_percentiles(judge, drift, verdict):
    frame = trials(trial(batch_norm=False, drift=4.0), trial(batch_norm=True, drift=drift))
    percentiles = rows_of(
        frame,
        "percentiles",
        lambda t: [
            {"step": s, "unit": u, "p15": m - 0.5, "p50": m, "p85": m + 0.5}
            for u in (1, 2)
            for s, m in enumerate([0.0, t.drift, t.drift / 2])
        ],
    )
    finding = judge(14, trials=frame, percentiles=percentiles)
    assert_verdict(finding, verdict)
    drifts = [row["Median drift, in spreads"] for row in finding.rows]
    assert drifts == ["4 [4, 4]", f"{drift:g} [{drift:g}, {drift:g}]"]
