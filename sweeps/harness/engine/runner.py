"""Trains and evaluates a trial inside a worker, on the worker's copy of the data."""

from __future__ import annotations

import dataclasses
import datetime
import gc
import os
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from sweeps.harness.data import Dataset
from sweeps.harness.results import provenance
from sweeps.harness.training import programs, recorders
from sweeps.harness.training.estimator import (
    Estimator,
    EvalSpec,
    Recorder,
    RecordSpec,
    TestSet,
    TrainSpec,
    train_and_evaluate,
)
from sweeps.harness.training.models import model_fn
from sweeps.harness.trial import Trial

Examples = tuple[np.ndarray, np.ndarray]  # inputs and labels


class Runner:
    """Runs trials one after another.

    It reuses the compiled step while only the seed and the learning rate change.

    Args:
        dataset: Data set to train and test on.
        threads: Number of threads per TensorFlow operation. Operations run one at a time.
        save_models: Whether results contain the trained network, as the bytes of a `.keras` file.
    """

    def __init__(self, dataset: Dataset, threads: int, save_models: bool):
        _set_threads(threads)
        # Without this, TensorFlow takes the functions of different networks for retraces of one
        # function and warns about them.
        tf.get_logger().setLevel("ERROR")
        self._dataset = dataset
        self._sizes: tuple[int | None, int | None] | None = None
        self._parts: dict[str, Examples] = {}
        self._evaluation_sets: dict[str, TestSet] = {}
        self._save_models = save_models
        self._environment = {"threads": threads, **provenance.environment()}
        self._estimator: Estimator | None = None
        self._recorders: dict[str, Recorder] = {}
        self._network: Trial | None = None

    def run(self, trial: Trial) -> dict[str, Any]:
        """Runs a trial and returns its result. A crash gives status "failed" and the traceback."""
        program_code = provenance.program_fingerprint(trial.program)
        environment = {**self._environment, "program_code": program_code}
        result: dict[str, Any] = {"trial": trial.to_json(), "environment": environment}
        try:
            history = self._history(trial)
            result |= dataclasses.asdict(history)
            if self._save_models and self._estimator is not None:
                result["model"] = _keras_file(self._estimator.model)
        except Exception:
            result |= {"status": "failed", "traceback": traceback.format_exc()}
        result["finished_at"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return result

    def _history(self, trial):
        run = programs.load(trial.program).run
        if run is None:
            return self._train(trial)
        self._estimator = self._network = None  # there is no network to save
        return run(trial, self._dataset)

    def _train(self, trial):
        self._split(trial)
        train, evaluation_set = self._parts["train"], self._evaluation_sets[trial.evaluated_on]
        if trial.network != self._network:
            self._estimator = self._network = None
            self._recorders = {}
            gc.collect()  # reference cycles keep the old network's graph alive
            self._estimator = Estimator(model_fn, trial)
            evaluated = self._parts[trial.evaluated_on]
            run = recorders.Run(self._estimator, trial, train, evaluated)
            self._recorders = recorders.make(run, trial.record)
            self._network = trial.network
        self._estimator.initialize(trial)
        return train_and_evaluate(
            self._estimator,
            TrainSpec(
                lambda: batches(*train, trial.batch_size, trial.seed),
                trial.max_steps,
                trial.steps_per_execution,
            ),
            EvalSpec(
                lambda: evaluation_set,
                trial.eval_every,
                trial.target_accuracy,
                trial.stop_at_target,
                trial.curve_every,
                trial.exact_until,
            ),
            RecordSpec(self._recorders, trial.record_steps),
        )

    def _split(self, trial):
        """Splits the data set for a trial, unless the previous trial had the same split."""
        sizes = trial.train_examples, trial.validation_examples
        if sizes != self._sizes:
            self._parts = split(self._dataset, *sizes)
            self._evaluation_sets = {
                name: TestSet(*self._parts[name]) for name in self._parts if name != "train"
            }
            self._sizes = sizes


def split(
    dataset: Dataset, train_examples: int | None, validation_examples: int | None
) -> dict[str, Examples]:
    """The parts of a data set: "train", "validation" and "test". They have no example in common.

    Every call with the same numbers draws the same examples.

    Args:
        dataset: The data set.
        train_examples: Number of training examples to use. `None` for all that are left.
        validation_examples: Number of training examples to set aside. `None` for none; then there
            is no part "validation".
    """
    x, y = dataset.x_train, dataset.y_train
    test = {"test": (dataset.x_test, dataset.y_test)}
    if train_examples is None and validation_examples is None:
        return {"train": (x, y), **test}
    order = np.random.default_rng(0).permutation(len(y))
    aside, left = np.split(order, [validation_examples or 0])
    train = left[:train_examples]
    validation = {"validation": (x[aside], y[aside])} if len(aside) else {}
    return {"train": (x[train], y[train]), **validation, **test}


def batches(
    images: np.ndarray, labels: np.ndarray, batch_size: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields mini-batches without end. Each epoch has a new random order.

    An epoch ends before its last mini-batch if that would be smaller than the others.

    Args:
        images: Training examples.
        labels: Their labels.
        batch_size: Examples per mini-batch.
        seed: Seed of the order.
    """
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(len(labels))
        for i in range(0, len(order) - batch_size + 1, batch_size):
            chosen = order[i : i + batch_size]
            yield images[chosen], labels[chosen]


def _set_threads(threads):
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:  # TensorFlow has already started, so its threads are fixed
        running = tf.config.threading.get_intra_op_parallelism_threads()
        if running != threads:
            raise RuntimeError(
                f"TensorFlow already runs with --threads={running} in process {os.getpid()}, but "
                f"--threads={threads} was requested. Restart the workers."
            ) from error


def _keras_file(model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        model.save(path)
        return path.read_bytes()
