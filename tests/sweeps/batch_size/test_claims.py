"""The rules of the batch-size study, on tables made by hand for each verdict."""

import pandas as pd
import pytest
from claim_tables import NO, YES, assert_verdict, rows_of, trial, trials

from sweeps.harness import claims


def batches(*rows):
    """Trials from (kind, batch size, accuracy)."""
    options = {
        "plain": {},
        "group norm": {"group_norm": 20},
        "batch norm": {"batch_norm": True},
        "renorm": {"batch_norm": True, "bn_renorm": True},
        "ghost": {"batch_norm": True, "bn_virtual_batch_size": 16},
    }
    empty = {"batch_norm": False, "group_norm": None, "bn_renorm": None, "record": None}
    empty["bn_virtual_batch_size"] = None
    return trials(
        *[
            trial(**empty | options[kind], batch_size=size, final_accuracy=accuracy)
            for kind, size, accuracy in rows
        ]
    )


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ([0.1, 0.11], YES),
        ([0.1, 0.5], "depends on the seed: it holds for 6 of 12"),
        ([0.5, 0.5], NO),
    ],
)
def test_batch_of_one(judge, accuracies, verdict):
    rows = [("batch norm", 1, a) for a in accuracies]
    frame = batches(*rows, ("plain", 1, 0.9), ("renorm", 1, 0.1), ("batch norm", 2, 0.9))
    assert_verdict(judge(17, trials=frame), verdict)


@pytest.mark.parametrize(
    ("batch_norm", "group_norm", "verdict"),
    [
        (0.9, 0.95, YES),
        (0.95, 0.95, "depends on the part: it is true that group norm does not get worse"),
        (0.9, 0.9, "depends on the part: it is true that batch norm gets worse"),
        (0.95, 0.9, NO),
    ],
)
def test_small_batches(judge, batch_norm, group_norm, verdict):
    frame = batches(
        ("batch norm", 1, 0.1),
        ("batch norm", 2, batch_norm),
        ("batch norm", 32, 0.96),
        ("batch norm", 500, 0.92),
        ("group norm", 1, 0.1),
        ("group norm", 2, group_norm),
        ("group norm", 32, 0.96),
    )
    assert_verdict(judge(18, trials=frame), verdict)


@pytest.mark.parametrize(
    ("at_2", "at_8", "verdict"),
    [
        (0.92, 0.97, YES),
        (0.92, 0.95, "depends on the batch size: it holds at 2, but not at 8"),
        (0.9, 0.95, NO),
    ],
)
def test_renorm(judge, at_2, at_8, verdict):
    frame = batches(
        ("batch norm", 2, 0.9),
        ("batch norm", 8, 0.95),
        ("renorm", 2, at_2),
        ("renorm", 8, at_8),
        ("renorm", 500, 0.1),
        ("ghost", 2, 0.1),
    )
    assert_verdict(judge(19, trials=frame), verdict)


def large_batches(whole, ghost, small):
    """The trials of claim 42 from their test accuracies, and their recorded training accuracies."""
    rows = [("batch norm", 500, whole), ("ghost", 500, ghost), ("batch norm", 32, small)]
    frame = batches(*rows).assign(record="evaluation")
    others = batches(("batch norm", 500, 0.5), ("ghost", 500, 0.4), ("batch norm", 32, 0.9))
    evaluation = rows_of(
        frame,
        "evaluation",
        lambda t: [
            {"step": 100, "data": "train", "accuracy": 1.0},
            {"step": 100, "data": "test", "accuracy": t.final_accuracy},
        ],
    )
    return {"trials": pd.concat([frame, others], ignore_index=True), "evaluation": evaluation}


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ((0.97, 0.975, 0.98), YES),
        ((0.97, 0.965, 0.98), "depends on the part: it is true that small batches have"),
        ((0.98, 0.985, 0.97), "depends on the part: it is true that ghost batches lower"),
        ((0.98, 0.975, 0.97), NO),
    ],
)
def test_ghost_batches(judge, accuracies, verdict):
    finding = judge(42, **large_batches(*accuracies))
    assert_verdict(finding, verdict)
    assert finding.rows[0]["Test error"].startswith(f"{1 - accuracies[0]:.2%}")
    assert {row["Training error"].split()[0] for row in finding.rows} == {"0.00%"}


def test_without_long_runs_the_claim_on_ghost_batches_is_undecided(judge):
    with pytest.raises(claims.UndecidedError, match="gap_epochs"):
        judge(42, trials=batches(("batch norm", 500, 0.9), ("ghost", 500, 0.9)))


def test_nothing_to_compare_is_no_verdict(judge):
    with pytest.raises(claims.UndecidedError, match="runs to compare"):
        judge(19, trials=batches(("batch norm", 2, 0.9), ("renorm", 8, 0.9)))
