"""Ranks of known matrices, and the layers of a network against NumPy."""

import numpy as np
import pytest
import small_training
import tensorflow as tf

from sweeps.harness.data import Dataset
from sweeps.rank import program

RANDOM = np.random.default_rng(0)


def with_singular_values(*values, rows=30, columns=8):
    left = np.linalg.qr(RANDOM.normal(size=(rows, columns)))[0]
    right = np.linalg.qr(RANDOM.normal(size=(columns, columns)))[0]
    padded = np.zeros(columns)
    padded[: len(values)] = values
    return tf.constant(left @ np.diag(padded) @ right)


@pytest.mark.parametrize(
    ("values", "rank", "stable"),
    [
        ((3.0,), 1, 1.0),
        ((2.0, 2.0, 2.0), 3, 3.0),
        ((100.0, 1.1, 0.9), 2, 1 + (1.1**2 + 0.9**2) / 1e4),  # 1% of the largest one is 1
        ((1e6, 1e5, 1e3), 2, 1.01 + 1e-6),
        ((), 0, 0.0),
    ],
)
def test_ranks_of_known_matrices(values, rank, stable):
    found = program.ranks(with_singular_values(*values))
    assert found[0] == rank
    assert found[1] == pytest.approx(stable, rel=1e-9)


@pytest.fixture(scope="module")
def dataset():
    images, labels = small_training.images(60)
    return Dataset("custom", images, labels, images, labels, "a test")


def trial(**changes):
    fields = {"seed": 5, "hidden_units": (7, 7, 7), "batch_size": 20, "learning_rate": 0.0}
    fields |= {"program": "rank", "options": {"width": 7, "measure_every": 2}}
    return small_training.trial(**fields | changes)


@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_layers_are_those_of_numpy(activation, batch_norm):
    x = RANDOM.normal(size=(20, 11))
    each = trial(activation=activation, batch_norm=batch_norm, bn_epsilon=1e-3)
    found = [layer.numpy() for layer in program.layers(each, x, np.random.default_rng(3))]
    assert len(found) == 4
    generator = np.random.default_rng(3)
    for outputs in found:
        np.testing.assert_allclose(outputs, x, rtol=1e-9, atol=1e-12)
        gain = 2 if activation == "relu" else 1
        x = x @ generator.normal(0, np.sqrt(gain / x.shape[1]), (x.shape[1], 7))
        if batch_norm:
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3)
        if activation == "relu":
            x = np.maximum(x, 0)


def test_a_run_measures_the_images_and_the_chosen_layers(dataset):
    history = program.run(trial(), dataset)
    recorded = history.recorded["ranks"]
    assert recorded["columns"] == ["layer", "rank", "stable_rank"]
    assert [row[:2] for row in recorded["rows"]] == [(0, 0), (0, 1), (0, 2), (0, 3)]
    images = dataset.x_train[np.random.default_rng(5).choice(60, 20, replace=False)] / 255
    values = np.linalg.svd(images.reshape(20, -1), compute_uv=False)
    _, _, rank, stable = recorded["rows"][0]
    assert rank == (values > values[0] / 100).sum()
    assert stable == pytest.approx((values**2).sum() / values[0] ** 2)
