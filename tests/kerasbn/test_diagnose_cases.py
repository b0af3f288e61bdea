"""Combinations of options and layers that `diagnose` once misread."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kerasbn
from kerasbn.tools._scores import Scorer

from .broken_models import X, Y, network

pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


def faults(report):
    return [finding.fault for finding in report.findings]


def one_norm(**options):
    return keras.Sequential([keras.Input((6,)), kerasbn.BatchNorm(name="norm", **options)])


@pytest.mark.parametrize("options", [{"momentum": None}, {"debias": True}, {}], ids=str)
def test_averages_without_an_update(options):
    model = one_norm(**options)
    if not options:  # the layer does not count its updates, but the optimizer does
        model.compile("sgd", "mse")
    (finding,) = kerasbn.diagnose(model, X).findings
    assert finding.fault == "lagging averages"
    if options:
        assert finding.sentence.startswith("No training step has updated the moving averages.")
        assert finding.remedy == "kerasbn.recalibrate(model, x_train)"


def test_after_two_updates_no_momentum_is_quick_enough():
    model = one_norm(momentum=0.9)
    model.compile("sgd", "mse")
    for _ in range(2):
        model.train_on_batch(X, X)
    (finding,) = kerasbn.diagnose(model, X).findings
    assert "After 2 updates with momentum 0.9, 81%" in finding.sentence
    assert finding.remedy.endswith("# or train longer")


def test_a_frozen_batch_norm_needs_no_large_batches_and_no_other_dropout():
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dropout(0.5), kerasbn.BatchNorm(name="norm")]
    )
    kerasbn.recalibrate(model, X)
    assert set(faults(kerasbn.diagnose(model, X, batch_size=8))) == {
        "small batches",
        "dropout before norm",
    }
    kerasbn.freeze(model)
    assert faults(kerasbn.diagnose(model, X, batch_size=8)) == []


def test_small_batches_do_not_hide_other_data():
    model = one_norm()
    kerasbn.recalibrate(model, X)
    assert faults(kerasbn.diagnose(model, X, batch_size=8)) == ["small batches"]
    drifted, small = kerasbn.diagnose(model, 255 * X + 100, batch_size=8).findings
    assert drifted.severity == "error"
    assert drifted.fault in ("other statistics", "lagging averages")
    assert small.fault == "small batches"


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_before_a_linear_layer_and_an_activation_is_not_predicted(rate):
    inputs = keras.Input((6,))
    y = layers.ReLU()(layers.Dense(8)(layers.Dropout(rate)(inputs)))
    model = keras.Model(inputs, kerasbn.BatchNorm()(y))
    kerasbn.recalibrate(model, X)
    assert faults(kerasbn.diagnose(model, X)) == []


def test_dropout_of_everything_has_no_ratio():
    model = keras.Sequential([keras.Input((6,)), layers.Dropout(1.0), kerasbn.BatchNorm()])
    kerasbn.recalibrate(model, X)
    assert "dropout before norm" not in faults(kerasbn.diagnose(model, X))


@pytest.mark.parametrize(
    "loss", ["BinaryCrossentropy", "binary_crossentropy", "bce", keras.losses.BinaryCrossentropy()]
)
def test_accuracy_of_several_labels_counts_each_label(loss):
    model = keras.Sequential([keras.Input((3,))])
    model.compile("sgd", loss)
    scorer = Scorer(model)
    p = np.array([[0.9, 0.2, 0.7], [0.1, 0.8, 0.6]], "float32")
    y = np.array([[1, 0, 0], [0, 1, 1]], "float32")
    scorer.add(p, (y,), keras.ops.convert_to_tensor(p))
    assert scorer.scores.accuracy == pytest.approx(5 / 6)


def test_the_text_of_a_report_has_no_colors(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    report = kerasbn.diagnose(network(kerasbn.BatchNorm), (X, Y))
    assert "\x1b" not in str(report)
