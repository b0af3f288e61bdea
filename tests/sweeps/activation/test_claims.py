"""The rules of the activation study, on tables made by hand for each verdict."""

import pytest
from claim_tables import NO, YES, assert_verdict, trial, trials


@pytest.mark.parametrize(
    ("plain", "with_it", "verdict"),
    [
        ([0.11, 0.12], 38, YES),
        ([0.11, 0.78], 38, "depends on the seed: it holds for 6 of 12 runs"),
        ([0.11, 0.12], 41, "depends on the part"),
        ([0.11, 0.12], None, "depends on the part"),
        ([0.5, 0.78], 38, NO),
    ],
)
def test_sigmoid(judge, plain, with_it, verdict):
    frame = trials(
        *[
            trial(activation="sigmoid", batch_norm=False, best_accuracy=a, steps_to_target=None)
            for a in plain
        ],
        trial(activation="sigmoid", batch_norm=True, best_accuracy=0.9, steps_to_target=with_it),
        trial(activation="relu", batch_norm=True, best_accuracy=0.9, steps_to_target=20),
    )
    assert_verdict(judge(4, trials=frame), verdict)


@pytest.mark.parametrize(
    ("elu", "leaky", "verdict"),
    [
        (40, 50, YES),
        (40, 60, "depends on the activation: it holds for ELU, but not for leaky ReLU"),
        (None, 60, NO),
    ],
)
def test_elu(judge, elu, leaky, verdict):
    steps = {"relu": 50, "elu": elu, "leaky_relu": leaky}
    frame = trials(
        *[trial(activation=a, batch_norm=False, steps_to_target=n) for a, n in steps.items()]
    )
    assert_verdict(judge(5, trials=frame), verdict)
