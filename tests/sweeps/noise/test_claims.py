"""The rules of the noise study, on tables made by hand for each verdict."""

import numpy as np
import pandas as pd
import pytest
from claim_tables import NO, YES, assert_verdict, rows_of, trial, trials

from sweeps.noise import measures

DEPENDS = "depends on the part: it is true that "


def percentiles(jump):
    """Two units of spread 2 that jump by `jump` spreads in a step, and farther in ten steps."""
    return [
        {"step": s, "unit": u, "p15": m - 1, "p50": m, "p85": m + 1}
        for u in (1, 2)
        for s, m in ((0, 0.0), (1, 2 * jump), (11, 7.0), (12, 7.0 - 2 * jump))
    ]


@pytest.mark.parametrize(
    ("jump", "steps", "plain_steps", "verdict"),
    [
        (0.3, 60, None, YES),
        (0.1, 60, None, f"{DEPENDS}batch norm with noise trains about as fast"),
        (0.3, 90, None, f"{DEPENDS}noise makes batch norm's distributions less stable"),
        (0.3, 60, 200, f"{DEPENDS}noise makes"),
        (0.1, 90, 200, NO),
    ],
)
def test_noise_moves_distributions_only(judge, jump, steps, plain_steps, verdict):
    frame = trials(
        trial(batch_norm=False, noise=0.0, jump=0.2, steps_to_target=100),
        trial(batch_norm=True, noise=0.0, jump=0.01, steps_to_target=50),
        trial(batch_norm=False, noise=1.0, jump=0.4, steps_to_target=plain_steps),
        trial(batch_norm=True, noise=1.0, jump=jump, steps_to_target=steps),
    )
    made = rows_of(frame, "percentiles", lambda t: percentiles(t.jump))
    losses = [1.0, 0.5, 0.4]
    curves = rows_of(
        frame,
        "curves",
        lambda t: [
            {"step": s * (1 + t.noise), "train_loss": x, "test_accuracy": None}
            for s, x in enumerate(losses, 1)
        ],
    )
    recalibrated = rows_of(
        frame[frame.batch_norm],
        "recalibrated",
        lambda t: [
            {"step": s * (2 + t.noise), "recalibrated": x, "moving_averages": x - 0.1}
            for s, x in ((10, 0.8), (20, 0.9), (30, 1.0))
        ],
    )
    tables = {"percentiles": made, "curves": curves, "recalibrated": recalibrated}
    finding = judge(29, trials=frame.drop(columns="jump"), **tables)
    assert "but 1.5 [1.5, 1.5] times if both have recalibrated statistics" in finding.measured
    found = [row["The same at recorded steps, recalibrated"] for row in finding.rows]
    assert found == ["", "40 [40, 40]", "", "60 [60, 60]"]
    found = [row["The same at recorded steps, moving averages"] for row in finding.rows]
    assert found == ["", "60 [60, 60]", "", "90 [90, 90]"]
    assert_verdict(finding, verdict)
    found = [row["Median steps to a training loss of 0.5"] for row in finding.rows]
    assert found == ["2 [2, 2]"] * 2 + ["4 [4, 4]"] * 2
    assert finding.rows[0]["Median jump, in spreads"] == "0.2 [0.2, 0.2]"
    assert f"batch norm needs {steps / 50:.3g} [" in finding.measured
    needed = plain_steps or ">300"
    assert f"noise needs {needed} [{needed}, {needed}] steps" in finding.measured


@pytest.mark.parametrize(
    ("loss", "gradient", "verdict"),
    [
        (0.5, 1.0, YES),
        (0.5, 3.0, f"{DEPENDS}the loss varies less, but not that the gradient changes less"),
        (2.0, 1.0, f"{DEPENDS}the gradient changes less"),
        (2.0, 3.0, NO),
    ],
)
def test_batch_norm_makes_the_loss_smoother(judge, loss, gradient, verdict):
    frame = trials(
        trial(batch_norm=False, noise=0.0, range=1.0, change=2.0),
        trial(batch_norm=True, noise=0.0, range=loss, change=gradient),
        trial(batch_norm=True, noise=1.0, range=100.0, change=100.0),
    )
    made = rows_of(
        frame,
        "landscape",
        lambda t: [
            {
                "step": s,
                "multiple": m,
                "loss": 3 + part * t.range,
                "gradient_change": part * t.change,
            }
            for s in (0, 10)
            for m, part in ((0.0, 0.0), (0.5, 0.0), (2.0, 1.0), (4.0, 0.5))
        ],
    )
    finding = judge(30, trials=frame.drop(columns=["range", "change"]), landscape=made)
    assert_verdict(finding, verdict)
    assert finding.rows[0]["batch norm"] == f"{loss:g} [{loss:g}, {loss:g}]"
    assert finding.rows[3]["plain"] == "0.333 [0.333, 0.333]"


def test_movements_are_medians_over_units_in_spreads():
    rows = [
        {"trial_id": "a", "step": step, "unit": unit, "p15": p50 - 1, "p50": p50, "p85": p50 + 3}
        for unit, values in ((1, [0, 1, 3]), (2, [0, 4, 0]), (3, [2, 2, 2]))
        for step, p50 in zip((0, 1, 2, 30), [*values, 2], strict=True)
    ]
    shuffled = pd.DataFrame(rows).sample(frac=1, random_state=0)
    found = measures.movements(shuffled)
    np.testing.assert_allclose(
        found.loc["a"], [1.5 / 4, 3 / 4]
    )  # of jumps 1.5, 4, 0; drifts 3, 4, 0
