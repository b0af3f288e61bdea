"""Recorders against NumPy, Keras and the network's own run, and that they disturb none."""

import keras
import numpy as np
import pytest
import small_training
import tensorflow as tf

from sweeps.harness.engine.runner import batches
from sweeps.harness.training import recorders
from sweeps.harness.training.estimator import (
    Estimator,
    EvalSpec,
    RecordSpec,
    TestSet,
    TrainSpec,
    train_and_evaluate,
)
from sweeps.harness.training.models import model_fn
from sweeps.harness.training.recorders import base

IMAGES, LABELS = small_training.images(400)
TRAIN, TEST = (IMAGES[:300], LABELS[:300]), (IMAGES[300:], LABELS[300:])


def trial(**changes):
    fields = {
        "hidden_units": (20, 12),
        "bn_momentum": 0.0,
        "max_steps": 10,
        "target_accuracy": 1.0,
        "curve_every": 1,
        "stop_at_target": False,
    }
    return small_training.trial(**fields | changes)


def run(trial, *, record=(), steps=()):
    """History and estimator after a run with these recorders."""
    estimator = Estimator(model_fn, trial)
    estimator.initialize(trial)
    made = recorders.make(recorders.Run(estimator, trial, TRAIN, TEST), record)
    history = train_and_evaluate(
        estimator,
        TrainSpec(lambda: batches(*TRAIN, 50, trial.seed), trial.max_steps),
        EvalSpec(lambda: TestSet(*TEST), 1, 1.0, False, 1),
        RecordSpec(made, steps),
    )
    return history, estimator


@pytest.fixture(scope="module")
def recorded():
    names = ("evaluation", "histograms", "percentiles", "gradients", "statistics")
    return run(trial(), record=names, steps=(0, 4, 10))


def last(recorded, name):
    """The rows of the last step, without it."""
    rows = recorded[0].recorded[name]["rows"]
    return [row[1:] for row in rows if row[0] == 10]


def training_mode(model):
    """Outputs of all layers for the test images, normalized by their own statistics, in NumPy."""
    x, outputs = TEST[0].reshape(100, -1) / 255.0, {}
    for layer in model.layers[2:]:
        if isinstance(layer, keras.layers.Dense):
            x = x @ layer.kernel.numpy() + layer.bias.numpy()
        elif isinstance(layer, keras.layers.Activation):
            x = np.maximum(x, 0)
        else:
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3)
            x = x * layer.gamma.numpy() + layer.beta.numpy()
        outputs[layer.name] = x
    return outputs


def test_nothing_of_a_run_depends_on_what_is_recorded(recorded):
    assert run(trial())[0].curve == recorded[0].curve


def test_they_look_after_the_steps_that_were_asked_for(recorded):
    for table in recorded[0].recorded.values():
        assert list(dict.fromkeys(row[0] for row in table["rows"])) == [0, 4, 10]
        assert {len(row) for row in table["rows"]} == {1 + len(table["columns"])}


def test_evaluation_is_that_of_keras(recorded):
    model = recorded[1].model
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=["accuracy"])
    for (name, count, *found), data in zip(
        last(recorded, "evaluation"), (TRAIN, TEST), strict=True
    ):
        assert (name, count) == ({300: "train", 100: "test"}[len(data[1])], len(data[1]))
        np.testing.assert_allclose(found, model.evaluate(*data, verbose=0), rtol=1e-5)


def test_evaluation_weighs_its_parts_by_their_size(monkeypatch):
    whole = run(trial(max_steps=1), record=("evaluation",), steps=(1,))
    monkeypatch.setattr(base, "_AT_ONCE", 70)
    parts = run(trial(max_steps=1), record=("evaluation",), steps=(1,))
    for one, other in zip(
        *(each[0].recorded["evaluation"]["rows"] for each in (whole, parts)), strict=True
    ):
        np.testing.assert_allclose(one[2:], other[2:], rtol=1e-5)


def test_histograms_are_those_of_the_tensors(recorded):
    outputs = training_mode(recorded[1].model)
    activations = [v for k, v in outputs.items() if k.startswith("activation")]
    norms = [v for k, v in outputs.items() if k.startswith("batch_norm")][:2]
    found = last(recorded, "histograms")
    assert [row[:2] for row in found] == [
        *[(layer, "pre_activation") for layer in (1, 2)],
        *[(layer, "activation") for layer in (1, 2)],
    ]
    for (_, _, low, high, counts), values in zip(found, [*norms, *activations], strict=True):
        np.testing.assert_allclose([low, high], [values.min(), values.max()], atol=1e-4)
        counts = np.array(counts.split("-"), int)
        assert counts.sum() == values.size
        expected, _ = np.histogram(values, 40, (low, high))
        assert np.abs(counts - expected).sum() <= 0.02 * values.size  # rounding at the edges


def test_percentiles_are_those_of_the_last_pre_activations(recorded):
    outputs = training_mode(recorded[1].model)
    values = [v for k, v in outputs.items() if k.startswith("batch_norm")][1]
    expected = np.percentile(values, [15, 50, 85], axis=0).T[:10]
    found = last(recorded, "percentiles")
    assert [unit for unit, *_ in found] == list(range(1, 11))
    np.testing.assert_allclose([row[1:] for row in found], expected, atol=1e-4)


def test_gradients_are_the_derivatives_of_the_loss(recorded):
    """By layers written out once more, and TensorFlow's tape on them in float64."""
    model = recorded[1].model
    weights = [tf.constant(w.numpy(), tf.float64) for w in model.trainable_variables]
    x = tf.constant(TEST[0].reshape(100, -1) / 255.0)

    def normed(x, kernel, bias, gamma, beta):
        x = x @ kernel + bias
        mean, variance = tf.nn.moments(x, 0)
        return (x - mean) / tf.sqrt(variance + 1e-3) * gamma + beta

    with tf.GradientTape() as tape:
        one = tf.nn.relu(normed(x, *weights[:4]))
        tape.watch(one)
        two = tf.nn.relu(normed(one, *weights[4:8]))
        logits = normed(two, *weights[8:])
        labels = TEST[1].astype(np.int64)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    gradients = tape.gradient(loss, [one, two])
    expected = [
        (n, np.sqrt((g.numpy() ** 2).sum()), h.numpy().mean(), h.numpy().std())
        for n, (g, h) in enumerate(zip(gradients, (one, two), strict=True), 1)
    ]
    np.testing.assert_allclose(last(recorded, "gradients"), expected, rtol=1e-3)


@pytest.mark.parametrize("momentum", [0.5, 0.9, 0.99])
def test_statistics_are_those_of_a_run_with_that_momentum(recorded, momentum):
    history, _ = run(trial(bn_momentum=momentum))
    found = {
        step: accuracy
        for step, name, accuracy in recorded[0].recorded["statistics"]["rows"]
        if name == f"momentum {momentum}"
    }
    for step in (4, 10):
        assert found[step] == pytest.approx(history.curve[step - 1][2], abs=1e-6)


def test_statistics_have_the_eight_kinds_and_start_anew_with_each_run():
    made = trial(max_steps=4)
    estimator = Estimator(model_fn, made)
    both = recorders.make(recorders.Run(estimator, made, TRAIN, TEST), ("statistics",))
    rows = []
    for _ in range(2):
        estimator.initialize(made)
        history = train_and_evaluate(
            estimator,
            TrainSpec(lambda: batches(*TRAIN, 50, 3), 4),
            EvalSpec(lambda: TestSet(*TEST), 1, 1.0, False),
            RecordSpec(both, (4,)),
        )
        rows.append(history.recorded["statistics"]["rows"])
    assert rows[0] == rows[1]
    assert [name for _, name, _ in rows[0]] == [
        *["momentum 0.5", "momentum 0.9", "momentum 0.99", "momentum 0.999"],
        *["momentum 0.99, debiased", "cumulative", "recalibrated", "batch"],
    ]


def test_statistics_of_the_batch_are_its_own(recorded):
    logits = list(training_mode(recorded[1].model).values())[-1]
    # Batches of 50, not of the 100 test images at once: nearly, not quite the same.
    expected = (logits.argmax(-1) == TEST[1]).mean()
    assert dict(last(recorded, "statistics"))["batch"] == pytest.approx(expected, abs=0.05)


def test_statistics_need_momentum_zero():
    made = trial(bn_momentum=0.9)
    estimator = Estimator(model_fn, made)
    with pytest.raises(ValueError, match="momentum 0"):
        recorders.make(recorders.Run(estimator, made, TRAIN, TEST), ("statistics",))


def test_predictions_come_after_the_last_step_by_x():
    x = np.linspace(3, -3, 60, dtype=np.float32)[:, None]
    made = trial(
        architecture="regression", target_accuracy=None, hidden_units=(5,), bn_logits=False
    )
    estimator = Estimator(model_fn, made)
    (recorder,) = recorders.make(
        recorders.Run(estimator, made, (x, x**2), (x, x**2)), ("predictions",)
    ).values()
    assert recorder.rows(9) == []
    found = np.array(recorder.rows(10))
    np.testing.assert_allclose(found[:, 0], x[::-1, 0])
    np.testing.assert_allclose(found[:, 1], x[::-1, 0] ** 2, rtol=1e-6)
    expected = estimator.model.predict(x[::-1], verbose=0)[:, 0]
    np.testing.assert_allclose(found[:, 2], expected, rtol=1e-5)
