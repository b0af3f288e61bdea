"""The rules of the benchmarks, on tables made by hand for each verdict."""

import pandas as pd
import pytest
from claim_tables import NO, YES, assert_verdict, trial, trials

from sweeps.harness import claims


def networks(*rows):
    """steps.csv or inference.csv from (network, layers, mode, contender, multiple of plain)."""
    names = ["what", "size", "mode", "contender", "over_plain"]
    frame = pd.DataFrame(rows, columns=names).assign(dtype="float32")
    return frame.assign(over_plain_q1=frame.over_plain - 0.05)


def arms(seconds_at_2):
    """Trials of two depths; batch norm's take half the steps, and this many seconds at depth 2."""
    rows = [
        trial(depth=d, batch_norm=arm, steps_to_target=steps, seconds_to_target=seconds)
        for d, arm, steps, seconds in [
            (1, False, 40, 4.0),
            (1, True, 20, 3.0),
            (2, False, 60, 6.0),
            (2, True, 30, seconds_at_2),
        ]
    ]
    rows.append(trial(depth=2, batch_norm=True, steps_to_target=1, seconds_to_target=0.1))
    rows[-1] |= {"bn_layer": "keras"}
    return trials(*[{"jit_compile": False, "bn_layer": "kerasbn", **row} for row in rows])


@pytest.mark.parametrize(
    ("multiple", "seconds", "verdict"),
    [
        (1.2, 4.0, YES),
        (
            1.2,
            3.0,
            "depends on the depth: it holds at 1, but not at 2",
        ),  # a half, of seconds as of steps
        (1.04, 4.0, NO),  # in a quarter of the rounds no longer than plain: 0.99
    ],
)
def test_less_is_gained_in_seconds(judge, multiple, seconds, verdict):
    judge(1, trials=arms(seconds))  # writes the depth study's table
    steps = networks(
        *[("dense net", d, "graph", "kerasbn", multiple) for d in (1, 2, 3)],
        ("dense net", 1, "xla", "kerasbn", 0.5),
        ("dense net", 1, "graph", "keras", 0.5),
        ("LeNet", 4, "graph", "kerasbn", 0.5),
    )
    finding = judge(3, steps=steps)
    assert_verdict(finding, verdict)
    assert f"with 1 and 2 hidden layers, a step costs {multiple:.2f} and" in finding.measured
    assert "divides the steps to the target by 2.00 and 2.00, and the seconds" in finding.measured
    assert "seconds by 1.33 and" in finding.measured


def test_a_gain_needs_both_arms_at_the_target(judge):
    frame = arms(3.0)
    frame.loc[~frame.batch_norm, ["steps_to_target", "seconds_to_target"]] = None
    judge(2, trials=frame)
    steps = networks(("dense net", 1, "graph", "kerasbn", 1.2))
    with pytest.raises(claims.UndecidedError, match="both arms reaches the target"):
        judge(3, steps=steps)


def layers(**microseconds):
    """layers.csv: times by hand in graph mode are 100; others for (rows, rows, images)."""
    sizes = ["500x500", "500x25", "8x9x9x3"]
    ways = {"hand": ("graph", "by hand"), "kernel": ("graph", "kerasbn"), "xla": ("xla", "by hand")}
    rows = [
        {"mode": mode, "contender": contender, "size": size, "median_microseconds": time}
        for way, (mode, contender) in ways.items()
        for size, time in zip(sizes, {"hand": [100] * 3, **microseconds}[way], strict=True)
    ]
    frame = pd.DataFrame(rows).assign(dtype="float32")
    return pd.concat([frame, frame.assign(dtype="bfloat16", median_microseconds=100)])


@pytest.mark.parametrize(
    ("kernel", "xla", "verdict"),
    [
        # The mean of rows is geometric: of 20 and 80 it is 40.
        ([20, 80, 50], [20, 20, 20], YES),
        (
            [40, 80, 50],
            [20, 20, 60],
            "depends on the method and the input: it holds for a kernel on images or "
            "sequences and XLA on rows, but not for a kernel on rows and XLA on images or",
        ),
        ([60, 60, 60], [90, 90, 110], NO),
    ],
)
def test_fusing(judge, kernel, xla, verdict):
    finding = judge(23, layers=layers(kernel=kernel, xla=xla))
    assert_verdict(finding, verdict)
    if verdict == YES:
        assert (
            "60% with a kernel on rows (20% to 80%), 50% with a kernel on images"
            in finding.measured
        )


@pytest.mark.parametrize(
    ("dense", "lenet", "verdict"),
    [
        ((0.96, 1.0), 1.04, YES),
        (
            (1.25, 0.8),
            1.3,
            "depends on the network and the mode: it holds for dense net in graph mode, but",
        ),
        ((1.1, 1.3), 0.9, NO),
    ],
)
def test_folded(judge, dense, lenet, verdict):
    passes = networks(
        *[("dense net", n, "graph", "folded", multiple) for n, multiple in enumerate(dense, 1)],
        ("LeNet", 4, "xla", "folded", lenet),
        ("LeNet", 4, "xla", "kerasbn", 9.0),
        ("layer", 500, "xla", "folded", 9.0),
    )
    finding = judge(24, inference=passes)
    assert_verdict(finding, verdict)
    assert f"LeNet with XLA {lenet:.2f}" in finding.measured


@pytest.mark.parametrize("number", [3, 23, 24])
def test_cost_without_its_tables_is_not_run(judge, number):
    with pytest.raises(claims.UndecidedError, match=r"there is no cost/\w+\.csv"):
        judge(number)
    steps = networks(("dense net", 1, "graph", "kerasbn", 1.2))
    with pytest.raises(claims.UndecidedError, match=r"there is no depth/trials\.csv"):
        judge(3, steps=steps)
