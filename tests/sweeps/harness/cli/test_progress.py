import dataclasses

import pandas as pd

from sweeps.harness.cli import progress
from sweeps.harness.results import tables
from sweeps.harness.trial import Trial

COMMON = {
    "dataset": "mnist",
    "seed": 3,
    "hidden_units": (100, 50),
    "learning_rate": 0.01,
    "batch_size": 8,
    "max_steps": 40,
    "target_accuracy": 0.9,
}
PLAIN = Trial(batch_norm=False, **COMMON)
GROUPS = Trial(batch_norm=False, group_norm=10, **COMMON)
BATCH_NORM = Trial(batch_norm=True, **COMMON)


def test_a_trial_is_described_by_depth_arm_seed_and_outcome():
    done = {"status": "done", "steps_to_target": 17}
    assert progress.describe(PLAIN, done) == "2 layers, plain, seed 3: 17 steps"
    missed = {"status": "done", "steps_to_target": None}
    text = progress.describe(BATCH_NORM, missed)
    assert text == "2 layers, batch norm, seed 3: not reached in 40 steps"
    shallow = dataclasses.replace(PLAIN, hidden_units=(9,), max_steps=1)
    assert progress.describe(shallow, missed) == "1 layer, plain, seed 3: not reached in 1 step"
    at_once = {"status": "done", "steps_to_target": 1}
    assert progress.describe(shallow, at_once) == "1 layer, plain, seed 3: 1 step"
    diverged = {"status": "diverged"}
    assert progress.describe(PLAIN, diverged) == "2 layers, plain, seed 3: diverged"


def test_trials_of_one_depth_arm_and_seed_show_the_fields_in_which_they_differ():
    # Arms differ in all fields of batch norm, and depths in their units. Neither is repeated.
    assert progress.distinguishing_fields([PLAIN, BATCH_NORM]) == []
    fields = progress.distinguishing_fields([PLAIN, GROUPS, BATCH_NORM])
    assert fields == ["group_norm"]
    done = {"status": "done", "steps_to_target": 17}
    text = progress.describe(GROUPS, done, fields)
    assert text == "2 layers, plain, group_norm=10, seed 3: 17 steps"
    assert progress.describe(PLAIN, done, fields) == "2 layers, plain, seed 3: 17 steps"


def side_by_side(record, momenta):
    """The printed table of a plain network and of several with batch norm, at two depths."""
    records = [
        each
        for depth in (1, 2)
        for each in (
            record(100 + depth, depth=depth),
            *[
                record(10 * n + depth, depth=depth, batch_norm=True, bn_momentum=momentum)
                for n, momentum in enumerate(momenta, 1)
            ],
        )
    ]
    return tables.side_by_side(tables.from_records(records, ("depth",)).trials, "depth")


def printed(frame, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    progress.print_table(frame)
    text = capsys.readouterr().out
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    return [line.split() for line in text.splitlines()]


def test_a_table_that_fits_has_its_series_side_by_side(record, monkeypatch, capsys):
    for width in (80, 200):
        assert printed(side_by_side(record, [0.9]), width, monkeypatch, capsys) == [
            ["plain", "batch", "norm"],
            ["depth", "steps", "seconds", "steps", "seconds"],
            ["1", "101", "(1/1)", "10.10", "11", "(1/1)", "1.10"],
            ["2", "102", "(1/1)", "10.20", "12", "(1/1)", "1.20"],
        ]


def test_a_table_that_is_too_wide_becomes_a_block_for_each_setting(record, monkeypatch, capsys):
    momenta = [0.1 * n for n in range(1, 8)]
    frame = side_by_side(record, momenta)
    for width in (40, 80):
        lines = printed(frame, width, monkeypatch, capsys)
        blocks = [lines[start : start + 5] for start in range(0, len(lines), 5)]
        assert len(blocks) == 8
        for n, block in enumerate(blocks):
            name = ["plain"] if n == 0 else ["batch", "norm,", "momentum", f"{0.1 * n:.1g}"]
            tens = 10 * n or 100
            assert block == [
                [],
                name,
                ["depth", "steps", "seconds"],
                ["1", f"{tens + 1}", "(1/1)", f"{(tens + 1) / 10:.2f}"],
                ["2", f"{tens + 2}", "(1/1)", f"{(tens + 2) / 10:.2f}"],
            ]
    assert len(printed(frame, 400, monkeypatch, capsys)) == 4


def test_columns_that_do_not_fit_continue_below_with_the_row_labels(monkeypatch, capsys):
    frame = pd.DataFrame(
        {"batch size": [1, 500], **{f"setting {n}": [f"{n}%", f"{n}0%"] for n in range(8)}}
    )
    lines = printed(frame, 40, monkeypatch, capsys)
    headers = [line for line in lines if line[0] == "batch"]
    assert headers[0] == ["batch", "size", "setting", "0", "setting", "1"]
    assert sum(line.count("setting") for line in headers) == 8
    assert [line[0] for line in lines] == ["batch", "1", "500"] * len(headers)
    assert len(printed(frame, 200, monkeypatch, capsys)) == 3


def test_a_column_wider_than_the_terminal_is_wrapped(monkeypatch, capsys):
    frame = pd.DataFrame({"depth": [7], "a title of a column with many words in it": ["x" * 50]})
    cells = [cell for line in printed(frame, 40, monkeypatch, capsys) for cell in line]
    assert "".join(cells).count("x") == 50
    assert {"many", "words"} <= set(cells)
