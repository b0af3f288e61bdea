"""The predicted ratio against a simulation of dropout, and the recorders against NumPy."""

import numpy as np
import pandas as pd
import pytest
import small_training

from sweeps.harness.data import Dataset
from sweeps.harness.training import recorders
from sweeps.harness.training.estimator import Estimator
from sweeps.harness.training.models import model_fn
from sweeps.variance_shift import ratios

KEEP = 0.6


@pytest.mark.parametrize("keep_rate", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("mean", [0.0, 0.4, -2.0])
def test_the_predicted_ratio_is_that_of_simulated_dropout(keep_rate, mean):
    generator = np.random.default_rng(0)
    x = mean + 0.7 * generator.normal(size=2_000_000)
    dropped = x * (generator.random(len(x)) < keep_rate) / keep_rate
    found = ratios.predicted(mean, 0.7**2, keep_rate)
    assert found == pytest.approx(x.var() / dropped.var(), rel=0.01)


def test_ratios_leave_out_constant_units():
    columns = ["trial_id", "layer", "unit", "mean", "variance", "moving_variance", "test_variance"]
    rows = [("a", 1, 1, 1.0, 2.0, 5.0, 1.5), ("a", 1, 2, 1.0, 0.0, 5.0, 0.0)]
    trials = pd.DataFrame({"trial_id": ["a"], "seed": [4], "keep_rate": [0.5]})
    (unit,) = ratios.of_units(pd.DataFrame(rows, columns=columns), trials).itertuples()
    assert (unit.unit, unit.seed) == (1, 4)
    assert unit.predicted == pytest.approx(2 / (3 / 0.5 - 1))
    assert unit.measured == pytest.approx(0.3)


@pytest.fixture(scope="module")
def dataset():
    images, labels = small_training.images(300)
    return Dataset("custom", images[:200], labels[:200], images[200:], labels[200:], "a test")


def trial(**changes):
    fields = {"hidden_units": (12, 9), "batch_size": 50, "max_steps": 60, "bn_logits": False}
    fields |= {"record": ("variances", "accuracies"), "record_steps": (60,)}
    options = {"keep_rate": KEEP}
    return small_training.trial(
        **fields | changes, program="variance_shift", options=options, stop_at_target=False
    )


@pytest.fixture(scope="module")
def trained(dataset):
    """A network after a few steps, and its recorders."""
    each = trial()
    estimator = Estimator(model_fn, each)
    estimator.initialize(each)
    images, labels = dataset.x_train, dataset.y_train
    for step in range(60):
        chosen = np.arange(50) + 50 * (step % 4)
        estimator.train_steps([(images[chosen], labels[chosen])])
    run = recorders.Run(estimator, each, (images, labels), (dataset.x_test, dataset.y_test))
    return run, recorders.make(run, each.record)


def weights(model):
    return [layer.get_weights() for layer in model.layers if layer.get_weights()]


def forward(model, images, statistics=None):
    """The inputs of each batch norm, and the logits, in NumPy and without dropout.

    statistics: "own" normalizes each batch norm with the statistics of its inputs.
    """
    x, inputs, every = images.reshape(len(images), -1) / 255.0, [], weights(model)
    for (kernel, bias), (gamma, beta, mean, variance) in zip(
        every[0:-1:2], every[1::2], strict=True
    ):
        x = np.maximum(x @ kernel + bias, 0)
        inputs.append(x)
        if statistics == "own":
            mean, variance = x.mean(0), x.var(0)
        x = gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta
    return inputs, x @ every[-1][0] + every[-1][1]


def test_variances_are_those_of_numpy(trained, dataset):
    run, made = trained
    rows = made["variances"].rows(60)
    assert [row[:2] for row in rows] == [(1, n) for n in range(1, 13)] + [
        (2, n) for n in range(1, 10)
    ]
    model = run.estimator.model
    train, _ = forward(model, dataset.x_train)
    test, _ = forward(model, dataset.x_test)
    moving = [values[3] for values in weights(model)[1:-1:2]]
    expected = np.concatenate(
        [
            np.stack([a.mean(0), a.var(0), m, b.var(0)], axis=1)
            for a, b, m in zip(train, test, moving, strict=True)
        ]
    )
    np.testing.assert_allclose([row[2:] for row in rows], expected, rtol=1e-3, atol=1e-5)


def test_accuracies_are_those_of_each_kind_of_inference(trained, dataset):
    run, made = trained
    model = run.estimator.model
    before = weights(model)
    found = dict(made["accuracies"].rows(60))
    labels = dataset.y_test
    _, logits = forward(model, dataset.x_test)
    assert found["moving averages"] == pytest.approx((logits.argmax(1) == labels).mean())
    assert 0.1 <= found["as in training"] <= 1
    for old, new in zip(before, weights(model), strict=True):  # it leaves the network unchanged
        for a, b in zip(old, new, strict=True):
            np.testing.assert_array_equal(a, b)
    again = dict(made["accuracies"].rows(60))
    assert again == found


def test_recalibration_uses_the_training_images_without_dropout(trained, dataset, monkeypatch):
    run, made = trained
    model = run.estimator.model
    recorder = made["accuracies"]
    seen = []

    def accuracy():
        seen.append(weights(model)[1][2:])  # the statistics of the first batch norm
        return 0.5

    monkeypatch.setattr(recorder, "_accuracy", accuracy)
    recorder.rows(60)
    inputs = forward(model, dataset.x_train)[0][0]
    mean, variance = seen[1]
    np.testing.assert_allclose(mean, inputs.mean(0), rtol=1e-3, atol=1e-5)
    groups = inputs.reshape(4, 50, -1)  # the batch's variances, unbiased
    np.testing.assert_allclose(variance, groups.var(1, ddof=1).mean(0), rtol=1e-3, atol=1e-5)
    assert np.abs(seen[0][1] - variance).max() > 0.01  # dropout has left other moving averages


def test_dropout_comes_before_batch_norm_and_depends_on_the_seed(dataset):
    estimator = Estimator(model_fn, trial())
    batch = dataset.x_train[:50], dataset.y_train[:50]
    losses = []
    for seed in (3, 3, 4):
        estimator.initialize(trial(seed=seed))
        losses.append(estimator.train_steps([batch, batch]))
    assert losses[0] == losses[1] != losses[2]
    names = [type(layer).__name__ for layer in estimator.model.layers]
    block = ["Dense", "Activation", "Dropout", "BatchNorm"]
    assert names == ["Rescaling", "Flatten", *block, *block, "Dense"]
    assert estimator.model.layers[4].rate == pytest.approx(1 - KEEP)
