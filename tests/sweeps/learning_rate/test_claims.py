"""The rules of the learning-rate study, on tables made by hand for each verdict."""

import pytest
from claim_tables import NO, YES, assert_verdict, rows_of, trial, trials


@pytest.mark.parametrize(
    ("at_low", "at_high", "verdict"),
    [
        (40, 20, YES),
        (60, 20, "depends on the learning rate: it holds at 0.1, but not at 0.02"),
        (60, 80, NO),
    ],
)
def test_fewer_steps(judge, at_low, at_high, verdict):
    frame = trials(
        *[
            trial(activation="relu", learning_rate=rate, decay_steps=None, batch_norm=arm, at=at)
            for rate, arm, at in [(0.02, False, 100), (0.02, True, at_low), (0.1, True, at_high)]
        ]
    )
    curves = rows_of(
        frame,
        "curves",
        lambda t: [
            {"step": s, "test_accuracy": 0.95 if s >= t.at else 0.5} for s in range(20, 121, 20)
        ],
    )
    finding = judge(6, trials=frame, curves=curves)
    assert_verdict(finding, verdict)
    assert finding.rows[0]["Median steps to plain's best accuracy"] == "100 [100, 100]"
    assert finding.rows[1]["Faster than plain with probability"] == "1.00"


def test_every_seed_of_the_plain_network_reaches_its_own_best_accuracy(judge):
    frame = trials(
        *[
            trial(activation="relu", learning_rate=0.02, decay_steps=None, batch_norm=arm)
            for arm in (False, True)
        ]
    )

    def accuracies(t):
        best, at = 0.94 + t.seed / 1000, 30 if t.batch_norm else 100  # seeds are not alike
        return [
            {"step": s, "test_accuracy": best if s >= at else best - 0.0005}
            for s in range(10, 121, 10)
        ]

    finding = judge(6, trials=frame, curves=rows_of(frame, "curves", accuracies))
    steps = [row["Median steps to plain's best accuracy"] for row in finding.rows]
    assert steps == ["100 [100, 100]", "30 [30, 30]"]
    assert "0.3 [0.3, 0.3]" in finding.measured
    assert_verdict(finding, YES)


def rates(reached, best=None):
    """Trials by (activation, batch_norm, rate): whether they reach the target."""
    return trials(
        *[
            trial(
                activation=name,
                batch_norm=arm,
                learning_rate=rate,
                decay_steps=None,
                reached=hit,
                best_accuracy=(best or {}).get((name, arm), 0.9),
            )
            for (name, arm, rate), hit in reached.items()
        ]
    )


@pytest.mark.parametrize(
    ("relu_plain", "sigmoid_plain", "verdict"),
    [
        (False, False, YES),
        (False, True, "depends on the activation: it holds for ReLU, but not for sigmoid"),
        (True, True, NO),
    ],
)
def test_trains_at_rates(judge, relu_plain, sigmoid_plain, verdict):
    reached = {("relu", True, 3.0): True, ("sigmoid", True, 3.0): True}
    reached |= {("relu", False, 3.0): relu_plain, ("sigmoid", False, 3.0): sigmoid_plain}
    assert_verdict(judge(7, trials=rates(reached)), verdict)


@pytest.mark.parametrize(
    ("normed", "plain", "best", "verdict"),
    [
        (True, False, 0.91, YES),
        (True, True, 0.91, "depends on the learning rate: plain sigmoids also train at 0.6"),
        (True, False, 0.97, "depends on the part: sigmoids train only with batch norm, but"),
        (False, False, 0.85, NO),
    ],
)
def test_sigmoid_behind_relu(judge, normed, plain, best, verdict):
    reached = {("sigmoid", True, 0.6): normed, ("sigmoid", False, 0.6): plain}
    reached[("relu", True, 0.6)] = True
    frame = rates(reached, {("sigmoid", True): best, ("relu", True): 0.95})
    assert_verdict(judge(8, trials=frame), verdict)


@pytest.mark.parametrize(
    ("at_low", "at_high", "verdict"),
    [
        (0.948, 0.96, YES),
        (
            0.93,
            0.95,
            "depends on the activation and the rate: it holds for ReLU at 0.6, but",
        ),
        (0.93, 0.93, NO),
    ],
)
def test_decay(judge, at_low, at_high, verdict):
    frame = trials(
        *[
            trial(
                activation="relu",
                batch_norm=True,
                learning_rate=rate,
                decay_steps=decay,
                best_accuracy=best,
            )
            for rate, decay, best in [
                (0.02, 1000, 0.95),
                (0.6, 1000, 0.95),
                (0.02, 167, at_low),
                (0.6, 167, at_high),
            ]
        ]
    )
    assert_verdict(judge(25, trials=frame), verdict)
