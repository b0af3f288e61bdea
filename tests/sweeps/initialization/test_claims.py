"""The rules of the initialization study, on tables made by hand for each verdict."""

import pytest
from claim_tables import NO, YES, assert_verdict, rows_of, trial, trials


@pytest.mark.parametrize(
    ("plain", "normed", "verdict"),
    [
        ([90, 80], [5, 6], YES),
        ([90, 20], [5, 6], "depends on the seed: it holds for 18 of 24"),
        ([20, 20], [5, 6], NO),
        ([90, 90], [15, 16], NO),
    ],
)
def test_fit(judge, plain, normed, verdict):
    frame = trials(
        *[
            trial(activation="relu", batch_norm=arm, loss=loss)
            for arm, losses in ((False, plain), (True, normed))
            for loss in losses
        ]
    )
    evaluation = rows_of(
        frame,
        "evaluation",
        lambda t: [
            {"step": s, "data": d, "loss": t.loss if (s, d) == (1, "test") else 1e3 * (d == "test")}
            for s in (0, 1, 2)
            for d in ("train", "test")
        ],
    )
    predictions = rows_of(frame, "predictions", lambda t: [{"step": 2, "y": y} for y in (10, -10)])
    assert_verdict(judge(11, trials=frame, evaluation=evaluation, predictions=predictions), verdict)


@pytest.mark.parametrize(
    ("plain", "normed", "verdict"),
    [
        ("4-2-4", "1-8-1", YES),
        ("4-2-4", "3-4-3", "depends on the part: it is true that plain saturates at both ends"),
        (
            "0-6-4",
            "1-8-1",
            "depends on the part: it is true that batch norm saturates at most half as much",
        ),
        ("0-9-1", "1-8-1", NO),
    ],
)
def test_saturation(judge, plain, normed, verdict):
    frame = trials(
        *[
            trial(activation="tanh", batch_norm=arm, counts=counts)
            for arm, counts in ((False, plain), (True, normed))
        ]
    )
    # Bins from -1.35 to 1.35: the outer two are what is beyond 0.9 but for half of their width.
    histograms = rows_of(
        frame,
        "histograms",
        lambda t: [
            {"step": s, "layer": 1, "tensor": name, "low": -2.7, "high": 2.7, "counts": counts}
            for s, name, counts in [
                (0, "activation", "0-1-0"),
                (9, "activation", t.counts),
                (9, "pre_activation", "0-1-0"),
            ]
        ],
    )
    finding = judge(12, trials=frame, histograms=histograms)
    assert_verdict(finding, verdict)
    if plain == "4-2-4":
        shown = "40% [40%, 40%]"
        assert finding.measured.startswith(f"{shown} of the plain network's tanh activations are")
        assert f"and {shown} are above 0.9" in finding.measured
