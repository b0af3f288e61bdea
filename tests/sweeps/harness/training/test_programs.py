"""A study's own code: networks, recorders and runs, through the real runner."""

import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from sweeps.harness.data import Dataset
from sweeps.harness.engine.runner import Runner
from sweeps.harness.results import provenance
from sweeps.harness.training import programs
from sweeps.harness.training.estimator import History
from sweeps.harness.training.recorders.base import Stateless
from sweeps.harness.trial import Trial

# TensorFlow cannot change its threads after it has started.
THREADS = tf.config.threading.get_intra_op_parallelism_threads()


@pytest.fixture
def program(monkeypatch):
    """Makes the module `program` of a study "mine"."""

    def make(**names):
        module = types.ModuleType("sweeps.mine.program")
        module.__file__ = "sweeps/mine/program.py"
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, "sweeps.mine.program", module)

    monkeypatch.setattr(provenance, "program_fingerprint", lambda study: study and f"of {study}")
    return make


@pytest.fixture(scope="module")
def dataset():
    images = np.random.default_rng(0).integers(0, 256, (60, 28, 28), np.uint8)
    labels = np.arange(60, dtype=np.uint8) % 10
    return Dataset("custom", images, labels, images[:20], labels[:20], "a test")


class Width(Stateless):
    columns = ("units", "offset")

    def __init__(self, run):
        self._dense = run.estimator.model.get_layer("wide")

    def rows(self, step):
        return [(self._dense.units, float(self._dense.bias.numpy()[0]))]


def build(trial):
    layers = keras.layers
    units = dict(trial.options)["units"]
    return keras.Sequential(
        [
            keras.Input((28, 28), dtype="uint8"),
            layers.Flatten(),
            layers.Dense(units, name="wide"),
            layers.GaussianNoise(0.1, seed=0),
            layers.Dense(10),
        ]
    )


def prepare(model, trial):
    model.get_layer("wide").bias.assign(np.full(model.get_layer("wide").units, trial.seed + 0.5))


def test_a_program_builds_prepares_and_records(program, dataset, record):
    program(build=build, prepare=prepare, RECORDERS={"width": Width})
    own = {"program": "mine", "options": {"units": 7}, "record": ("width",), "record_steps": (0,)}
    trial = record(1, max_steps=2, batch_size=20, **own)["trial"]
    runner = Runner(dataset, threads=THREADS, save_models=False)
    results = [runner.run(Trial.from_json({**trial, "seed": seed})) for seed in (3, 4)]
    assert [r["status"] for r in results] == ["done", "done"], results[0].get("traceback")
    assert results[0]["environment"]["program_code"] == "of mine"
    rows = [r["recorded"]["width"]["rows"] for r in results]
    assert rows == [[(0, 7, 3.5)], [(0, 7, 4.5)]]  # both used one network, prepared for each seed


def test_a_program_may_replace_training(program, dataset, record):
    def run(trial, dataset):
        return History(final_loss=float(dict(trial.options)["x"]), final_step=len(dataset.y_train))

    program(run=run)
    trial = record(1, program="mine", options={"x": 2.5})["trial"]
    result = Runner(dataset, threads=THREADS, save_models=False).run(Trial.from_json(trial))
    assert (result["status"], result["final_loss"]) == ("done", 2.5)
    assert result["final_step"] == len(dataset.y_train)


def test_an_empty_program_is_an_error_that_says_what_to_define(program):
    program(other=1)
    with pytest.raises(RuntimeError, match=r"defines none of build, prepare, run, RECORDERS"):
        programs.load("mine")
