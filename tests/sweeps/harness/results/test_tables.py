import io
import lzma

import numpy as np
import pandas as pd
import pytest

from sweeps.harness.errors import UserError
from sweeps.harness.results import tables


def summary(records):
    return tables.from_records(records, ("depth", "batch_norm")).summary


def test_the_median_counts_a_miss_as_infinite(record):
    # Sorted: 10, 20, inf. The median is 20, not 15 (the miss dropped), nor is a miss budget + 1.
    row = summary([record(20, seed=0), record(None, seed=1), record(10, seed=2)]).iloc[0]
    assert (row.median_steps, row.min_steps, row.max_steps) == (20, 10, np.inf)
    assert (row.reached, row.total) == (2, 3)
    assert row.median_seconds == 2.0


@pytest.mark.parametrize(
    ("steps", "median"),
    [
        ([7], 7.0),
        ([7, 9], 8.0),
        ([7, None], np.inf),
        ([None, None, 1], np.inf),
        ([None], np.inf),
        ([3, 1, None, 2], 2.5),
    ],
)
def test_medians_by_hand(steps, median, record):
    records = [record(s, seed=i) for i, s in enumerate(steps)]
    assert summary(records).median_steps.tolist() == [median]


def test_a_miss_has_blank_steps_in_the_file(record):
    text = tables.from_records([record(None)], ("depth",)).trials.to_csv(index=False)
    row = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False).iloc[0]
    assert row.reached == "False"
    assert row.steps_to_target == ""
    assert row.seconds_to_target == ""


def test_a_diverged_trial_is_a_miss_and_a_crash_is_no_result(record):
    records = [
        record(12, seed=0),
        record(None, seed=1, status="diverged", accuracy=None),
        record(None, seed=2, status="failed"),
    ]
    made = tables.from_records(records, ("depth", "batch_norm"))
    assert sorted(made.trials.status) == ["diverged", "done", "failed"]
    row = made.summary.iloc[0]
    assert (row.reached, row.total, row.median_steps) == (1, 2, np.inf)


def test_one_row_a_point_of_the_grid(record):
    records = [
        record(d, depth=d, batch_norm=b, seed=s)
        for d in (1, 2)
        for b in (False, True)
        for s in (0, 1)
    ]
    frame = summary(records)
    assert frame[["depth", "batch_norm", "total"]].values.tolist() == [
        [1, False, 2],
        [1, True, 2],
        [2, False, 2],
        [2, True, 2],
    ]


def test_trials_that_differ_in_another_field_are_not_pooled(record):
    records = [record(10), record(30, learning_rate=0.1)]
    frame = summary(records)
    assert frame[["learning_rate", "median_steps"]].values.tolist() == [[0.01, 10.0], [0.1, 30.0]]


def test_options_of_batch_norm_are_no_column_where_the_arm_decides_them(record):
    assert "bn_momentum" not in summary([record(10), record(5, batch_norm=True)]).columns


def test_columns_and_their_order_are_the_contract(record):
    assert tables.TRIAL_COLUMNS == [
        "trial_id",
        "study",
        "dataset",
        "status",
        "seed",
        "depth",
        "hidden_units",
        "activation",
        "batch_norm",
        "bn_layer",
        "bn_momentum",
        "bn_epsilon",
        "bn_logits",
        "optimizer",
        "learning_rate",
        "batch_size",
        "max_steps",
        "target_accuracy",
        "eval_every",
        "curve_every",
        "stop_at_target",
        "jit_compile",
        "architecture",
        "kernel_stddev",
        "bias",
        "decay_steps",
        "bn_renorm",
        "bn_virtual_batch_size",
        "group_norm",
        "dropout",
        "l2",
        "train_examples",
        "steps_per_execution",
        "record",
        "record_steps",
        "reached",
        "steps_to_target",
        "seconds_to_target",
        "final_step",
        "final_accuracy",
        "best_accuracy",
        "final_loss",
        "seconds_per_step",
        "seconds_total",
        "threads",
        "tensorflow",
        "keras",
        "kerasbn",
        "code",
        "cpu",
        "commit",
        "finished_at",
        "train_size",
        "validation_examples",
        "evaluated_on",
        "exact_until",
        "kernel",
        "program",
        "program_code",
        "options",
    ]
    made = tables.from_records([record(3)], ("depth", "batch_norm"))
    assert list(made.trials.columns) == tables.TRIAL_COLUMNS
    assert list(made.curves.columns) == ["trial_id", "step", "train_loss", "test_accuracy"]
    assert made.trials.hidden_units.tolist() == ["30"]


def test_numbers_keep_their_full_precision_in_the_file(tmp_path, record):
    paths = tables.write(tables.from_records([record(3)], ("depth",)), tmp_path)
    assert [p.name for p in paths] == ["trials.csv", "summary.csv", "curves.csv.xz"]
    assert "0.1234567890123456" in paths[0].read_text()
    assert lzma.decompress(paths[2].read_bytes()).decode().splitlines()[1:] == [
        f"{record(3)['trial_id']},1,2.5,",
        f"{record(3)['trial_id']},2,,0.25",
    ]


def test_a_record_of_another_version_is_an_error_that_names_the_file(record):
    old = record(3)
    old["trial"]["gone"] = 1
    with pytest.raises(UserError, match=rf"trials/{old['trial_id']}\.json of depth .*'gone'"):
        tables.from_records([old], ("depth",))


def test_tables_of_no_trials_have_their_headers():
    made = tables.from_records([], ("depth", "batch_norm"))
    assert list(made.trials.columns) == tables.TRIAL_COLUMNS
    assert list(made.summary.columns[:3]) == ["depth", "batch_norm", "reached"]


def test_for_a_person_misses_are_printed_as_more_than_the_budget(record):
    frame = tables.side_by_side(
        tables.from_records([record(None), record(4, batch_norm=True)], ("depth",)).trials, "depth"
    )
    assert frame.index.tolist() == [(1,)]
    assert frame.iloc[0].tolist() == [">300 (0/1)", "-", "4 (1/1)", "0.40"]
    assert frame.columns.tolist() == [
        ("plain", "steps"),
        ("plain", "seconds"),
        ("batch norm", "steps"),
        ("batch norm", "seconds"),
    ]


def test_for_a_person_the_table_says_when_steps_are_not_exact(record):
    exact, coarse = (
        tables.heading(tables.from_records([record(10, eval_every=every)], ("depth",)).trials)
        for every in (1, 5)
    )
    assert "Median steps to 90% test accuracy" in exact
    assert "every" not in exact
    assert coarse == f"{exact}\nThe target is checked every 5 steps."


def test_series_are_labelled_by_what_tells_them_apart(record):
    records = [record(9), record(5, batch_norm=True), record(6, batch_norm=True, bn_layer="keras")]
    trials = tables.from_records(records, ("depth",)).trials
    assert [label for label, _ in tables.by_series(trials, "depth")] == [
        "plain",
        "batch norm, Keras's layer",
        "batch norm, kerasbn's layer",
    ]


def test_rows_of_several_columns_for_a_person(record):
    records = [
        record(steps, learning_rate=rate, activation=activation)
        for steps, rate, activation in [(3, 0.1, "tanh"), (5, 0.1, "relu"), (None, 0.2, "relu")]
    ]
    trials = tables.from_records(records, ("activation", "learning_rate")).trials
    frame = tables.side_by_side(trials, "activation", "learning_rate")
    assert frame.index.names == ["activation", "learning rate"]
    assert frame["plain", "steps"].to_dict() == {
        ("relu", 0.1): "5 (1/1)",
        ("relu", 0.2): ">300 (0/1)",
        ("tanh", 0.1): "3 (1/1)",
    }


def test_series_meet_in_a_row_where_a_setting_is_blank(record):
    records = [record(9), record(5, batch_norm=True), record(6, batch_norm=True, decay_steps=167.0)]
    trials = tables.from_records(records, ("decay_steps",)).trials
    frame = tables.side_by_side(trials, "decay_steps")
    assert frame.index.tolist() == [("",), (167.0,)]
    assert frame.values.tolist() == [
        ["9 (1/1)", "0.90", "5 (1/1)", "0.50"],
        ["", "", "6 (1/1)", "0.60"],
    ]


def test_what_was_recorded_becomes_a_table_of_its_own(tmp_path, record):
    recorded = {"gradients": {"columns": ["layer", "norm"], "rows": [[0, 1, 0.5], [10, 1, 0.25]]}}
    made = tables.from_records([{**record(3), "recorded": recorded}, record(4, seed=1)], ("depth",))
    path = tables.write(made, tmp_path)[-1]
    assert path.name == "gradients.csv.xz"
    trial_id = record(3)["trial_id"]
    assert lzma.decompress(path.read_bytes()).decode().splitlines() == [
        "trial_id,step,layer,norm",
        f"{trial_id},0,1,0.5",
        f"{trial_id},10,1,0.25",
    ]


def test_compressed_tables_hold_every_float32_exactly_and_replace_the_older_plain_form(
    tmp_path, record
):
    losses = np.random.default_rng(0).lognormal(0, 5, 1000).astype(np.float32)
    curve = [[step, float(loss), None] for step, loss in enumerate(losses)]
    (tmp_path / "curves.csv").write_text("written by an older version")
    tables.write(tables.from_records([{**record(3), "curve": curve}], ("depth",)), tmp_path)
    curves = pd.read_csv(tmp_path / "curves.csv.xz")
    np.testing.assert_array_equal(curves.train_loss.to_numpy(np.float32), losses)
    assert not (tmp_path / "curves.csv").exists()


def test_trials_with_another_normalization_are_another_series(record):
    records = [record(9), record(5, batch_norm=True), record(6, group_norm=5)]
    trials = tables.from_records(records, ("depth",)).trials
    assert [label for label, _ in tables.by_series(trials, "depth")] == [
        "plain",
        "group norm, 5 groups",
        "batch norm",
    ]


def labelled_medians(records, *x):
    """By label and point, the median steps to the target."""
    trials = tables.from_records(records, ("depth", "batch_norm")).trials
    return {
        (label, *(point if isinstance(point, tuple) else (point,))): tables.median(
            tables.with_misses(group.steps_to_target)
        )
        for label, line in tables.by_series(trials, *x)
        for point, group in line.groupby(list(x))
    }


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"max_steps": 60}, ["budget 60 steps", "budget 300 steps"]),
        ({"learning_rate": 0.003}, ["rate 0.003", "rate 0.01"]),
        ({"activation": "tanh"}, ["relu", "tanh"]),
        ({"hidden_units": (8,)}, ["width 30", "width 8"]),
        ({"architecture": "lenet"}, ["dense", "lenet"]),
        ({"batch_size": 50}, ["batch 50", "batch 500"]),
        ({"target_accuracy": 0.8}, ["target 80%", "target 90%"]),
        ({"dataset": "mnist"}, ["mnist", "mnist_5k"]),
        ({"train_examples": 5000}, ["5,000 examples", None]),
    ],
)
def test_a_median_never_mixes_settings(changed, words, record):
    # The medians of the settings are 14 and 30; of the mixture, 22.
    records = [record(steps, seed=seed) for seed, steps in enumerate([10, 14, 90])]
    records += [record(steps, seed=seed, **changed) for seed, steps in enumerate([30, 20, 31])]
    medians = labelled_medians(records, "depth")
    assert sorted(medians.values()) == [14, 30]
    labels = {f"plain, {word}" if word else "plain" for word in words}
    assert {label for label, _ in medians} == labels
    summary = tables.from_records(records, ("depth", "batch_norm")).summary
    assert sorted(summary.median_steps) == [14, 30]
    shown = tables.side_by_side(tables.from_records(records, ("depth",)).trials, "depth")
    cells = shown.xs("steps", axis=1, level=1).to_numpy().ravel()
    assert sorted(cells[cells != ""]) == ["14 (3/3)", "30 (3/3)"]


def test_each_series_says_its_own_budget_where_it_misses(record):
    records = [record(None, max_steps=60), record(None, max_steps=30)]
    frame = tables.side_by_side(tables.from_records(records, ("depth",)).trials, "depth")
    assert frame.xs("steps", axis=1, level=1).iloc[0].to_dict() == {
        "plain, budget 30 steps": ">30 (0/1)",
        "plain, budget 60 steps": ">60 (0/1)",
    }


def test_networks_of_all_depths_are_one_series_for_each_list_of_widths(record):
    lists = {(30, 20, 10): [7, 8, 9], (30, 5): [7, 6], (4, 4): [1, 2]}
    records = {
        units[:depth]: record(steps, hidden_units=units[:depth])
        for units, every in lists.items()
        for depth, steps in enumerate(every, 1)
    }
    assert labelled_medians(records.values(), "depth") == {
        ("plain, widths 30-20-10", 1): 7,
        ("plain, widths 30-20-10", 2): 8,
        ("plain, widths 30-20-10", 3): 9,
        ("plain, widths 30-5", 1): 7,
        ("plain, widths 30-5", 2): 6,
        ("plain, 2 layers of 4", 1): 1,
        ("plain, 2 layers of 4", 2): 2,
    }


def test_long_lists_of_widths_are_shortened_unless_that_makes_them_equal(record):
    first, second, third = (9, 8, 7, 6, 5), (9, 8, 1, 5), (9, 8, 1)

    def label_set(*lists):
        records = [record(3, hidden_units=units) for units in lists]
        trials = tables.from_records(records, ("depth",)).trials
        return {label for label, _ in tables.by_series(trials)}

    assert label_set(first, third) == {"plain, widths 9-8-…-5", "plain, widths 9-8-1"}
    assert label_set(first, second) == {"plain, widths 9-8-7-6-5", "plain, widths 9-8-1-5"}


def test_a_seed_counts_once_if_it_ran_again_with_more_points_of_its_curve(record):
    records = [
        record(steps, seed=seed, curve_every=every)
        for seed, steps in enumerate([10, 20, 60])
        for every in ((0, 50, 5) if seed == 0 else (0,))
    ]
    trials = tables.from_records(records, ("depth",)).trials
    ((label, group),) = tables.by_series(trials, "depth")
    assert label == "plain"
    assert sorted(zip(group.seed, group.curve_every, strict=True)) == [(0, 5), (1, 0), (2, 0)]


def test_the_heading_names_all_targets_and_checks(record):
    records = [record(10), record(9, target_accuracy=0.8, eval_every=5)]
    text = tables.heading(tables.from_records(records, ("depth",)).trials)
    assert text.startswith("Median steps to 80% or 90% test accuracy")
    assert text.endswith("The target is checked every 1 to 5 steps.")


def test_single_runs_are_the_lowest_finished_seed_of_each_setting(record):
    records = [
        record(None, status="failed"),
        record(5, seed=1),
        record(5, seed=2),
        record(6, seed=3, learning_rate=0.1),
    ]
    first = tables.first_seed(tables.from_records(records, ("depth",)).trials)
    assert sorted(first.seed) == [1, 3]
