"""`python -m` with a command that does not exist: one line with a suggestion, and exit status 2."""

import subprocess
import sys
from pathlib import Path

import pytest

import sweeps
from sweeps import catalog

ROOT = Path(sweeps.__file__).parents[1]


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["-m", "sweeps.dept"], "sweeps.depth"),
        (["-um", "sweeps.batchsize", "--seeds=1"], "sweeps.batch_size --seeds=1"),
        (["-msweeps.Depth"], "sweeps.depth"),
        (["-m", "sweeps", "depth", "--seeds=1"], "sweeps.depth --seeds=1"),
        (["-m", "sweeps", "learning-rate"], "sweeps.learning_rate"),
    ],
)
def test_a_misspelled_command_gets_a_suggestion(arguments, meant):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(f"Did you mean: python -m {meant}")


@pytest.mark.parametrize("arguments", [["sweeps.xyz"], ["sweeps", "xyz"]])
def test_a_name_like_no_other_gets_the_list(arguments):
    done = run("-m", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "'xyz'" in line
    assert line.endswith(f"The commands are: {', '.join(catalog.commands())}.")


def test_other_modules_of_sweeps_still_run():
    assert run("-m", "sweeps.depth.claims").returncode == 0
    assert run("-c", "import sys; sys.argv = ['-m']; import sweeps.depth").returncode == 0
