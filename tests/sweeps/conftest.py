import json
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_training

from sweeps import catalog
from sweeps.harness import claims
from sweeps.harness.trial import Trial


@pytest.fixture
def record():
    """Makes a trial's record, as the store reads it."""
    return _record


def _record(steps, *, seed=0, depth=1, batch_norm=False, status="done", accuracy=0.9, **changes):
    """A trial's record; `steps` None: the target was missed."""
    fields = {
        "dataset": "mnist_5k",
        "seed": seed,
        "hidden_units": (30, 20, 10)[:depth],
        "batch_norm": batch_norm,
        "learning_rate": 0.01,
        "batch_size": 500,
        "max_steps": 300,
        "target_accuracy": 0.9,
        **changes,
    }
    trial = Trial(**fields)
    result = {
        "reached": steps is not None,
        "steps_to_target": steps,
        "seconds_to_target": None if steps is None else steps / 10,
        "final_step": steps or trial.max_steps,
        "final_accuracy": accuracy,
        "best_accuracy": accuracy,
        "final_loss": 0.1234567890123456,
        "seconds_per_step": 0.1,
        "seconds_total": 31.0,
        "curve": [[1, 2.5, None], [2, None, 0.25]],
    }
    return {
        "trial_id": trial.id,
        "study": "depth",
        "status": status,
        "trial": trial.to_json(),
        "environment": {"threads": 1, "code": "c"},
        "commit": "abc",
        "finished_at": "2026-01-01T00:00:00+00:00",
        **({} if status == "failed" else result),
    }


@pytest.fixture
def judge(tmp_path):
    """Writes tables and returns the finding on a claim."""
    numbered = catalog.claims()

    def judge(number, **frames):
        study, claim = numbered[number]
        folder = tmp_path / study
        folder.mkdir(exist_ok=True)
        for name, frame in frames.items():
            frame.to_csv(folder / f"{name}.csv", index=False)
        return claim.rule(claims.StudyTables(folder))

    return judge


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    """A folder with custom.npz: 400 + 100 images, quickly learned, but not in one step."""
    images, labels = small_training.images(500)
    folder = tmp_path_factory.mktemp("data")
    np.savez(
        folder / "custom.npz",
        x_train=images[:400],
        y_train=labels[:400],
        x_test=images[400:],
        y_test=labels[400:],
    )
    return folder


class Driver:
    """Runs `python -m sweeps.depth` on small data in a new process, as a user does."""

    def __init__(self, data: Path, results: Path):
        self.folder = results / "custom" / "depth"
        self._flags = {
            "dataset": "custom",
            "data_dir": data,
            "results_dir": results,
            "hidden_units": "20,10",
            "batch_size": 50,
            "seeds": 2,
            "max_steps": 30,
            "target_accuracy": 0.8,
            "workers": 0,
        }

    @staticmethod
    def take_interrupts() -> None:
        # Where the tests run in the background, Ctrl-C is ignored, and would be in what they start.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def flags(self, *more: str, without: Collection[str] = ()) -> list[str]:
        kept = {name: value for name, value in self._flags.items() if name not in without}
        return [*(f"--{name}={value}" for name, value in kept.items()), *more]

    def start(self, *flags: str, without: Collection[str] = ()) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "sweeps.depth", *self.flags(*flags, without=without)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that a test can interrupt it and its workers together
            preexec_fn=self.take_interrupts,
        )

    def run(self, *flags: str, without: Collection[str] = ()) -> subprocess.CompletedProcess:
        process = self.start(*flags, without=without)
        out, err = process.communicate(timeout=200)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def trials(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "trials.csv", dtype={"commit": str, "code": str})

    def finished(self) -> int:
        return len(list((self.folder / "trials").glob("*.json")))

    def wait_until_finished(self, count: int, seconds: float = 100) -> None:
        end = time.monotonic() + seconds
        while self.finished() < count:
            assert time.monotonic() < end, f"{self.finished()} of {count} trials after {seconds} s"
            time.sleep(0.02)


_SEVERAL = """
import contextlib, io, json, sys
from pathlib import Path
from sweeps import catalog
from sweeps.harness.cli import study

done = []
for name, argv in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = study.main(catalog.study(name), [name, *argv])
    done.append((argv, status, out.getvalue(), err.getvalue()))
Path(sys.argv[2]).write_text(json.dumps(done))
"""


@pytest.fixture(scope="session")
def in_one_process(tmp_path_factory):
    """Runs commands one after the other in one process, because TensorFlow starts slowly."""

    def run(*commands: tuple[str, list[str]]) -> list[subprocess.CompletedProcess]:
        path = tmp_path_factory.mktemp("done") / "done.json"
        program = [sys.executable, "-c", _SEVERAL, json.dumps(commands), str(path)]
        whole = subprocess.run(program, capture_output=True, text=True)
        assert whole.returncode == 0, whole.stdout + whole.stderr
        return [subprocess.CompletedProcess(*each) for each in json.loads(path.read_text())]

    return run


@pytest.fixture(scope="session")
def new_driver(small_data, tmp_path_factory):
    """Makes a driver with an empty results folder."""
    return lambda: Driver(small_data, tmp_path_factory.mktemp("results"))


@pytest.fixture
def driver(new_driver):
    return new_driver()


@pytest.fixture(scope="module")
def module_driver(new_driver):
    return new_driver()
