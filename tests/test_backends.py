"""Runs the layer's tests again on JAX, on PyTorch, and on several devices.

Keras's backend and the number of devices are fixed once Keras is imported, so each run needs its
own process. A run is a single test here: it keeps one worker of pytest-xdist busy while the others
go on, so no more processes compute than there are workers.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Keras's backend, the tests, and how many of them must pass at least, so that none gets lost.
RUNS = {
    "jax": ("jax", "tests/kerasbn", 550),
    "torch": ("torch", "tests/kerasbn", 550),
    "devices": ("tensorflow", "tests/kerasbn/test_distributed.py", 30),
}


@pytest.mark.skipif(
    os.environ["KERAS_BACKEND"] != "tensorflow", reason="the run on TensorFlow starts the others"
)
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", RUNS)
def test_layer(name, pytestconfig):
    backend, tests, at_least = RUNS[name]
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    options = ["-n0", "-p", "no:cacheprovider", "--color=no"]
    if pytestconfig.getoption("--full"):
        options.append("--full")
    elif sample := pytestconfig.getoption("--full-sample"):
        options.append(f"--full-sample={sample}")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", tests, *options],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, f"exit status {result.returncode}\n{result.stdout}"
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed, result.stdout
    assert int(passed[1]) >= at_least, result.stdout
