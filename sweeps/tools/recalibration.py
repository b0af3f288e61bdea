"""Accuracy before and after recalibration, early in training: the table recalibration.csv."""

from __future__ import annotations

from typing import Any

import keras

import kerasbn
from sweeps.harness.data import Dataset
from sweeps.harness.engine import runner
from sweeps.harness.training import models
from sweeps.harness.trial import HIDDEN_UNITS, Trial

# After so few steps, moving averages with Keras's default momentum lag far behind the weights.
_MOMENTUM, _STEPS, _BATCH_SIZE = 0.99, 20, 500


def of_depth_network(dataset: Dataset, seed: int) -> dict[str, Any]:
    """The depth study's deepest network after a few training steps, as one row."""
    model, batch_size = lagging_network(dataset, seed)

    def accuracy():
        predicted = model.predict(dataset.x_test, batch_size=1000, verbose=0).argmax(-1)
        return float((predicted == dataset.y_test).mean())

    before = accuracy()
    kerasbn.recalibrate(model, dataset.x_train[:10000], batch_size=batch_size)
    return {
        "seed": seed,
        "steps": _STEPS,
        "bn_momentum": _MOMENTUM,
        "test_accuracy": before,
        "test_accuracy_recalibrated": accuracy(),
        "keras": keras.__version__,
    }


def lagging_network(dataset: Dataset, seed: int) -> tuple[keras.Model, int]:
    """The depth study's deepest network after a few training steps, and its batch size."""
    batch_size = min(_BATCH_SIZE, len(dataset.y_train))
    trial = Trial(
        dataset=dataset.name,
        seed=seed,
        hidden_units=HIDDEN_UNITS,
        batch_norm=True,
        bn_momentum=_MOMENTUM,
        learning_rate=0.01,
        batch_size=batch_size,
        max_steps=_STEPS,
        target_accuracy=0.9,
    )
    spec = models.model_fn(trial)
    model = spec.model
    model.compile(spec.optimizer, spec.loss)
    batches = runner.batches(dataset.x_train, dataset.y_train, batch_size, seed)
    for _ in range(_STEPS):
        model.train_on_batch(*next(batches))
    return model, batch_size


def diagnosis_of_depth_network(dataset: Dataset, seed: int) -> kerasbn.tools.diagnosis.Diagnosis:
    """The report of `kerasbn.diagnose` on this network and the test set."""
    model, batch_size = lagging_network(dataset, seed)
    return kerasbn.diagnose(model, (dataset.x_test, dataset.y_test), batch_size=batch_size)
