"""`from_keras` and `to_keras` swap every batch norm and change nothing else."""

from __future__ import annotations

import doctest

import keras
import numpy as np
import pytest
from keras import layers

import kerasbn
from kerasbn.tools import conversion

OTHER = {
    layers.BatchNormalization: (kerasbn.BatchNorm, kerasbn.from_keras),
    kerasbn.BatchNorm: (layers.BatchNormalization, kerasbn.to_keras),
}
BACKEND = keras.backend.backend()
# JAX takes half a second to compile a model.
slow_on_jax = [pytest.mark.full] if BACKEND == "jax" else []
KINDS = [layers.BatchNormalization, pytest.param(kerasbn.BatchNorm, marks=slow_on_jax)]
pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


def randomized(model):
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 2.0, weight.shape))
    return model


def count(model, kind):
    return sum(type(layer) is kind for layer in model._flatten_layers())


def values(model):
    return [(w.path.split("/")[-1], keras.ops.convert_to_numpy(w)) for w in model.weights]


def assert_same_weights(model, other):
    for (name, value), (other_name, other_value) in zip(values(model), values(other), strict=True):
        assert name == other_name
        np.testing.assert_array_equal(value, other_value)


def assert_same_outputs(model, other, x, tolerance=0.0):
    for y, other_y in zip(
        *(keras.tree.flatten(m(x, training=False)) for m in (model, other)), strict=True
    ):
        y, other_y = (keras.ops.convert_to_numpy(each) for each in (y, other_y))
        np.testing.assert_allclose(y, other_y, rtol=0, atol=tolerance * np.abs(other_y).max())


@keras.saving.register_keras_serializable(package="test_conversion")
class Block(layers.Layer):
    """A user-defined block that takes its batch norm as an argument."""

    def __init__(self, norm, **kwargs):
        super().__init__(**kwargs)
        self.norm = norm

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x, training=None):
        return self.norm(x, training=training)

    def get_config(self):
        return {**super().get_config(), "norm": keras.saving.serialize_keras_object(self.norm)}

    @classmethod
    def from_config(cls, config):
        norm = keras.saving.deserialize_keras_object(config.pop("norm"))
        return cls(norm, **config)


def model_of(kind):
    """Builds a model with nested, shared and wrapped batch norms and several inputs."""
    tower = keras.Sequential([keras.Input((4,)), layers.Dense(3), kind(epsilon=0.01)], name="tower")
    x = keras.Input((2, 3))
    wrapped = layers.TimeDistributed(keras.Sequential([layers.Dense(3), kind()]), name="wrapped")
    inner = keras.Model(x, Block(kind(momentum=0.5), name="block")(wrapped(x)), name="inner")
    a, b, c = (
        keras.Input((4,), name="a"),
        keras.Input((4,), name="b"),
        keras.Input((2, 3), name="c"),
    )
    shared = kind(scale=False, name="shared")
    y = layers.Concatenate()([shared(tower(b)), shared(tower(a))])
    z = inner(inner(c))[:, 0] * 2.0
    y = layers.Dropout(0.3, seed=1)(kind(renorm=True, renorm_clipping={"rmax": 2.0})(y))
    return randomized(keras.Model([a, b, c], {"y": y, "z": z}, name="whole"))


X = [
    np.random.default_rng(i).normal(size=(5, *shape)).astype("float32")
    for i, shape in enumerate([(4,), (4,), (2, 3)])
]


@pytest.mark.parametrize("kind", KINDS)
class TestBothWays:
    def test_every_batch_norm_at_any_depth_is_swapped(self, kind):
        other, convert = OTHER[kind]
        model = model_of(kind)
        converted = convert(model)
        assert count(model, kind) == count(converted, other) == 5
        assert count(converted, kind) == 0

    def test_outputs_are_the_same(self, kind):
        model = model_of(kind)
        # The two layers do the same arithmetic in a different order.
        assert_same_outputs(OTHER[kind][1](model), model, X, 1e-6)

    def test_weights_and_names_are_kept(self, kind):
        model = model_of(kind)
        converted = OTHER[kind][1](model)
        assert_same_weights(converted, model)
        names = [[layer.name for layer in m._flatten_layers()] for m in (converted, model)]
        assert sorted(names[0]) == sorted(names[1])

    def test_the_way_back_gives_identical_outputs_and_an_identical_config(self, kind):
        other, convert = OTHER[kind]
        model = model_of(kind)
        back = OTHER[other][1](convert(model))
        assert back.get_config() == model.get_config()
        assert_same_outputs(back, model, X)
        assert_same_weights(back, model)

    def test_the_original_is_left_as_it_was(self, kind):
        model = model_of(kind)
        config, weights = model.get_config(), model.get_weights()
        for weight in OTHER[kind][1](model).weights:
            weight.assign(keras.ops.zeros(weight.shape))
        assert model.get_config() == config
        for actual, desired in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(actual, desired)

    def test_shared_layers_stay_shared(self, kind):
        converted = OTHER[kind][1](model_of(kind))
        assert len(converted.weights) == len(model_of(kind).weights)

    def test_trainable_flags_are_kept(self, kind):
        model = model_of(kind)
        model.get_layer("tower").trainable = False
        model.get_layer("tower").layers[0].trainable = True
        model.get_layer("inner").get_layer("wrapped").layer.layers[1].trainable = False
        converted = OTHER[kind][1](model)
        flags = [
            [layer.trainable for layer in sorted(m._flatten_layers(), key=lambda layer: layer.name)]
            for m in (model, converted)
        ]
        assert flags[0] == flags[1]
        assert len(converted.trainable_weights) == len(model.trainable_weights)

    def test_it_saves_loads_and_trains(self, kind, tmp_path):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3), kind()])
        converted = OTHER[kind][1](model)
        converted.save(tmp_path / "converted.keras")
        loaded = keras.models.load_model(tmp_path / "converted.keras")
        assert_same_outputs(loaded, converted, X[0])
        loaded.compile("sgd", "mse")
        loaded.fit(X[0], np.ones((5, 3)), verbose=0)
        assert not np.allclose(*(m.layers[1].get_weights()[2] for m in (loaded, converted)))

    def test_it_is_not_compiled(self, kind):
        model = keras.Sequential([keras.Input((4,)), kind()])
        model.compile("adam", loss=lambda y, p: keras.ops.mean(p - y))
        assert not OTHER[kind][1](model).compiled

    def test_random_generators_go_on_where_they_were(self, kind):
        drop = layers.Dropout(0.5, seed=1)
        model = keras.Sequential([keras.Input((4,)), drop, kind(trainable=False)])
        model(X[0], training=True)
        converted = OTHER[kind][1](model)
        y, other_y = (
            keras.ops.convert_to_numpy(m(X[0], training=True)) for m in (model, converted)
        )
        np.testing.assert_allclose(y, other_y, atol=1e-6)
        assert np.any(y == 0)

    def test_precisions_of_layers_and_models_are_kept(self, kind):
        default = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            model = keras.Sequential([keras.Input((4,)), layers.Dense(3), kind()])
            model = keras.Sequential([keras.Input((4,)), model])
        finally:
            keras.config.set_dtype_policy(default)
        other, convert = OTHER[kind]
        assert OTHER[other][1](convert(model)).get_config() == model.get_config()

    def test_without_one_the_model_comes_back_as_it_is(self, kind):
        model = keras.Sequential([keras.Input((4,)), OTHER[kind][0]()], name="done")
        message = f"Model 'done' has no {kind.__name__} layer and stays unchanged"
        with pytest.warns(UserWarning, match=message):
            assert OTHER[kind][1](model) is model

    def test_not_built(self, kind):
        model = keras.Sequential([layers.Dense(3), kind()], name="raw")
        with pytest.raises(ValueError, match="Received: model 'raw', which has no weights yet"):
            OTHER[kind][1](model)

    def test_subclassed(self, kind):
        class Subclassed(keras.Model):
            def __init__(self):
                super().__init__()
                self.norm = kind()

            def call(self, x):
                return self.norm(x)

        model = Subclassed()
        model(X[0])
        with pytest.raises(ValueError, match="of the class Subclassed, which has its own `call`"):
            OTHER[kind][1](model)

    def test_a_layer_that_makes_its_batch_norm_itself(self, kind):
        class Own(layers.Layer):
            def build(self, shape):
                self.norm = kind(name="hidden")
                self.norm.build(shape)

            def call(self, x):
                return self.norm(x)

        model = keras.Sequential([keras.Input((4,)), Own(name="own")])
        with pytest.raises(ValueError, match=r"Layer 'own' of the class Own makes its .* 'hidden'"):
            OTHER[kind][1](model)


class TestToKeras:
    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"virtual_batch_size": 2}, "virtual_batch_size=2"),
            ({"unbiased_variance": True}, "unbiased_variance=True"),
            ({"debias": True}, "debias=True"),
            ({"momentum": None}, "momentum=None"),
            ({"axis": (1, 2)}, r"axis=\(1, 2\)"),
            ({"debias": True, "momentum": None}, "debias=True, momentum=None"),
        ],
    )
    @pytest.mark.parametrize("wrapped", [True, False])
    def test_options_that_keras_lacks(self, options, named, wrapped):
        norm = kerasbn.BatchNorm(name="bn", **options)
        layer = layers.TimeDistributed(norm) if wrapped else norm
        model = keras.Sequential([keras.Input((3, 4, 4) if wrapped else (4, 4)), layer])
        message = rf"Batch norm 'bn' cannot be converted\. Received: {named}\. keras\.layers\.Batch"
        with pytest.raises(ValueError, match=message):
            kerasbn.to_keras(model)

    def test_one_axis_in_a_tuple_is_one_axis(self):
        model = keras.Sequential([keras.Input((3, 4)), kerasbn.BatchNorm(axis=(1,))])
        assert kerasbn.to_keras(model).layers[0].axis == 1

    def test_a_subclass_is_an_error(self):
        class Mine(kerasbn.BatchNorm):
            pass

        model = keras.Sequential([keras.Input((4,)), kerasbn.BatchNorm(), Mine(name="mine")])
        with pytest.raises(
            ValueError, match="Layer 'mine' is of the class Mine, a subclass of BatchN"
        ):
            kerasbn.to_keras(model)


class TestFromKeras:
    def test_a_subclass_is_left_as_it_is(self):
        class Theirs(layers.BatchNormalization):
            pass

        model = keras.Sequential([keras.Input((4,)), layers.BatchNormalization(), Theirs()])
        assert [type(layer) for layer in kerasbn.from_keras(model).layers] == [
            kerasbn.BatchNorm,
            Theirs,
        ]

    def test_an_option_out_of_range_names_the_layer(self):
        model = keras.Sequential(
            [keras.Input((4,)), layers.BatchNormalization(epsilon=0, name="bn")]
        )
        with pytest.raises(ValueError, match=r"Batch norm 'bn' cannot be converted\..*epsilon=0"):
            kerasbn.from_keras(model)


def test_the_examples_of_the_docstrings():
    results = doctest.testmod(conversion)
    assert results.attempted > 5
    assert results.failed == 0


@pytest.mark.skipif(BACKEND != "tensorflow", reason="one backend is enough for a large network")
def test_mobilenet():
    shape = (96, 96, 3)
    model = keras.applications.MobileNetV2(weights=None, input_shape=shape, classes=10)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 2.0, weight.shape))
    ours = kerasbn.from_keras(model)
    back = kerasbn.to_keras(ours)
    assert count(ours, kerasbn.BatchNorm) == 52
    assert back.get_config() == model.get_config()
    x = rng.normal(size=(2, *shape)).astype("float32")
    assert_same_outputs(back, model, x)
    assert_same_outputs(ours, model, x, 1e-5)
