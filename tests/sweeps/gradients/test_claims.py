"""The rules of the gradients study, on tables made by hand for each verdict."""

import numpy as np
import pytest
from claim_tables import NO, YES, assert_verdict, rows_of, trial, trials

from sweeps.harness import claims


def gradients(judge, number, networks, norm, **columns):
    """norm(trial, layer) at the start; noise later, which must not count."""
    frame = trials(*[trial(**network, **columns) for network in networks])
    found = rows_of(
        frame,
        "gradients",
        lambda t: [
            {"step": step, "layer": n, "gradient_norm": norm(t, n) if step == 0 else 7.0}
            for step in (0, 10)
            for n in range(1, t.depth + 1)
        ],
    )
    return judge(number, trials=frame, gradients=found)


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ((0.01, 0.8, 1.5, 0.5), YES),
        (
            (0.01, 0.8, 1.5, 5.0),
            "depends on the network: it holds for plain sigmoid, plain ReLU and sigmoid with batch "
            "norm, but not for ReLU with batch norm",
        ),
        ((0.5, 9.0, 9.0, 5.0), NO),
    ],
)
def test_gradients_shrink(judge, ratios, verdict):
    order = [("sigmoid", False), ("relu", False), ("sigmoid", True), ("relu", True)]
    by_network = dict(zip(order, ratios, strict=True))
    networks = [
        {"activation": a, "batch_norm": arm, "depth": 3, "hidden_units": "500-400-300"}
        for a, arm in order
    ]
    finding = gradients(
        judge,
        15,
        networks,
        lambda t, n: by_network[t.activation, t.batch_norm] if n == 1 else 1.0,
    )
    assert_verdict(finding, verdict)


@pytest.mark.parametrize(
    ("growth", "accuracy", "verdict"),
    [
        (np.pi / (np.pi - 1), 0.3, YES),
        (np.pi / (np.pi - 1), 0.9, "depends on the depth: it holds for growth at 20 layers"),
        (1.1, 0.9, NO),
    ],
)
def test_gradients_grow(judge, growth, accuracy, verdict):
    networks = [
        {"hidden_units": "-".join(["100"] * d), "depth": d, "final_accuracy": a}
        for d, a in ((20, 0.9), (50, accuracy))
    ]
    # Of the last layer the norm is another: the logits are no hidden layer.
    finding = gradients(
        judge,
        16,
        networks,
        lambda t, n: 3.0 if n == t.depth else growth ** ((t.depth - n) / 2),
        activation="relu",
        batch_norm=True,
    )
    assert_verdict(finding, verdict)
    shown = f"{growth:.3g} [{growth:.3g}, {growth:.3g}]"
    assert f"per layer by a factor of {shown} with 20 layers and" in finding.measured


def test_nothing_to_compare_is_no_verdict(judge):
    network = {"hidden_units": "-".join(["9"] * 12), "depth": 12, "final_accuracy": 0.9}
    network |= {"activation": "relu", "batch_norm": True}
    with pytest.raises(claims.UndecidedError, match="several depths"):
        gradients(judge, 16, [network], lambda t, n: 1.5**-n)
