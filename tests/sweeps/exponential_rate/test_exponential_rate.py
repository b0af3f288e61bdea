"""The two runs of the exponential-rate study, against gradient descent written in NumPy."""

import numpy as np
import pytest
import small_training

from sweeps.exponential_rate import program
from sweeps.harness.data import Dataset
from sweeps.harness.training import models

RATE, DECAY, STEPS = 0.2, 0.05, 20


@pytest.fixture(scope="module")
def dataset():
    images, labels = small_training.images(60)
    return Dataset("custom", images, labels, images, labels, "a test")


def trial(schedule, **changes):
    fields = {"seed": 1, "hidden_units": (9,), "batch_size": 40, "learning_rate": RATE}
    fields |= {"max_steps": STEPS, "target_accuracy": None, "bn_epsilon": 1e-30}
    options = {"schedule": schedule, "weight_decay": DECAY}
    return small_training.trial(
        **fields | changes, program="exponential_rate", options=options, bn_logits=True
    )


def logits_and_gradients(kernels, x, y):
    """Dense -> batch norm -> ReLU -> Dense -> batch norm, and its cross-entropy."""

    def normalize(z):
        std = z.std(0)
        return (z - z.mean(0)) / std, std

    def back(d, n, std):
        return (d - d.mean(0) - n * (d * n).mean(0)) / std

    first, second = kernels
    n1, std1 = normalize(x @ first)
    h = np.maximum(n1, 0)
    n2, std2 = normalize(h @ second)
    p = np.exp(n2) / np.exp(n2).sum(1, keepdims=True)
    d2 = back((p - np.eye(10)[y]) / len(y), n2, std2)
    d1 = back(d2 @ second.T * (n1 > 0), n1, std1)
    return n2, [x.T @ d1, h.T @ d2]


def logits_by_step(kernels, x, y, shrink, rate_of):
    found = []
    for step in range(STEPS + 1):
        logits, gradients = logits_and_gradients(kernels, x, y)
        found.append(logits)
        kernels = [shrink * w - rate_of(step) * g for w, g in zip(kernels, gradients, strict=True)]
    return np.array(found)


@pytest.fixture(scope="module")
def start(dataset):
    """The initial kernels, the images and the labels of the trial."""
    kernels = [v.numpy() for v in models.build(trial("constant")).trainable_variables]
    chosen = np.random.default_rng(1).choice(60, 40, replace=False)
    return kernels, dataset.x_train[chosen].reshape(40, -1) / 255, dataset.y_train[chosen]


@pytest.mark.parametrize("schedule", ["constant", "exponent -2t"])
def test_differences_are_those_of_numpy(dataset, start, schedule):
    shrink = 1 - DECAY * RATE
    decayed = logits_by_step(*start, shrink, lambda step: RATE)
    powers = {"constant": 0, "exponent -2t": -2}
    other = logits_by_step(*start, 1.0, lambda step: RATE * shrink ** (powers[schedule] * step))
    history = program.run(trial(schedule), dataset)
    rows = np.array(history.recorded["difference"]["rows"])
    np.testing.assert_array_equal(rows[:, 0], np.arange(STEPS + 1))
    expected = np.abs(decayed - other).max(axis=(1, 2))
    np.testing.assert_allclose(rows[:, 1], expected, rtol=1e-6, atol=1e-12)
    assert expected[-1] > 1e-4
    assert history.final_step == STEPS
    assert [step for step, *_ in history.curve] == list(range(STEPS + 1))


def test_the_exponential_rate_gives_the_same_function(dataset, start):
    shrink = 1 - DECAY * RATE
    decayed = logits_by_step(*start, shrink, lambda step: RATE)
    other = logits_by_step(*start, 1.0, lambda step: RATE * shrink ** (-2 * step - 1))
    assert np.abs(decayed - other).max() < 1e-9  # the theorem, in NumPy
    for schedule in ("exponential", "rounding"):
        history = program.run(trial(schedule), dataset)
        largest = max(row[1] for row in history.recorded["difference"]["rows"])
        assert 0 < largest < 1e-9
    assert program.run(trial("exponential"), dataset).recorded["difference"]["rows"][0] == (0, 0.0)


def test_an_epsilon_that_is_not_small_breaks_the_scale_invariance(dataset):
    history = program.run(trial("exponential", bn_epsilon=0.1), dataset)
    assert history.recorded["difference"]["rows"][-1][1] > 1e-6


def test_a_run_that_overflows_has_diverged(dataset):
    history = program.run(trial("exponential", learning_rate=19.9, max_steps=200), dataset)
    assert history.status == "diverged"
    assert 0 < history.final_step < 200
