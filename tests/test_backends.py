"""The layer's tests that need a process of their own: on JAX, on PyTorch, on several devices."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Keras's backend, the tests, and how many of them must pass at least, so that none is lost unseen.
RUNS = {
    "jax": ("jax", "tests/kerasbn", 300),
    "torch": ("torch", "tests/kerasbn", 300),
    "devices": ("tensorflow", "tests/kerasbn/test_distributed.py", 40),
}

pytestmark = [
    pytest.mark.skipif(
        os.environ["KERAS_BACKEND"] != "tensorflow",
        reason="started from the run on TensorFlow, for the other backends",
    ),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """All runs at once: they start and compile on one core each."""
    folder = tmp_path_factory.mktemp("runs")
    started = {}
    for name, (backend, tests, _) in RUNS.items():
        if importlib.util.find_spec(backend) is None:
            continue
        output = folder / name
        with output.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", tests, "-p", "no:cacheprovider", "--color=no"],
                cwd=ROOT,
                env={**os.environ, "KERAS_BACKEND": backend},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        started[name] = process, output
    yield started
    for process, _ in started.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", RUNS)
def test_layer(processes, name):
    backend, _, at_least = RUNS[name]
    if name not in processes:
        pytest.skip(f"{backend} is not installed")
    process, output = processes[name]
    status = process.wait()
    report = output.read_text()
    assert status == 0, f"exit status {status}\n{report}"
    passed = re.search(r"(\d+) passed", report)
    assert passed, report
    assert int(passed[1]) >= at_least, report
