"""`fold` and the converters reach into `TimeDistributed`, with the same outputs and sharing."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
from keras import layers

import kerasbn
from kerasbn import folding

from .folded_models import BACKEND, norms_in, outputs, randomized

pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


def inputs_for(model):
    """Inputs with 4 steps where the model takes any number."""
    rng = np.random.default_rng(1)
    shapes = [[2, *(size or 4 for size in tensor.shape[1:])] for tensor in model.inputs]
    return [rng.normal(1.0, 2.0, shape).astype("float32") for shape in shapes]


@pytest.fixture
def assert_folds(assert_close, tmp_path):
    """Folds, compares the outputs with the model's and those after loading, counts what is left."""

    def check(model, kept=0, loads=True):
        folded = kerasbn.fold(randomized(model))
        x = inputs_for(model)
        desired = outputs(model, x)
        compared = [folded]
        if loads:
            folded.save(tmp_path / "folded.keras")
            compared.append(keras.models.load_model(tmp_path / "folded.keras"))
        for actual in (outputs(each, x) for each in compared):
            assert len(actual) == len(desired)
            for a, d in zip(actual, desired, strict=True):
                assert_close(a, d, 1e-5)
        assert len(norms_in(folded)) == kept
        assert sum(not decision.into for decision in folding.plan(model)) == kept
        return folded

    return check


def each(layer, **options):
    return layers.TimeDistributed(layer, **options)


def stack(shape, *layers_):
    return keras.Sequential([keras.Input(shape), *layers_])


def block(*layers_):
    return keras.Sequential([*layers_])


def bn(**options):
    return kerasbn.BatchNorm(**options)


FOLDED = {
    "convolution, then batch norm": lambda: stack(
        (3, 6, 5, 2), each(layers.Conv2D(4, 3, padding="same")), each(bn()), each(layers.ReLU())
    ),
    "convolution and batch norm in one": lambda: stack(
        (3, 6, 5, 2), each(block(layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()))
    ),
    "any number of steps": lambda: stack((None, 5), each(layers.Dense(4)), each(bn())),
    "outside, then inside": lambda: stack((3, 5), layers.Dense(4), each(bn())),
    "inside, then outside": lambda: stack((3, 5), each(layers.Dense(4)), bn()),
    "over the steps, then inside": lambda: stack((6, 5), layers.Conv1D(4, 3), each(bn())),
    "forward": lambda: stack((3, 5), each(bn()), each(layers.Dense(4, activation="tanh"))),
    "forward, out": lambda: stack((3, 5), each(bn()), layers.Dense(4)),
    "forward, in": lambda: stack((3, 5), bn(), each(layers.Dense(4))),
    "twice": lambda: stack((2, 3, 5), each(each(layers.Dense(4))), each(each(bn()))),
    "at two depths": lambda: stack((2, 3, 5), each(layers.Dense(4)), each(each(bn()))),
    "the first axis of the layer": lambda: stack((3, 5), each(layers.Dense(4)), each(bn(axis=1))),
    "nested models in it": lambda: stack(
        (3, 5),
        each(block(layers.Dense(4), block(bn(), layers.ReLU()), block(bn(), layers.Dense(2)))),
        layers.ReLU(),
    ),
    "in a nested model": lambda: stack(
        (3, 5), stack((3, 5), each(layers.Dense(4))), block(each(bn()), layers.ReLU())
    ),
    "a model that is left empty": lambda: stack((3, 5), layers.Dense(4), each(block(bn()))),
}
ONCE = ["convolution, then batch norm", "forward, in", "nested models in it"]


class TestWhatIsFolded:
    @pytest.mark.parametrize("case", ONCE if BACKEND == "jax" else FOLDED)
    def test_with_the_same_outputs(self, case, assert_folds):
        assert_folds(FOLDED[case]())

    def test_into_the_weights_of_the_formula(self):
        dense, norm = layers.Dense(4), bn()
        model = randomized(stack((3, 5), each(dense), each(norm)))
        kernel, bias = map(np.float64, dense.get_weights())
        gamma, beta, mean, variance = map(np.float64, norm.get_weights())
        s = gamma / np.sqrt(variance + 1e-3)
        folded = kerasbn.fold(model).layers[0].layer.get_weights()
        np.testing.assert_allclose(folded[0], kernel * s, rtol=1e-6)
        np.testing.assert_allclose(folded[1], s * (bias - mean) + beta, rtol=1e-5)

    @pytest.mark.parametrize("inside", [True, False])
    def test_channels_first(self, inside, assert_folds):
        conv = layers.Conv2D(4, 3, data_format="channels_first")
        model = stack((3, 2, 5, 5), each(conv), each(bn(axis=1)) if inside else bn(axis=2))
        assert [bool(decision.into) for decision in folding.plan(model)] == [True]
        if BACKEND != "tensorflow":  # which has no such convolution on a processor
            assert_folds(model)

    def test_paths_name_the_wrapper_and_the_layer_inside(self):
        model = stack(
            (3, 5),
            each(layers.Dense(4, name="dense"), name="each_dense"),
            each(block(bn(name="bn"), layers.ReLU()), name="rest"),
        )
        name = model.layers[1].layer.name
        assert [str(decision) for decision in folding.plan(model)] == [
            f"rest/{name}/bn: folded into each_dense/dense"
        ]

    def test_past_masks(self, assert_folds, assert_close):
        x = keras.Input((4, 5))
        y = each(bn())(each(layers.Dense(3))(layers.Masking()(x)))
        model = keras.Model(x, layers.GlobalAveragePooling1D()(y))
        folded = assert_folds(model)
        masked = inputs_for(model)[0]
        masked[:, 2:] = 0.0
        assert_close(outputs(folded, [masked])[0], outputs(model, [masked])[0])

    def test_outputs_keep_their_names(self, assert_folds):
        x = keras.Input((3, 5))
        y = each(bn(), name="logits")(each(layers.Dense(4))(x))
        folded = assert_folds(keras.Model(x, [y, layers.Dense(2, name="other")(x)]))
        assert folded.output_names == ["logits", "other"]

    def test_frozen_ones_stay_frozen(self, assert_folds):
        frozen = each(block(layers.Dense(4), bn(), layers.Dense(4)), name="frozen")
        model = stack((3, 5), frozen, layers.Dense(2))
        frozen.trainable = False
        frozen.layer.layers[2].trainable = True
        folded = assert_folds(model)
        assert [len(m.trainable_weights) for m in (model, folded)] == [4, 4]
        assert not folded.get_layer("frozen").trainable


class TestSharedLayers:
    def two_uses(self, norm_after_both):
        x, steps = keras.Input((5,)), keras.Input((3, 5))
        dense, norm = layers.Dense(4, name="dense"), bn(name="bn")
        alone = dense(x)
        alone = norm(alone) if norm_after_both else layers.ReLU(name="relu")(alone)
        return keras.Model([x, steps], [layers.ReLU()(alone), each(norm)(each(dense)(steps))])

    def test_inside_and_outside(self, assert_folds):
        folded = assert_folds(self.two_uses(norm_after_both=True))
        dense = [each for each in folded._flatten_layers() if isinstance(each, layers.Dense)]
        assert len(dense) == 1

    def test_inside_with_a_batch_norm_and_outside_without(self, assert_folds):
        model = self.two_uses(norm_after_both=False)
        assert "dense (Dense) also feeds relu (ReLU)" in str(folding.plan(model)[0])
        folded = assert_folds(model, kept=1)
        assert len(folded.weights) == len(model.weights)

    def test_a_model_in_two_of_them(self, assert_folds):
        tower = block(layers.Dense(4), bn(), layers.ReLU())
        a, b = keras.Input((3, 5)), keras.Input((2, 5))
        model = keras.Model([a, b], [each(tower)(a), each(tower)(b)])
        folded = assert_folds(model, loads=False)  # Keras cannot load such a model, folded or not
        assert len(folded.weights) == 2

    @pytest.mark.parametrize(
        ("kind", "convert"),
        [(layers.BatchNormalization, kerasbn.from_keras), (kerasbn.BatchNorm, kerasbn.to_keras)],
    )
    def test_stay_shared_when_converted(self, kind, convert, assert_close):
        x, steps = keras.Input((5,)), keras.Input((3, 5))
        tower = block(layers.Dense(4), kind())
        model = randomized(keras.Model([x, steps], [tower(x), each(tower)(steps)]))
        converted = convert(model)
        assert len(converted.weights) == len(model.weights) == 6
        given = inputs_for(model)
        for actual, desired in zip(outputs(converted, given), outputs(model, given), strict=True):
            assert_close(actual, desired)


@keras.saving.register_keras_serializable(package="test_folding_time_distributed")
class Reversed(layers.TimeDistributed):
    """A subclass that computes something else."""

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs[:, ::-1], training=training, mask=mask)


@keras.saving.register_keras_serializable(package="test_folding_time_distributed")
class Cell(layers.Layer):
    """A cell of an RNN with a batch norm."""

    state_size = output_size = 4

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.norm = layers.Dense(4), kerasbn.BatchNorm(name="bn")

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build((None, 4))

    def call(self, x, states, training=None):
        y = self.norm(self.dense(x), training=training) + states[0]
        return y, [y]


def _training():
    x = keras.Input((3, 5))
    return keras.Model(x, each(bn(name="bn"), name="each")(layers.Dense(4)(x), training=True))


KEPT = {
    "another axis": (
        lambda: stack((3, 6, 5), each(layers.Dense(4, name="dense")), each(bn(axis=1))),
        r"dense \(Dense\) has its channels on axis 3, not 2",
    ),
    "the axis of the steps": (
        lambda: stack((3, 5), each(layers.Dense(4, name="dense")), bn(axis=1)),
        r"dense \(Dense\) has its channels on axis 2, not 1",
    ),
    "the same axis at another depth": (
        lambda: stack(
            (2, 4, 5, 6), layers.Conv3D(2, 1, data_format="channels_first"), each(bn(axis=1))
        ),
        r"has its channels on axis 1, not 2",
    ),
    "an activation": (
        lambda: stack((3, 5), each(layers.Dense(4, activation="relu", name="dense")), each(bn())),
        r"dense \(Dense\) applies relu",
    ),
    "another precision": (
        lambda: stack((3, 5), each(layers.Dense(4, name="dense")), each(bn(), dtype="bfloat16")),
        r"computes in float32 from float32 in a TimeDistributed of bfloat16 and float32",
    ),
    "training=True": (_training, "it is called with training=True"),
    "a subclass of TimeDistributed": (
        lambda: stack((3, 5), layers.Dense(4), Reversed(bn(name="bn"), name="each")),
        r"each/bn: kept: it is inside each \(Reversed\)",
    ),
    "Bidirectional": (
        lambda: stack((3, 5), layers.Bidirectional(layers.RNN(Cell()), name="both")),
        r"both/bn: kept: it is inside both \(Bidirectional\)",
    ),
    "Bidirectional in it": (
        lambda: stack((2, 3, 5), each(layers.Bidirectional(layers.RNN(Cell()), name="both"))),
        r"/both/bn: kept: it is inside [a-z_0-9]+/both \(Bidirectional\)",
    ),
}


class TestWhatIsKept:
    @pytest.mark.parametrize("case", KEPT)
    def test_and_why(self, case, assert_folds):
        build, reason = KEPT[case]
        model = build()
        decisions = folding.plan(model)
        assert not any(decision.into for decision in decisions)
        assert re.search(reason, str(decisions[0])), str(decisions[0])
        if case == "an activation":
            assert_folds(model, kept=1)

    def test_next_to_one_that_is_folded(self, assert_folds):
        both = layers.Bidirectional(layers.RNN(Cell(), return_sequences=True, unroll=True))
        assert_folds(stack((3, 5), each(layers.Dense(4)), each(bn()), both), kept=2)
