"""`diagnose` leaves no trace in the model, and holds few batches at a time."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from keras import layers

import kerasbn

from .broken_models import X, Y, network
from .recalibrated_models import state, value

pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


@pytest.fixture
def model():
    """A network with dropout, metrics, and an optimizer that has made steps."""
    model = network(kerasbn.BatchNorm, before_second=[layers.Dropout(0.3, seed=1)], bias=True)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    for _ in range(3):
        model.train_on_batch(X[:64], Y[:64])
    return model


def everything(model):
    """All that may change: values of all variables, and the attributes of all layers."""
    metrics = [np.array(value(v)) for v in model.metrics_variables]
    optimizer = [np.array(value(v)) for v in model.optimizer.variables]
    attributes = [sorted(vars(layer)) for layer in model.layers]
    return [*state(model), *metrics, *optimizer], attributes


def assert_same(before, after):
    for old, new in zip(before[0], after[0], strict=True):
        np.testing.assert_array_equal(old, new)
    assert before[1] == after[1]


class Interrupting:
    """Batches that can be read again. `Ctrl-C` is pressed at one of them."""

    def __init__(self, at):
        self.at = at
        self.read = 0

    def __iter__(self):
        for i in range(4):
            self.read += 1
            if self.read == self.at:
                raise KeyboardInterrupt
            yield X[64 * i :][:64], Y[64 * i :][:64]


def test_nothing_changes(model):
    before = everything(model)
    report = kerasbn.diagnose(model, (X, Y), batch_size=64)
    assert report.recalibrated.accuracy is not None
    assert_same(before, everything(model))


@pytest.mark.parametrize("at", [1, 3, 7])
def test_nothing_changes_after_an_interrupt(model, at):
    before = everything(model)
    with pytest.raises(KeyboardInterrupt):
        kerasbn.diagnose(model, Interrupting(at))
    assert_same(before, everything(model))


def test_nothing_changes_after_an_error_in_the_model(model):
    before = everything(model)
    with pytest.raises(ValueError, match=r"Batch 1 does not fit"):
        kerasbn.diagnose(model, [X[:64], X[:64, :5]])
    assert_same(before, everything(model))


class Stream:
    """Batches that are made when they are needed. Counts how many exist at once."""

    def __init__(self, batches):
        self.batches = batches
        self.alive = self.most = 0

    def __len__(self):
        return self.batches

    def __iter__(self):
        for i in range(self.batches):
            x = np.random.default_rng(i).normal(2, 3, (64, 6)).astype("float32")
            weakref.finalize(x, self.forget)
            gc.collect()  # otherwise, a reference cycle can keep one more batch
            self.alive += 1
            self.most = max(self.most, self.alive)
            yield x, Y[:64]
            del x

    def forget(self):
        self.alive -= 1


@pytest.fixture
def quick_collection():
    """Lets `gc.collect` visit only the objects that the test makes, and not all of TensorFlow's."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def test_few_batches_exist_at_a_time(model, quick_collection):
    few, many = Stream(4), Stream(30)
    kerasbn.diagnose(model, few)
    report = kerasbn.diagnose(model, many)
    assert report.batches == 30
    assert many.most <= few.most <= 3
