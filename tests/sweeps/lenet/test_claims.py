"""The rules of the LeNet study, on tables made by hand for each verdict."""

import pytest
from claim_tables import NO, YES, assert_verdict, rows_of, trial, trials


@pytest.mark.parametrize(
    ("plain", "normed", "verdict"),
    [
        (6, 2, YES),
        (
            3,
            2,
            "depends on the part: it is true that batch norm needs at most two epochs",
        ),
        (
            9,
            4,
            "depends on the part: it is true that plain needs at least twice as many",
        ),
        (5, 4, NO),
        (99, 4, "depends on the part"),  # plain never
    ],
)
def test_lenet_loss(judge, plain, normed, verdict):
    frame = trials(
        trial(batch_norm=False, learning_rate=0.9, at=plain),
        trial(batch_norm=False, learning_rate=1.0, at=1),
        trial(batch_norm=True, learning_rate=0.9, at=9),
        trial(batch_norm=True, learning_rate=1.0, at=normed),
    )
    curves = rows_of(
        frame,
        "curves",
        lambda t: [
            {"step": 235 * e, "train_loss": 0.5 if e >= t.at else 0.6} for e in range(1, 11)
        ],
    )
    assert_verdict(judge(9, trials=frame, curves=curves), verdict)


@pytest.mark.parametrize(
    ("falls", "verdict"),
    [
        ((0.05, 0.02), YES),
        ((0.05, 0.01), "depends on the seed: it holds for 6 of 12"),
        ((0.01, 0.0), NO),
    ],
)
def test_lenet_swings(judge, falls, verdict):
    frame = trials(*[trial(batch_norm=True, learning_rate=1.0, fall=fall) for fall in falls])
    curves = rows_of(
        frame,
        "curves",
        lambda t: [
            {"step": s, "test_accuracy": a}
            for s, a in enumerate([0.8, 0.75 + 0.125, 0.875 - t.fall - 1e-9, 0.9])
        ],
    )
    assert_verdict(judge(10, trials=frame, curves=curves), verdict)
