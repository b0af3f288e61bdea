"""`diagnose` on models of every kind, and on data of every kind."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kerasbn

from .broken_models import KINDS, TOKENS, X, Y, healthy, network, trained

pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


def faults(report):
    return [(finding.fault, finding.layer) for finding in report.findings]


class Block(layers.Layer):
    """A custom layer with a dense layer and a batch norm. No graph shows them."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(5)
        self.norm = kerasbn.BatchNorm(name="inside")

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build((None, 5))

    def call(self, x, training=None):
        return self.norm(self.dense(x), training=training)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.block = Block(name="block")
        self.unused = kerasbn.BatchNorm(name="unused")
        self.unused.build((None, 5))

    def call(self, x, training=None):
        return self.block(x, training=training)


class TestModels:
    def test_subclassed(self):
        model = Subclassed()
        model(X)
        report = kerasbn.diagnose(model, 9 * X)
        assert faults(report) == [("lagging averages", "inside")]
        assert report.notes == (
            "The layers before 'inside' are in Python code and not in a graph, so dropout and "
            "biases before them were not looked for.",
            "'unused' was not called, and was not examined.",
        )

    def test_nested_models_name_layers_by_their_path(self):
        base = keras.Sequential(
            [keras.Input((6,)), layers.Dense(4), kerasbn.BatchNorm(name="norm")], name="base"
        )
        inputs = keras.Input((6,))
        model = keras.Model(inputs, kerasbn.BatchNorm(name="norm")(base(inputs)))
        kerasbn.recalibrate(model, X)
        report = kerasbn.diagnose(model, X)
        assert [layer.layer for layer in report.layers] == ["base/norm", "norm"]
        assert faults(report) == [("useless bias", "base/norm")]

    def test_two_outputs_and_a_regression_loss(self):
        inputs = keras.Input((6,))
        norm = kerasbn.BatchNorm()(inputs)
        model = keras.Model(inputs, [layers.Dense(1)(norm), layers.Dense(2)(norm)])
        model.compile("sgd", ["mse", "mse"])
        y = [X[:, :1], X[:, :2]]
        report = kerasbn.diagnose(model, (X, y))
        assert report.inference.loss == pytest.approx(
            model.evaluate(X, y, verbose=0, return_dict=True)["loss"], rel=1e-5
        )
        assert report.inference.accuracy is None
        assert report.summary.startswith("Loss is")

    def test_a_mask_that_arrives(self):
        model = keras.Sequential(
            [
                keras.Input((10,), dtype="int32"),
                layers.Embedding(9, 5, mask_zero=True),
                kerasbn.BatchNorm(name="norm"),
            ]
        )
        kerasbn.recalibrate(model, TOKENS)
        report = kerasbn.diagnose(model, TOKENS)
        assert faults(report) == []
        assert report.layers[0].values_per_batch < 32 * 10

    def test_an_rnn_with_a_batch_norm_in_its_cell(self):
        class Cell(layers.Layer):
            state_size = output_size = 6

            def __init__(self):
                super().__init__()
                self.norm = kerasbn.BatchNorm(name="norm")

            def build(self, shape):
                self.norm.build((None, 6))

            def call(self, x, states, training=None):
                y = self.norm(x + states[0], training=training)
                return y, [y]

        model = keras.Sequential([keras.Input((4, 6)), layers.RNN(Cell())])
        report = kerasbn.diagnose(model, np.reshape(X, (128, 4, 6)))
        assert report.layers[0].calls == 4
        assert faults(report) == [("lagging averages", "norm")]

    def test_convolutions_with_channels_and_pooling(self):
        model = keras.Sequential(
            [
                keras.Input((8, 8, 2)),
                layers.Conv2D(4, 3, use_bias=False),
                layers.BatchNormalization(name="a"),
                layers.MaxPooling2D(),
                layers.Dropout(0.5, name="drop"),
                layers.Conv2D(4, 3, use_bias=False, name="conv"),
                kerasbn.BatchNorm(name="b"),
            ]
        )
        x = np.random.default_rng(0).normal(1, 2, (256, 8, 8, 2))
        kerasbn.recalibrate(model, x)
        report = kerasbn.diagnose(model, x)
        assert faults(report) == [("dropout before norm", "b")]
        assert [layer.values_per_batch for layer in report.layers] == [32 * 36, 32]

    def test_two_faults_of_one_layer(self):
        drop = layers.Dropout(0.6, name="drop", seed=1)
        second = kerasbn.BatchNorm(name="second", momentum=0.999)
        model = trained(network(kerasbn.BatchNorm, second, before_second=[drop]), 20)
        assert faults(kerasbn.diagnose(model, X, batch_size=64)) == [
            ("lagging averages", "second"),
            ("dropout before norm", "second"),
        ]

    def test_statistics_batch_is_named(self):
        model = healthy(kerasbn.BatchNorm)
        model.get_layer("second").statistics = "batch"
        assert faults(kerasbn.diagnose(model, X)) == [("batch statistics in inference", "second")]

    def test_frozen_norms_on_their_own_data_are_healthy(self):
        model = healthy(kerasbn.BatchNorm)
        model.trainable = False
        report = kerasbn.diagnose(model, X)
        assert faults(report) == []
        assert [layer.frozen for layer in report.layers] == ["trainable=False"] * 2

    def test_a_norm_of_a_class_with_its_own_call(self):
        class Doubled(kerasbn.BatchNorm):
            def call(self, inputs, **kwargs):
                return 2 * super().call(inputs, **kwargs)

        model = keras.Sequential([keras.Input((6,)), Doubled(name="own"), kerasbn.BatchNorm()])
        assert "'own' overrides `call`, and was not examined." in kerasbn.diagnose(model, X).notes
        with pytest.raises(ValueError, match="each batch norm overrides it"):
            kerasbn.diagnose(keras.Sequential([keras.Input((6,)), Doubled()]), X)


class TestData:
    @pytest.mark.parametrize("kind", KINDS)
    def test_nan_in_a_batch_is_left_out_and_reported(self, kind):
        x = X.copy()
        x[70, 3] = np.nan
        report = kerasbn.diagnose(healthy(kind), (x, Y), batch_size=64)
        assert faults(report) == [("data not finite", None)]
        assert report.batches == 7
        assert "in batch 1 of the data." in report.findings[0].sentence

    def test_nan_everywhere(self):
        with pytest.raises(ValueError, match=r"NaN or infinity in each of the 16 batches"):
            kerasbn.diagnose(healthy(kerasbn.BatchNorm), np.full_like(X, np.nan))

    def test_weights_that_are_not_finite_are_found_where_they_do_harm_first(self):
        model = network(kerasbn.BatchNorm, bias=True)
        kerasbn.recalibrate(model, X)
        model.get_layer("dense").bias.assign(np.full(16, np.nan))
        report = kerasbn.diagnose(model, X)
        assert faults(report) == [("inputs not finite", "second")]

    def test_a_generator_is_read_once(self):
        batches = ((X[i : i + 64], Y[i : i + 64]) for i in range(0, 512, 64))
        report = kerasbn.diagnose(network(kerasbn.BatchNorm), batches)
        assert ("lagging averages", "first") in faults(report)
        assert report.recalibrated is None
        assert report.passes == 2
        assert report.gap > 0
        assert report.notes[0].startswith("The data can be read only once")
        assert report.summary.startswith("Batch statistics change the outputs by")

    def test_batches_of_one_value(self):
        report = kerasbn.diagnose(healthy(kerasbn.BatchNorm), X[:20], batch_size=1)
        assert faults(report)[0] == ("small batches", "first")

    def test_steps(self):
        assert kerasbn.diagnose(healthy(kerasbn.BatchNorm), X, steps=3).batches == 3

    def test_labels_that_do_not_fit_are_no_error(self):
        report = kerasbn.diagnose(healthy(kerasbn.BatchNorm), (X, np.ones((512, 3))))
        assert report.inference.loss is None
        assert any("The loss could not be computed" in note for note in report.notes)


class TestBadInput:
    def test_no_batch_norm(self):
        model = keras.Sequential([keras.Input((6,)), layers.Dense(2)], name="plain")
        with pytest.raises(ValueError, match=r"Received: model 'plain' without any"):
            kerasbn.diagnose(model, X)

    def test_not_built(self):
        model = keras.Sequential([layers.Dense(2), kerasbn.BatchNorm()], name="raw")
        with pytest.raises(ValueError, match=r"Expected a built model. Received: model 'raw'"):
            kerasbn.diagnose(model, X)

    @pytest.mark.parametrize("data", [[], iter([])])
    def test_no_data(self, data):
        with pytest.raises(ValueError, match=r"Expected at least 1 batch. Received: none"):
            kerasbn.diagnose(healthy(kerasbn.BatchNorm), data)

    def test_data_of_another_shape(self):
        with pytest.raises(ValueError, match=r"Batch 0 does not fit model 'classifier'"):
            kerasbn.diagnose(healthy(kerasbn.BatchNorm), X[:, :5])

    def test_targets_of_another_length(self):
        with pytest.raises(ValueError, match=r"equally many examples"):
            kerasbn.diagnose(healthy(kerasbn.BatchNorm), (X, Y[:100]))

    def test_an_option_that_does_not_exist(self):
        with pytest.raises(TypeError, match="momentum"):
            kerasbn.diagnose(healthy(kerasbn.BatchNorm), X, momentum=0.9)

    def test_a_layer_in_place_of_a_model(self):
        with pytest.raises(ValueError, match=r"Put a single layer into keras\.Sequential"):
            kerasbn.diagnose(kerasbn.BatchNorm(), X)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="reads a SavedModel")
@pytest.mark.parametrize("kind", KINDS)
def test_an_export_obeys_training_true_in_the_graph_and_predict_does_not(kind, tmp_path):
    """The finding says so. Keras's `model.export` calls the model without a mode."""
    import tensorflow as tf

    inputs = keras.Input((6,))
    model = keras.Model(inputs, kind(epsilon=1e-6)(inputs, training=True))
    model.export(tmp_path, verbose=False)
    loaded = tf.saved_model.load(tmp_path)
    np.testing.assert_allclose(loaded.serve(X).numpy().std(0), 1, rtol=1e-3)
    np.testing.assert_allclose(model.predict(X, verbose=0), X, rtol=1e-4)
