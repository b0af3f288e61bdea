"""The rules of the residual study, on tables made by hand for each verdict."""

import numpy as np
import pytest
from claim_tables import NO, YES, assert_verdict, rows_of, trial, trials

from sweeps.harness import claims

SEEDS = 6


def network(branch, depth, rate, accuracy, *, part="depth", batch_size=128):
    return trial(
        part=part,
        branch=branch,
        batch_norm=branch == "batch_norm",
        depth=depth,
        batch_size=batch_size,
        learning_rate=rate,
        final_accuracy=accuracy,
    )


def shares(judge, exponent, level, *, branch="batch_norm", noise=0.0):
    """A study whose share at block l is level times (l + 1) to this power."""
    frame = trials(
        *(network(branch, depth, rate, 0.9) for depth in (10, 50) for rate in (0.1, 1.0)),
        seeds=SEEDS,
    )

    def rows(t):
        jitter = np.exp(noise * (t.seed - 2.5))
        return [
            {"step": 0, "block": block, "share": jitter * level * (block + 1.0) ** exponent}
            for block in range(1, t.depth + 1)
        ]

    return judge(39, trials=frame, branches=rows_of(frame, "branches", rows))


@pytest.mark.parametrize(
    ("exponent", "level", "verdict"),
    [
        (-1, 1.0, YES),
        (-1, 1.3, "depends on the part: it is true that the share falls as 1 / (l + 1), but not"),
        (-0.95, 0.85, YES),
        (-0.5, 0.5, NO),
    ],
)
def test_shares(judge, exponent, level, verdict):
    finding = shares(judge, exponent, level)
    assert_verdict(finding, verdict)
    assert [row["Block"] for row in finding.rows] == ["1", "10", "50"]
    first = finding.rows[0]
    assert first["1 / (l + 1)"] == "0.5"
    assert first["Share, batch norm"].startswith(f"{level * 2**exponent:.3g} [")
    assert f"to the power of {exponent:.3g} [" in finding.measured


def test_a_level_that_varies_over_the_threshold_is_undecided(judge):
    assert_verdict(shares(judge, -1, 1.2, noise=0.05), "undecided")


def test_shares_need_batch_norm(judge):
    with pytest.raises(claims.UndecidedError, match="branch=batch_norm"):
        shares(judge, -1, 1, branch="plain")


def depth_study(judge, plain, normed, skip):
    """Accuracies at the better of two rates, with 200 blocks."""
    found = [
        network(branch, depth, rate, accuracy if rate == 0.1 else 0.1)
        for depth, of_depth in {10: (0.9, 0.95, 0.95), 200: (plain, normed, skip)}.items()
        for branch, accuracy in zip(("plain", "batch_norm", "skip_init"), of_depth, strict=True)
        for rate in (0.01, 0.1)
    ]
    return judge(40, trials=trials(*found, seeds=SEEDS))


@pytest.mark.parametrize(
    ("plain", "normed", "skip", "verdict"),
    [
        (0.1, 0.95, 0.94, YES),
        (None, 0.95, 0.97, YES),
        (0.5, 0.95, 0.94, "depends on the part: it is true that batch norm trains and SkipInit"),
        (0.1, 0.95, 0.92, "depends on the part: it is true that plain networks fail and batch"),
        (0.5, 0.85, 0.5, NO),
    ],
)
def test_depth(judge, plain, normed, skip, verdict):
    finding = depth_study(judge, plain, normed, skip)
    assert_verdict(finding, verdict)
    assert [row["Blocks"] for row in finding.rows] == ["10", "200"]
    assert finding.rows[1]["Accuracy, batch norm"].startswith(f"{normed:.1%} [")


def test_depth_needs_all_branches(judge):
    with pytest.raises(claims.UndecidedError, match="all three branches"):
        judge(40, trials=trials(network("plain", 10, 0.1, 0.9), seeds=SEEDS))


def batch_study(judge, best, *, sizes=(16, 1024)):
    """A study in which each network has its highest accuracy at the given rate.

    Args:
        judge: The fixture.
        best: Best rate of batch norm and of SkipInit, for each batch size.
        sizes: Batch sizes.
    """
    found = [
        network(
            branch,
            20,
            rate,
            None if branch == "skip_init" and rate > 2 else 0.9 - 0.01 * abs(np.log2(rate / peak)),
            part="batch size",
            batch_size=size,
        )
        for size, peaks in zip(sizes, best, strict=True)
        for branch, peak in zip(("batch_norm", "skip_init"), peaks, strict=True)
        for rate in (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
    ]
    return judge(41, trials=trials(*found, seeds=SEEDS))


@pytest.mark.parametrize(
    ("best", "verdict"),
    [
        ([(0.25, 0.25), (2.0, 0.5)], YES),
        ([(0.5, 0.25), (2.0, 0.5)], YES),
        ([(1.0, 0.25), (2.0, 0.5)], "depends on the part: it is true that the best rate is larger"),
        ([(0.25, 0.25), (1.0, 0.5)], "depends on the part: it is true that it is about the same"),
        ([(1.0, 0.25), (0.5, 0.5)], NO),
    ],
)
def test_rates(judge, best, verdict):
    finding = batch_study(judge, best)
    assert_verdict(finding, verdict)
    large = finding.rows[1]
    assert large["Batch size"] == "1,024"
    assert large["Best rate, batch norm"] == f"{best[1][0]:g}"
    assert large["Accuracy, batch norm at its own"].startswith("90.0% [")
    lost = abs(np.log2(best[1][0] / best[1][1]))
    at_other = large["Accuracy, batch norm at SkipInit's best rate"]
    assert at_other.startswith(f"{0.9 - 0.01 * lost:.1%} [")
    assert large["Ratio"].startswith(f"{best[1][0] / best[1][1]:g} [")
    assert large["Largest rate that trains, SkipInit"] == "2"
    assert large["Largest rate that trains, batch norm"] == "4"


def test_rates_need_several_batch_sizes(judge):
    with pytest.raises(claims.UndecidedError, match="several batch sizes"):
        batch_study(judge, [(0.5, 0.5)], sizes=(16,))


def test_the_best_rate_has_the_highest_median(judge):
    """One seed of six is better at a rate at which the others are worse."""
    frame = trials(
        *(
            network(branch, 20, rate, accuracy, part="batch size", batch_size=size)
            for size in (16, 1024)
            for branch in ("batch_norm", "skip_init")
            for rate, accuracy in ((0.25, 0.9), (1.0, 0.8))
        ),
        seeds=SEEDS,
    )
    frame.loc[(frame.learning_rate == 1.0) & (frame.seed == 0), "final_accuracy"] = 0.99
    finding = judge(41, trials=frame)
    assert finding.rows[0]["Best rate, SkipInit"] == "0.25"
    assert finding.rows[0]["Ratio"] == "1 [1, 1]"


def test_best_rates_that_change_with_the_seeds_are_undecided(judge):
    frame = trials(
        *(
            network(branch, 20, rate, 0.9, part="batch size", batch_size=size)
            for size in (16, 1024)
            for branch in ("batch_norm", "skip_init")
            for rate in (0.125, 0.25, 1.0)
        ),
        seeds=SEEDS,
    )
    normed = frame.branch == "batch_norm"
    odd = frame.seed % 2 == 1
    frame.loc[normed & odd & (frame.learning_rate == 1.0), "final_accuracy"] = 0.95
    frame.loc[normed & ~odd & (frame.learning_rate == 0.25), "final_accuracy"] = 0.95
    finding = judge(41, trials=frame)
    assert_verdict(finding, "undecided: the 95% interval contains the threshold")
    assert finding.rows[1]["Ratio"].endswith("[1, 8]") or "[2, 8]" in finding.rows[1]["Ratio"]
