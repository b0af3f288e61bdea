"""The rules of the benchmarks, on tables made by hand for each verdict."""

import pandas as pd
import pytest
from claim_tables import NO, YES, assert_verdict, trial, trials

from sweeps.harness import claims


def networks(*rows):
    """steps.csv or inference.csv from (network, layers, mode, contender, multiple of plain)."""
    names = ["what", "size", "mode", "contender", "over_plain"]
    frame = pd.DataFrame(rows, columns=names).assign(dtype="float32")
    quartiles = {"over_plain_q1": frame.over_plain - 0.05, "over_plain_q3": frame.over_plain + 0.05}
    return frame.assign(**quartiles, rounds=25)


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
        (0.95, 4.0, NO),
        (1.02, 4.0, "undecided: the 95% interval contains the threshold for 1 and 2"),
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
    rows = [list(row.values())[:4] for row in finding.rows]
    width = 0.05 * 0.98 / 0.25 / 5  # with 25 rounds, and quartiles 0.05 from the median
    cost = f"{multiple:.3g} [{multiple - width:.3g}, {multiple + width:.3g}]"
    gains = [f"{6 / n:.3g} [{6 / n:.3g}, {6 / n:.3g}]" for n in (4.5, seconds)]
    assert rows == [[f"{d}", cost, "2 [2, 2]", gains[d - 1]] for d in (1, 2)]


def test_a_gain_needs_both_arms_at_the_target(judge):
    frame = arms(3.0)
    frame.loc[~frame.batch_norm, ["steps_to_target", "seconds_to_target"]] = None
    judge(2, trials=frame)
    steps = networks(("dense net", 1, "graph", "kerasbn", 1.2))
    with pytest.raises(claims.UndecidedError, match="both arms reaches the target"):
        judge(3, steps=steps)


def layers(**microseconds):
    """layers.csv: times by hand in graph mode are 100; others for (rows, rows, images).

    Each kind has six sizes.
    """
    kinds = ["{}x500", "{}x25", "{}x9x9x3"]
    ways = {"hand": ("graph", "by hand"), "kernel": ("graph", "kerasbn"), "xla": ("xla", "by hand")}
    rows = [
        {
            "mode": mode,
            "contender": contender,
            "size": kind.format(number),
            "median_microseconds": time,
        }
        for way, (mode, contender) in ways.items()
        for kind, time in zip(kinds, {"hand": [100] * 3, **microseconds}[way], strict=True)
        for number in range(100, 106)
    ]
    frame = pd.DataFrame(rows).assign(dtype="float32")
    return pd.concat([frame, frame.assign(dtype="bfloat16", median_microseconds=100)])


@pytest.mark.parametrize(
    ("kernel", "xla", "verdict"),
    [
        # The mean of rows is geometric: of 30 and 53.3 it is 40.
        ([30, 160 / 3, 49], [20, 20, 20], YES),
        (
            [60, 60, 49],
            [20, 20, 60],
            "depends on the method and the input: it holds for a kernel on images or "
            "sequences and XLA on rows, but not for a kernel on rows and XLA on images or",
        ),
        ([60, 60, 60], [90, 90, 110], NO),
        (
            [20, 90, 40],
            [20, 20, 20],
            "undecided: the 95% interval contains the threshold for a kernel on rows",
        ),
    ],
)
def test_fusing(judge, kernel, xla, verdict):
    finding = judge(23, layers=layers(kernel=kernel, xla=xla))
    assert_verdict(finding, verdict)
    if verdict == YES:
        rows = finding.rows[0]
        assert rows["Saved"].startswith("60% [5")
        assert rows["Least and most over sizes"] == "47% to 70%"


@pytest.mark.parametrize(
    ("dense", "lenet", "verdict"),
    [
        ((0.98, 1.0), 1.01, YES),
        (
            (0.98, 1.0),
            1.04,
            "undecided: the 95% interval contains the threshold for LeNet with XLA",
        ),
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
    width = 0.05 * 0.98 / 0.25 / 5
    shown = f"LeNet with XLA {lenet:.2f} [{lenet - width:.2f}, {lenet + width:.2f}]"
    assert shown in finding.measured


def test_too_few_rounds_are_undecided(judge):
    passes = networks(("LeNet", 4, "xla", "folded", 1.0)).assign(rounds=5)
    with pytest.raises(claims.UndecidedError, match="5 rounds cannot give a 95% interval"):
        judge(24, inference=passes)


@pytest.mark.parametrize("number", [3, 23, 24])
def test_cost_without_its_tables_is_not_run(judge, number):
    with pytest.raises(claims.UndecidedError, match=r"there is no cost/\w+\.csv"):
        judge(number)
    steps = networks(("dense net", 1, "graph", "kerasbn", 1.2))
    with pytest.raises(claims.UndecidedError, match=r"there is no depth/trials\.csv"):
        judge(3, steps=steps)
