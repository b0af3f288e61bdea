"""The scripts in examples/ run, on a few images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
# By script: the flags that make it small, words of its output, and a file that it leaves.
RUNS = {
    "swap_the_layer": (["--small"], "Swapped 4 layers", "trained.keras"),
    "fine_tune_with_frozen_norms": (["--small"], "batch norms are unchanged: True", None),
    "fold_for_serving": (["--small"], "3 of 3 batch norm layers folded", "model/saved_model.pb"),
    "sweep_on_a_cluster": (
        ["--dataset=mnist_5k", "--seeds=1", "--hidden_units=50,25", "--max_steps=30"],
        "Median steps to 90% test accuracy",
        "results/mnist_5k/depth/trials.csv",
    ),
}


def test_every_example_is_run():
    assert sorted(RUNS) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", RUNS)
def test_example_runs(name, tmp_path):
    arguments, words, file = RUNS[name]
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert file is None or (tmp_path / file).exists()
