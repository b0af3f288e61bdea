"""What the studies print and draw from a folder with several settings. Medians are by hand."""

import functools
import importlib

import numpy as np
import pytest

from sweeps.harness import charts
from sweeps.harness.results import tables


def study(name):
    return importlib.import_module(f"sweeps.{name}.__main__")


def made(records, *varied):
    return tables.from_records(records, varied or ("depth", "batch_norm"))


def recording(record, name, columns, rows):
    """The record with a recorder's rows."""
    return {**record, "recorded": {name: {"columns": columns, "rows": rows}}}


@pytest.fixture
def panels(monkeypatch):
    """The panels of each chart that is saved, by the file's name."""
    found = {}

    def save(path, panels, *args, **options):
        found[path.name] = panels
        return path

    monkeypatch.setattr(charts, "save_panels", save)
    return found


def series_of(panels):
    """By panel and label, the trials that are drawn."""
    return {
        (title, label): sorted(trials.trial_id)
        for title, draw in panels.items()
        for label, trials, _ in draw.args[0]
    }


def test_batch_size_groups_by_rate_but_not_by_its_scaling(record, panels, tmp_path):
    def of(rate, accuracies, seeds, examples=1000, **changes):
        return [
            record(
                None,
                seed=seed,
                batch_size=size,
                learning_rate=rate * (size / 500) ** 0.5,
                max_steps=examples // size,
                eval_every=examples // size,
                accuracy=accuracy,
                **changes,
            )
            for size, accuracy in accuracies.items()
            for seed, accuracy in zip(range(seeds), np.add(accuracy, [0, 0.01, 0.05]), strict=False)
        ]

    module = study("batch_size")
    one = made(of(0.01, {3: 0.8, 500: 0.9}, 3), "batch_size", "batch_norm")
    assert module.errors(one).to_numpy().tolist() == [[3, "19.00%"], [500, "9.00%"]]
    assert module.errors(one).columns.tolist() == ["batch size", "plain"]

    faster = of(0.1, {3: 0.5, 500: 0.6}, 3)
    longer = of(0.1, {3: 0.7, 500: 0.75}, 2, examples=2000)
    mixed = made(of(0.01, {3: 0.8, 500: 0.9}, 3) + faster + longer, "batch_size", "batch_norm")
    table = module.errors(mixed).set_index("batch size")
    assert {name: list(column) for name, column in table.items()} == {
        "plain, rate 0.01, 1,000 examples": ["19.00%", "9.00%"],
        "plain, rate 0.1, 1,000 examples": ["49.00%", "39.00%"],
        "plain, rate 0.1, 2,000 examples": ["29.50%", "24.50%"],
    }
    module.draw(mixed, tmp_path)
    drawn = series_of(panels["test_error.png"])
    assert {label: len(ids) for (_, label), ids in drawn.items()} == {
        "plain, rate 0.01, 1,000 examples": 6,
        "plain, rate 0.1, 1,000 examples": 6,
        "plain, rate 0.1, 2,000 examples": 4,
    }


def test_batch_size_counts_a_diverged_run_as_chance(record):
    runs = [record(None, status="diverged", accuracy=None), record(5, seed=1, accuracy=0.9)]
    assert study("batch_size").errors(made(runs)).iloc[0, 1] == "50.00%"


def test_regularization_keeps_rates_apart(record):
    def run(seed, train, test, **changes):
        rows = [[4, "train", train], [4, "test", test]]
        trial = record(None, seed=seed, **changes)
        return recording(trial, "evaluation", ["data", "accuracy"], rows)

    records = [run(seed, 0.9 + seed / 100, 0.8) for seed in range(3)]
    records += [run(seed, 0.5 + seed / 10, 0.5, learning_rate=0.1) for seed in range(3)]
    records += [run(0, 0.99, 0.9, dropout=0.5, l2=0.001)]
    table = study("regularization").medians(made(records))
    assert table.to_numpy().tolist() == [
        ["plain, rate 0.01", 0, 0, "91.00%", "80.00%", "11.00%"],
        ["plain, rate 0.01", 0.5, 0.001, "99.00%", "90.00%", "9.00%"],
        ["plain, rate 0.1", 0, 0, "60.00%", "50.00%", "10.00%"],
    ]


def test_gradients_keep_widths_of_one_depth_apart(record, panels, tmp_path):
    def run(seed, first, last, units):
        rows = [[0, 1, first], [0, 2, last], [5, 1, 1.0], [5, 2, 1.0]]
        trial = record(9, seed=seed, hidden_units=units)
        return recording(trial, "gradients", ["layer", "gradient_norm"], rows)

    records = [run(seed, first, 2.0, (4, 3)) for seed, first in enumerate([2.0, 4.0, 100.0])]
    records += [run(seed, first, 1.0, (8, 8)) for seed, first in enumerate([0.5, 0.25, 0.1])]
    both = made(records)
    table = study("gradients").ratios(both)
    assert table.index.tolist() == [2]
    assert table.iloc[0].to_dict() == {
        ("plain, widths 4-3", "first / last"): "2",
        ("plain, 2 layers of 8", "first / last"): "0.25",
    }
    study("gradients").draw(both, tmp_path)
    drawn = series_of(panels["gradients_2_layers.png"])
    assert {key: len(ids) for key, ids in drawn.items()} == {
        (f"relu, step {step}", f"plain, {widths}"): 3
        for step in (0, 5)
        for widths in ("widths 4-3", "2 layers of 8")
    }


def test_moving_average_keeps_budgets_and_rates_of_a_seed_apart(record, panels, tmp_path):
    def run(seed, reached, **changes):
        rows = [[step, "batch", 0.95 if step >= reached else 0.5] for step in (5, 10, 20)]
        trial = record(None, seed=seed, batch_norm=True, **changes)
        return recording(trial, "statistics", ["statistics", "accuracy"], rows)

    records = [run(seed, reached) for seed, reached in enumerate([5, 10, 10])]
    records += [run(seed, reached, max_steps=60) for seed, reached in enumerate([20, 99, 99])]
    table = study("moving_average").medians(made(records))
    assert table.iloc[0].to_dict() == {
        "statistics": "batch",
        "median steps to 90%, batch norm, budget 300 steps": "10 (3/3)",
        "median steps to 90%, batch norm, budget 60 steps": ">60 (1/3)",
    }
    alone = study("moving_average").medians(made(records[:3]))
    assert alone.columns.tolist() == ["statistics", "median steps to 90%"]
    study("moving_average").draw(made(records), tmp_path)
    drawn = panels["accuracy_by_step.png"]
    assert {title: draw.args[0].trial_id.nunique() for title, draw in drawn.items()} == {
        "batch norm, budget 60 steps": 3,
        "batch norm, budget 300 steps": 3,
    }


def test_initialization_takes_the_last_error_of_each_budget(record):
    def run(seed, loss, **changes):
        trial = record(None, seed=seed, target_accuracy=None, **changes)
        rows = [[0, "test", 9.0], [trial["trial"]["max_steps"], "test", loss]]
        return recording(trial, "evaluation", ["data", "loss"], rows)

    records = [run(seed, loss) for seed, loss in enumerate([1.0, 2.0, 6.0])]
    records += [run(seed, loss, max_steps=600) for seed, loss in enumerate([0.5, 0.1])]
    table = study("initialization").last_errors(made(records))
    assert table.to_numpy().tolist() == [
        ["relu", "plain, budget 300 steps", "2", "1", "6", "3"],
        ["relu", "plain, budget 600 steps", "0.3", "0.1", "0.5", "2"],
    ]


def test_depth_draws_a_panel_for_each_rate(record, panels, tmp_path):
    records = [
        record(9, batch_norm=batch_norm, seed=seed, depth=depth, learning_rate=rate)
        for batch_norm in (False, True)
        for depth in (1, 2)
        for rate in (0.003, 0.01)
        for seed in range(2)
    ]
    study("depth").draw(made(records), tmp_path)
    for chart, count in (("steps_to_target.png", 4), ("accuracy_by_step.png", 2)):
        assert {key: len(ids) for key, ids in series_of(panels[chart]).items()} == {
            (f"rate {rate}", arm): count
            for rate in (0.003, 0.01)
            for arm in ("plain", "batch norm")
        }


@pytest.mark.parametrize(
    ("name", "chart", "titles"),
    [
        ("depth", "steps_to_target.png", [""]),
        ("depth", "accuracy_by_step.png", [""]),
        ("activation", "accuracy_by_step.png", ["relu"]),
        ("activation", "steps_to_target.png", [""]),
        ("learning_rate", "best_accuracy.png", ["relu"]),
        ("learning_rate", "decay.png", ["relu"]),
        ("lenet", "curves.png", ["training loss", "test accuracy"]),
    ],
)
def test_no_series_of_a_chart_mixes_budgets(name, chart, titles, record, panels, tmp_path):
    records = [
        record(9, batch_norm=batch_norm, seed=seed, max_steps=steps)
        for batch_norm in (False, True)
        for steps in (60, 30)
        for seed in range(2)
    ]
    study(name).draw(made(records), tmp_path)
    assert list(panels[chart]) == titles
    arms = ["batch norm"] if chart == "decay.png" else ["plain", "batch norm"]
    for draw in panels[chart].values():
        assert isinstance(draw, functools.partial)
        assert {label: sorted(trials.max_steps) for label, trials, _ in draw.args[0]} == {
            f"{arm}, budget {steps} steps": [steps] * 2 for arm in arms for steps in (30, 60)
        }


def test_distribution_has_panels_for_each_setting(record, panels, tmp_path):
    def run(seed, **changes):
        columns = ["unit", "p15", "p50", "p85"]
        rows = [[0, unit, 0.0, 0.1 * seed, 0.2] for unit in (1, 2, 3)]
        return recording(record(9, seed=seed, **changes), "percentiles", columns, rows)

    records = [run(seed, learning_rate=rate) for rate in (0.1, 0.2) for seed in (0, 1)]
    study("distribution").draw(made(records), tmp_path)
    drawn = panels["percentiles.png"]
    assert list(drawn) == [
        f"plain, rate {rate}, unit {unit}" for rate in (0.1, 0.2) for unit in (1, 2, 3)
    ]
    assert all(len(draw.args[0]) == 1 for draw in drawn.values())
