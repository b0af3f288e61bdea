"""Without the packages of the extra `sweeps`, a command ends with one clear line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sweeps


def run(tmp_path, *arguments, without):
    """Runs Python where packages seem not to be installed."""
    # Python imports this module when it starts. Of a module that is None in sys.modules,
    # importlib.util.find_spec says that there is none, and an import of it fails.
    hidden = dict.fromkeys(without)
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update({hidden})\n")
    path = os.pathsep.join([str(tmp_path), str(Path(sweeps.__file__).parents[1])])
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("command", ["depth", "cost", "report"])
@pytest.mark.parametrize("without", [["pandas"], ["absl"], ["absl", "pandas", "tensorflow"]])
def test_a_command_names_what_is_missing_and_how_to_install_it(tmp_path, command, without):
    done = run(tmp_path, "-m", f"sweeps.{command}", "--help", without=without)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the sweeps need ")
    assert f"({', '.join(without)})" in line
    assert "pip install 'kerasbn[sweeps]'" in line


def test_help_needs_nothing_but_the_extra(tmp_path):
    done = run(tmp_path, "-m", "sweeps.depth", "--help", without=["torch", "jax", "sklearn"])
    assert done.returncode == 0, done.stderr
    assert "--hidden_units" in done.stdout


def test_a_module_of_sweeps_can_be_imported_without_the_extra(tmp_path):
    program = "from sweeps.harness.trial import Trial; print(Trial.__name__)"
    done = run(tmp_path, "-c", program, without=["absl", "pandas", "tensorflow"])
    assert (done.returncode, done.stdout) == (0, "Trial\n"), done.stderr
