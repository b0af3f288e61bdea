"""The README says what the tracked results say, and its code runs."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def medians(folder):
    """(steps, reached, total) by (depth, batch_norm), as tracked."""
    summary = pd.read_csv(ROOT / folder / "summary.csv")
    return {
        (row.depth, row.batch_norm): (row.median_steps, row.reached, row.total)
        for row in summary.itertuples()
    }


@pytest.mark.parametrize("marker", ["results/mnist/depth", "results/keras_layer/mnist/depth"])
def test_the_tables_are_those_of_the_tracked_results(marker):
    tracked = medians(marker)
    arms = sorted({arm for _, arm in tracked})
    shown = {}
    for cells in table_of(marker):
        steps = [c for c in cells[1:] if "/" in c]
        for arm, text in zip(arms, steps, strict=True):
            median, reached, total = re.fullmatch(r"(\S+) \((\d+)/(\d+)\)", text).groups()
            value = math.inf if median.startswith(">") else float(median)
            shown[int(cells[0]), arm] = (value, int(reached), int(total))
    assert shown == tracked


def table_of(marker):
    """The cells of a table in the README, without its header."""
    body = README.split(f"<!-- table: {marker} -->")[1].strip().split("\n\n")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in body.splitlines()[2:]]


def cell(value, form):
    return "" if pd.isna(value) else format(value, form)


def test_the_table_of_stages_is_that_of_the_tracked_results():
    stages = pd.read_csv(ROOT / "results/mnist/tools/stages.csv")
    assert table_of("results/mnist/tools/stages") == [
        [
            row.network,
            row.stage,
            str(row.bn_layers),
            cell(row.test_accuracy, ".1%"),
            cell(row.relative_error, ".1e"),
            cell(row.milliseconds, ".1f"),
            cell(row.time_over_folded, ".2f"),
        ]
        for row in stages.itertuples()
    ]


def test_the_table_of_recalibration_is_that_of_the_tracked_results():
    found = pd.read_csv(ROOT / "results/mnist/tools/recalibration.csv")
    columns = ["test_accuracy", "test_accuracy_recalibrated"]
    rows = [["median", *found[columns].median()], *found[["seed", *columns]].to_numpy().tolist()]
    assert table_of("results/mnist/tools/recalibration") == [
        [name if name == "median" else f"{name:.0f}", f"{before:.1%}", f"{after:.1%}"]
        for name, before, after in rows
    ]


def test_the_table_of_layers_is_that_of_the_tracked_results():
    layers = pd.read_csv(ROOT / "results/mnist/cost/layers.csv")
    inference = pd.read_csv(ROOT / "results/mnist/cost/inference.csv")
    own = {
        (table, mode): frame.query(
            "what == 'layer' and dtype == 'float32' and contender == 'kerasbn' and mode == @mode"
        ).set_index("size")
        for table, frame, mode in [
            ("layers", layers, "graph"),
            ("layers", layers, "xla"),
            ("inference", inference, "graph"),
        ]
    }
    graph, xla = own["layers", "graph"], own["layers", "xla"]
    assert table_of("results/mnist/cost/layers") == [
        [
            size,
            "yes" if graph.shapes[size] == "tuned" else "no",
            cell(graph.over_keras[size], ".2f"),
            cell(xla.over_keras[size], ".2f"),
            cell(graph.over_pytorch[size], ".2f"),
            cell(own["inference", "graph"].over_keras[size], ".2f"),
        ]
        for size in graph.index
    ]


def test_the_table_of_steps_is_that_of_the_tracked_results():
    steps = pd.read_csv(ROOT / "results/mnist/cost/steps.csv")
    rows = []
    for (what, size), net in steps.groupby(["what", "size"], sort=False):
        over = net.set_index(["mode", "contender"]).over_plain
        cells = [over[mode, who] for mode in ("graph", "xla") for who in ("keras", "kerasbn")]
        rows.append([what, str(size), *(f"{value:.2f}" for value in cells)])
    assert table_of("results/mnist/cost/steps") == rows


def test_the_first_lines_are_those_of_the_tracked_results():
    tracked = medians("results/mnist/depth")
    first = README.split("\n## ")[0]
    numbers = [float(n) for n in re.findall(r"\*\*([\d.]+)\*\*", first)]
    assert numbers == [tracked[d, arm][0] for arm in (False, True) for d in (7, 1)]


def test_the_two_commands_stand_there_as_they_are_tested():
    assert "    pip install -e . && python -m sweeps.depth\n" in README
    assert "    pip install -e '.[test]' && python -m pytest\n" in README


def test_the_layer_example_runs(tmp_path):
    block = re.search(r"## The layer\n\n```python\n(.*?)```", README, re.DOTALL)[1]
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.keras").exists()
