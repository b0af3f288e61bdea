"""`fold` on whole models: nested models, properties of the folded model, large networks."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kerasbn
from kerasbn import folding

from .folded_models import BACKEND, bn, inputs_for, norms_in, outputs, randomized, sequential

only_once = pytest.mark.skipif(BACKEND != "tensorflow", reason="one backend is enough")
pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


def half(t):
    return t / 2


class TestNestedModels:
    def test_functional_and_sequential_in_each_other(self, assert_folds):
        x = keras.Input((5,))
        functional = keras.Model(x, kerasbn.BatchNorm()(layers.Dense(4)(x)), name="functional")
        within = keras.Sequential([keras.Input((5,)), functional, layers.ReLU()], name="within")
        last = keras.Sequential([layers.Dense(3), layers.BatchNormalization()], name="last")
        x = keras.Input((5,))
        model = randomized(keras.Model(x, keras.Sequential([within, last], name="outer")(x)))
        folded = assert_folds(model)
        assert folded.get_layer("outer").get_layer("within").get_layer("functional")
        assert [str(decision) for decision in folding.plan(model)] == [
            f"outer/within/functional/{norms_in(functional)[0].name}: folded into "
            f"outer/within/functional/{functional.layers[1].name}",
            f"outer/last/{last.layers[1].name}: folded into outer/last/{last.layers[0].name}",
        ]

    @pytest.mark.parametrize("functional", [True, False])
    def test_across_their_borders(self, functional, assert_folds, tmp_path):
        def nested(shape, layer):
            model = keras.Sequential([keras.Input(shape), layer])
            return keras.Model(model.inputs[0], model.outputs[0]) if functional else model

        model = keras.Sequential(
            [
                *(keras.Input((5,)), nested((5,), layers.Dense(4)), kerasbn.BatchNorm()),
                *(layers.ReLU(), nested((4,), kerasbn.BatchNorm()), layers.Dense(3)),
            ]
        )
        folded = assert_folds(randomized(model))
        # One of the nested models is empty now.
        folded.save(tmp_path / "folded.keras")
        loaded = keras.models.load_model(tmp_path / "folded.keras")
        x = inputs_for(model)
        np.testing.assert_array_equal(outputs(loaded, x)[0], outputs(folded, x)[0])

    def test_several_inputs_and_outputs_in_dictionaries(self, assert_close):
        a, b = keras.Input((5,), name="a"), keras.Input((4,), name="b")
        y = kerasbn.BatchNorm()(layers.Dense(4)(a))
        inner = keras.Model({"a": a, "b": b}, {"sum": layers.Add()([y, b]), "b": b}, name="inner")
        a, b = keras.Input((5,), name="a"), keras.Input((4,), name="b")
        y = inner({"b": b, "a": a})
        last = kerasbn.BatchNorm(name="last")(layers.Dense(2)(y["sum"]))
        model = randomized(keras.Model({"b": b, "a": a}, {"z": last, "b": y["b"]}))
        folded = kerasbn.fold(model)
        x = {"a": np.ones((2, 5), "float32"), "b": np.full((2, 4), 3.0, "float32")}
        assert not norms_in(folded)
        for key, desired in model(x).items():
            assert_close(folded(x)[key], desired)

    def test_subclassed_ones_stay_and_are_said(self, assert_folds):
        @keras.saving.register_keras_serializable(package="test_folding")
        class Subclassed(keras.Model):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.dense, self.norm = layers.Dense(4), kerasbn.BatchNorm(name="bn")

            def call(self, x, training=None):
                return self.norm(self.dense(x), training=training)

        x = keras.Input((5,))
        y = kerasbn.BatchNorm(name="outside")(layers.Dense(3, name="dense")(x))
        model = randomized(keras.Model(x, Subclassed(name="sub")(y)))
        assert [str(decision) for decision in folding.plan(model)] == [
            "outside: folded into dense",
            "sub/bn: kept: it is inside sub (Subclassed)",
        ]
        assert_folds(model, kept=1)

    def test_with_operations_and_lambdas_in_the_graph(self, assert_folds):
        x = keras.Input((6, 5))
        y = kerasbn.BatchNorm()(layers.Dense(4)(x))
        y = 2.0 * y[:, 1:3] + keras.ops.sin(y[:, ::3]) + np.arange(4, dtype="float32")
        assert_folds(randomized(keras.Model(x, layers.Lambda(lambda t: half(t))(y))))

    def test_a_functional_class_of_its_own_keeps_its_class(self, assert_folds):
        class Trainer(keras.Model):
            def train_step(self, data):
                raise NotImplementedError

        x = keras.Input((5,))
        model = Trainer(x, kerasbn.BatchNorm()(layers.Dense(4)(x)))
        assert type(assert_folds(randomized(model))) is Trainer

    def test_a_functional_class_with_other_arguments_becomes_a_plain_model(self, assert_folds):
        class Network(keras.Model):
            def __init__(self, units):
                x = keras.Input((5,))
                super().__init__(x, kerasbn.BatchNorm()(layers.Dense(units)(x)))
                self.units = units

            def get_config(self):
                return {"units": self.units}

        assert not isinstance(assert_folds(randomized(Network(4))), Network)


class TestTheFoldedModel:
    def model(self, **options):
        options = {"kernel_regularizer": "l2", "kernel_constraint": "max_norm", **options}
        stack = layers.Conv2D(4, 3, name="conv", **options), bn(), layers.ReLU()
        tail = layers.Dropout(0.5, seed=1), layers.Flatten(), layers.Dense(2, name="out")
        return sequential((6, 6, 2), *stack, *tail)

    def test_leaves_the_original_as_it_was(self):
        model = self.model()
        config, weights = model.get_config(), model.get_weights()
        folded = kerasbn.fold(model)
        for weight in folded.weights:
            weight.assign(keras.ops.zeros(weight.shape))
        assert model.get_config() == config
        for actual, desired in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(actual, desired)

    @pytest.mark.parametrize("use_bias", [True, False])
    def test_keeps_regularizers_and_drops_constraints(self, use_bias):
        conv = kerasbn.fold(self.model(use_bias=use_bias)).get_layer("conv")
        assert conv.use_bias
        assert isinstance(conv.kernel_regularizer, keras.regularizers.L2)
        assert conv.kernel_constraint is None

    @pytest.mark.parametrize("back", [True, False])
    def test_activity_regularizer_goes_only_with_the_output_that_it_is_about(self, back):
        dense, norm = layers.Dense(4, activity_regularizer="l2"), kerasbn.BatchNorm()
        folded = kerasbn.fold(sequential((5,), *((dense, norm) if back else (norm, dense))))
        assert (folded.layers[0].activity_regularizer is None) == back

    def test_saves_loads_and_trains(self, tmp_path):
        folded = kerasbn.fold(self.model())
        folded.save(tmp_path / "folded.keras")
        loaded = keras.models.load_model(tmp_path / "folded.keras")
        x = inputs_for(folded, 8)
        np.testing.assert_array_equal(outputs(loaded, x)[0], outputs(folded, x)[0])
        loaded.compile("sgd", "mse")
        before = loaded.get_weights()
        loaded.fit(x[0], np.ones((8, 2)), verbose=0)
        assert all(np.any(a != b) for a, b in zip(before, loaded.get_weights(), strict=True))

    def test_is_not_compiled_even_with_a_loss_that_is_not_registered(self):
        model = self.model()
        model.compile("adam", loss=lambda y, p: keras.ops.mean(p - y))
        assert not kerasbn.fold(model).compiled

    def test_keeps_the_names_of_outputs(self, tmp_path):
        x = keras.Input((5,))
        y = kerasbn.BatchNorm(name="logits")(layers.Dense(3)(x))
        model = randomized(keras.Model(x, [y, layers.Dense(2, name="other")(x)]))
        folded = kerasbn.fold(model)
        assert folded.output_names == model.output_names == ["logits", "other"]
        folded.save(tmp_path / "folded.keras")
        assert keras.models.load_model(tmp_path / "folded.keras").output_names == model.output_names

    def test_keeps_what_is_frozen(self):
        model = self.model()
        inner = keras.Sequential(
            [keras.Input((2,)), layers.Dense(2), layers.Dense(2)], name="inner"
        )
        model.add(inner)
        inner.trainable = False
        inner.layers[1].trainable = True
        folded = kerasbn.fold(model)
        assert len(folded.trainable_weights) == len(model.trainable_weights) - 2
        assert not folded.get_layer("inner").trainable

    @pytest.mark.parametrize(
        ("dtype", "tolerance"),
        [("float64", 1e-6), ("mixed_bfloat16", 2e-2), ("bfloat16", 3e-2), ("mixed_float16", 2e-3)],
    )  # half precision rounds to 2^-9 or 2^-11, a few times
    def test_in_other_precisions(self, dtype, tolerance, assert_folds):
        stack = (
            layers.Dense(4, dtype=dtype),
            kerasbn.BatchNorm(dtype=dtype),
            layers.ReLU(dtype=dtype),
        )
        folded = assert_folds(sequential((5,), *stack), tolerance=tolerance)
        assert folded.layers[0].dtype_policy.name == dtype

    def test_is_computed_in_float64_and_cast_once(self):
        model = sequential((5,), layers.Dense(4), layers.BatchNormalization())
        weights = [np.float64(weight) for weight in model.get_weights()]
        kernel, bias, gamma, beta, mean, variance = weights
        s = gamma / np.sqrt(variance + 1e-3)
        folded = kerasbn.fold(model).get_weights()
        np.testing.assert_array_equal(folded[0], (kernel * s).astype("float32"))
        np.testing.assert_array_equal(folded[1], (s * bias + (beta - s * mean)).astype("float32"))

    @only_once
    def test_keeps_what_preprocessing_layers_have_learned(self, assert_close):
        import tensorflow as tf

        words, numbers = keras.Input((1,), dtype="string"), keras.Input((3,))
        lookup, scale = layers.StringLookup(output_mode="one_hot"), layers.Normalization()
        lookup.adapt(["a", "b", "c"])
        scale.adapt(np.random.default_rng(0).normal(5, 3, (50, 3)))
        y = layers.Concatenate()([lookup(words), scale(numbers)])
        model = keras.Model([words, numbers], kerasbn.BatchNorm()(layers.Dense(4)(y)))
        x = [tf.constant([["b"], ["?"]]), tf.constant([[1.0, 2, 3], [4, 5, 6]])]
        assert_close(kerasbn.fold(randomized(model))(x), model(x))


def lenet():
    """LeNet-5 with batch norm after every layer."""

    def normed(layer):
        return layer, kerasbn.BatchNorm(), layers.Activation("sigmoid")

    return sequential(
        (28, 28, 1),
        *(*normed(layers.Conv2D(6, 5, padding="same")), layers.AveragePooling2D(2)),
        *(*normed(layers.Conv2D(16, 5)), layers.AveragePooling2D(2), layers.Flatten()),
        *(*normed(layers.Dense(120)), *normed(layers.Dense(84)), layers.Dense(10)),
    )


def settled(model, seed=0):
    """Sets statistics close to those of the data, so the outputs depend on every layer.

    Arbitrary statistics would damp the signal from layer to layer. The outputs would be constant,
    and a mistake in the first layers would not show. Variances are one to two times the data's,
    because smaller ones amplify rounding errors until float32 is off by more than 1e-5.
    """
    rng = np.random.default_rng(seed)
    x = inputs_for(model, 16)[0]
    for norm in norms_in(model):
        norm.momentum = 0.0  # the moving averages become the batch's statistics
    model(x, training=True)
    for norm in norms_in(model):
        norm.momentum = 0.99
        variance = np.float64(keras.ops.convert_to_numpy(norm.moving_variance))
        mean = keras.ops.convert_to_numpy(norm.moving_mean)
        offset = 0.3 * rng.normal(size=mean.shape)
        norm.moving_mean.assign(mean + np.sqrt(variance) * offset)
        norm.moving_variance.assign(variance * rng.uniform(1, 2, mean.shape))
        norm.gamma.assign(rng.uniform(0.5, 1.5, mean.shape))
        norm.beta.assign(0.3 * rng.normal(size=mean.shape))
    y = outputs(model, [x])[0]
    assert np.ptp(y, axis=0).max() > 0.01 * np.abs(y).max()
    return model


RANDOM = {"weights": None, "classes": 10, "classifier_activation": None}


class TestNetworks:
    def test_lenet(self, assert_folds):
        model = settled(lenet())
        assert_folds(model)
        assert len(norms_in(model)) == 4

    @only_once
    def test_mobilenet(self, assert_folds):
        model = settled(keras.applications.MobileNetV2(input_shape=(96, 96, 3), **RANDOM))
        assert len(norms_in(model)) == 52
        assert_folds(model)

    @only_once
    @pytest.mark.full
    def test_resnet_converted(self, assert_folds):
        model = keras.applications.ResNet50(input_shape=(64, 64, 3), **RANDOM)
        model = settled(kerasbn.from_keras(model))
        assert [type(norm) for norm in norms_in(model)] == [kerasbn.BatchNorm] * 53
        assert_folds(model)
