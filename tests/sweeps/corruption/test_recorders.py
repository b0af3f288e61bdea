"""The recorder against networks that the test recalibrates itself."""

import keras
import numpy as np
import pytest
import small_training

import kerasbn
from sweeps.corruption.program import recorders
from sweeps.corruption.program.images import KINDS, STRENGTHS, corrupted
from sweeps.harness.training.estimator import Estimator
from sweeps.harness.training.models import model_fn
from sweeps.harness.training.recorders import Run, make

IMAGES, LABELS = small_training.images(240)
COUNTS = {strength: [10, 30, 100, 120] if strength == 3 else [120] for strength in STRENGTHS}


def run(**changes):
    """A run after some training steps. The last 120 images are for testing."""
    fields = {"architecture": "lenet", "hidden_units": (3, 4, 20, 12), "bn_logits": False}
    own = {"program": "corruption", "record": ("corruption", "examples"), "batch_size": 40}
    trial = small_training.trial(**fields | own | changes)
    estimator = Estimator(model_fn, trial)
    estimator.initialize(trial)
    for i in range(60):
        start = 40 * (i % 3)
        part = slice(start, start + 40)
        estimator.train_steps([(IMAGES[part], LABELS[part])])
    test = IMAGES[120:], LABELS[120:]
    return Run(estimator, trial, (IMAGES[:120], LABELS[:120]), test)


@pytest.fixture(scope="module")
def normed():
    return run(batch_norm=True)


@pytest.fixture(scope="module")
def rows(normed):
    weights = [w.numpy() for w in normed.estimator.model.variables]
    (recorder,) = make(normed, ["corruption"]).values()
    found = recorder.rows(60)
    for before, after in zip(weights, normed.estimator.model.variables, strict=True):
        np.testing.assert_array_equal(after.numpy(), before)  # the network is as it was
    return {tuple(row[:3]): row[3] for row in found}


def accuracy(model, images):
    return float((model.predict(images, verbose=0).argmax(-1) == LABELS[120:]).mean())


def test_there_is_a_row_for_every_corruption_and_number_of_images(rows):
    cells = [("none", 0, count) for count in (0, 120)]
    cells += [
        (kind, strength, count)
        for kind in KINDS
        for strength in STRENGTHS
        for count in (0, *COUNTS[strength])
    ]
    assert list(rows) == cells


def test_accuracies_without_recalibration_are_those_of_keras(normed, rows):
    test, model = normed.test[0], normed.estimator.model
    assert rows["none", 0, 0] == pytest.approx(accuracy(model, test))
    for kind in KINDS:
        expected = accuracy(model, corrupted(test, kind, 4))
        assert rows[kind, 4, 0] == pytest.approx(expected)


@pytest.mark.parametrize(("kind", "count"), [("brightness", 120), ("contrast", 30), ("blur", 10)])
def test_accuracies_after_recalibration_are_those_of_a_recalibrated_copy(normed, rows, kind, count):
    test = corrupted(normed.test[0], kind, 3)
    order = np.random.default_rng([1 + KINDS.index(kind), 3]).permutation(120)
    copy = keras.models.clone_model(normed.estimator.model)
    copy.set_weights(normed.estimator.model.get_weights())
    kerasbn.recalibrate(copy, test[order[:count]], batch_size=40)
    assert rows[kind, 3, count] == pytest.approx(accuracy(copy, test))


def test_recalibration_changes_what_the_network_says(rows):
    changes = [rows[kind, 5, 120] - rows[kind, 5, 0] for kind in KINDS]
    assert max(changes) > 0.2


def test_a_network_without_batch_norm_is_only_evaluated():
    found = make(run(batch_norm=False), ["corruption"])["corruption"].rows(60)
    assert len(found) == 1 + len(KINDS) * len(STRENGTHS)
    assert {row[2] for row in found} == {0}


def test_keras_layer_is_recalibrated_too():
    found = make(run(batch_norm=True, bn_layer="keras"), ["corruption"])["corruption"].rows(60)
    assert {row[2] for row in found} == {0, 10, 30, 100, 120}


def test_no_more_images_than_the_limits_are_used(monkeypatch):
    assert recorders._counts(60_000, 3) == [10, 30, 100, 300, 1000, 3000, 10_000]
    assert recorders._counts(10_000, 2) == [10_000]
    assert recorders._counts(1000, 3) == [10, 30, 100, 300, 1000]


def test_the_examples_are_the_first_test_image(normed):
    found = make(normed, ["examples"])["examples"].rows(60)
    assert len(found) == 21
    for kind, strength, pixels in found:
        image = np.frombuffer(bytes.fromhex(pixels), np.uint8).reshape(28, 28)
        clean = normed.test[0][:1]
        expected = clean if kind == "none" else corrupted(clean, kind, strength)
        np.testing.assert_array_equal(image, expected[0])
