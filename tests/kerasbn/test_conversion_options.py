"""`from_keras(model, where=..., **options)`: options, the layers that get them, and new weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kerasbn
from kerasbn import BatchNorm
from kerasbn.tools import batch_norms

pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")
KERAS = layers.BatchNormalization
RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, (6, 5, 4)).astype("float32")


@keras.saving.register_keras_serializable(package="test_conversion_options")
class Pair(layers.Layer):
    """A custom layer that takes two batch norms as arguments."""

    def __init__(self, first, second, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = first, second

    def build(self, shape):
        self.first.build(shape)
        self.second.build(shape)

    def call(self, x, training=None):
        return self.second(self.first(x, training=training), training=training)

    def get_config(self):
        first, second = map(keras.saving.serialize_keras_object, (self.first, self.second))
        return {**super().get_config(), "first": first, "second": second}

    @classmethod
    def from_config(cls, config):
        first, second = (
            keras.saving.deserialize_keras_object(config.pop(name)) for name in ("first", "second")
        )
        return cls(first, second, **config)


def network(kind=KERAS, second="d", **options):
    """A model with batch norms a to d: alone, in a nested model, and in a custom layer."""
    model = keras.Sequential(
        [
            keras.Input((5, 4)),
            kind(name="a", **options),
            keras.Sequential([keras.Input((5, 4)), layers.Dense(3), kind(name="b", **options)]),
            Pair(kind(name="c", **options), kind(name=second, **options), name="pair"),
        ]
    )
    for weight in model.weights:
        weight.assign(RNG.uniform(0.5, 2.0, weight.shape))
    return model


def values(layer):
    return {w.name: np.array(keras.ops.convert_to_numpy(w)) for w in layer.weights}


def predicted(model):
    return model.predict(X, verbose=0)


@pytest.mark.parametrize("kind", [KERAS, BatchNorm])
def test_every_batch_norm_gets_the_options_and_keeps_the_others(kind, assert_close):
    model = network(kind, epsilon=0.01)
    converted = kerasbn.from_keras(model, momentum=0.9, virtual_batch_size=3, statistics="frozen")
    assert sorted(norm.name for norm in batch_norms(converted)) == list("abcd")
    for old, norm in zip(batch_norms(model), batch_norms(converted), strict=True):
        assert type(norm) is BatchNorm
        assert norm is not old
        assert (norm.momentum, norm.virtual_batch_size, norm.statistics) == (0.9, 3, "frozen")
        assert (norm.epsilon, old.momentum) == (0.01, 0.99)
        np.testing.assert_equal(values(norm), values(old))
    assert_close(predicted(converted), predicted(model))


def test_without_options_a_batch_norm_stays_as_it_is():
    model = keras.Sequential([keras.Input((4,)), BatchNorm(momentum=0.5, debias=True), KERAS()])
    norms = batch_norms(kerasbn.from_keras(model))
    assert [type(norm) for norm in norms] == [BatchNorm, BatchNorm]
    assert norms[0].get_config() == model.layers[0].get_config()


@pytest.mark.parametrize("kind", [KERAS, BatchNorm])
@pytest.mark.parametrize("names", ["a", "b", "c", "bd"])
def test_where(kind, names, assert_close):
    model = network(kind)
    converted = kerasbn.from_keras(model, debias=True, where=lambda layer: layer.name in names)
    for norm in batch_norms(converted):
        assert type(norm) is (BatchNorm if norm.name in names else kind)
        assert getattr(norm, "debias", False) == (norm.name in names)
    assert_close(predicted(converted), predicted(model))


def test_where_gets_each_old_layer_once():
    model = network()
    seen = []
    kerasbn.from_keras(model, where=lambda layer: seen.append(layer) or True)
    assert list(map(id, seen)) == list(map(id, batch_norms(model)))


def test_a_subclass_stays():
    class Mine(BatchNorm):
        pass

    model = keras.Sequential([keras.Input((4,)), Mine(), KERAS()])
    norms = batch_norms(kerasbn.from_keras(model, momentum=0.5))
    assert [(type(norm), norm.momentum) for norm in norms] == [(Mine, 0.99), (BatchNorm, 0.5)]


def one_norm(kind=KERAS, **options):
    model = keras.Sequential([keras.Input((5, 4)), kind(name="bn", **options)])
    averages = {"moving_mean": [1.0, 2, 3, 4], "moving_variance": [0.5, 1, 2, 4]}
    for weight in model.weights:
        weight.assign(averages.get(weight.name, weight.value))
    return model


BATCH_MEAN, BATCH_VARIANCE = (np.float64(X).reshape(-1, 4).mean(0), np.float64(X).var((0, 1)))


class TestWeights:
    def test_momentum_applies_to_the_old_averages(self, run, assert_close):
        norm = kerasbn.from_keras(one_norm(), momentum=0.75).get_layer("bn")
        run(norm, X)
        assert_close(norm.moving_mean, 0.75 * np.arange(1, 5) + 0.25 * BATCH_MEAN)

    @pytest.mark.parametrize("options", [{"debias": True}, {"momentum": None}], ids=str)
    def test_a_new_count_replaces_the_averages(self, run, assert_close, options):
        model = one_norm()
        converted = kerasbn.from_keras(model, **options)
        norm = converted.get_layer("bn")
        assert not values(norm)["update_count"].any()
        assert_close(predicted(converted), predicted(model))
        run(norm, X)
        assert_close(norm.moving_mean, BATCH_MEAN)
        assert_close(norm.moving_variance, BATCH_VARIANCE)

    @pytest.mark.parametrize("kind", [KERAS, BatchNorm])
    def test_renorm_starts_with_the_old_averages(self, run, assert_close, kind):
        model = one_norm(kind)
        norm = kerasbn.from_keras(model, renorm=True, momentum=0.75).get_layer("bn")
        stddev = np.sqrt(np.array([0.5, 1, 2, 4]) + 1e-3)
        assert_close(norm.renorm_mean, np.arange(1.0, 5))
        assert_close(norm.renorm_stddev, stddev)
        run(norm, X)
        moved = 0.75 * stddev + 0.25 * np.sqrt(BATCH_VARIANCE + 1e-3)
        assert_close(norm.moving_variance, moved**2 - 1e-3)

    def test_an_option_that_removes_weights(self):
        model = one_norm(BatchNorm, renorm=True, debias=True)
        norm = kerasbn.from_keras(model, renorm=False, debias=False).get_layer("bn")
        assert list(values(norm)) == ["gamma", "beta", "moving_mean", "moving_variance"]
        np.testing.assert_array_equal(values(norm)["moving_mean"], [1, 2, 3, 4])


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"momentun": 0.9}, r"Received: momentun=0\.9\. Did you mean momentum\?"),
            ({"ghost": 8}, "Received: ghost=8. Choose from: momentum, epsilon, .*statistics"),
            ({"name": "bn"}, "Received: name='bn'. Each converted layer keeps its own `name`"),
            ({"dtype": "float32"}, "keeps its own `dtype`"),
            ({"axis": 1}, "Expected options that keep the weights.* Received: axis=1"),
            ({"scale": False}, "keep the weights.* Received: scale=False"),
            ({"momentum": 2}, "momentum is the weight of the old average.* momentum=2"),
            ({"virtual_batch_size": 1}, "virtual_batch_size is the number of examples"),
            ({"virtual_batch_size": 8, "renorm": True}, "renorm=True.* exclude each other"),
            ({"statistics": "moving"}, "Expected one of.* statistics='moving'"),
        ],
        ids=str,
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            kerasbn.from_keras(network(), **options)

    def test_an_option_that_excludes_one_of_a_layer(self):
        model = one_norm(renorm=True)
        message = "Batch norm 'bn' cannot be converted. virtual_batch_size .* renorm=True"
        with pytest.raises(ValueError, match=message):
            kerasbn.from_keras(model, virtual_batch_size=4)

    def test_where(self):
        with pytest.raises(ValueError, match=r"Expected where to be .* convert it.* Received: 'a'"):
            kerasbn.from_keras(network(), where="a")
        model = network()
        with pytest.warns(UserWarning, match="false for all 4 batch norms") as caught:
            assert kerasbn.from_keras(model, where=lambda layer: False) is model
        assert caught[0].filename == __file__

    def test_where_cannot_tell_two_layers_apart(self):
        model = network(second="c")
        first = model.get_layer("pair").first
        with pytest.raises(ValueError, match="one batch norm 'c' in layer 'pair', and false"):
            kerasbn.from_keras(model, where=lambda layer: layer is first)
        assert len(batch_norms(kerasbn.from_keras(model))) == 4

    def test_without_batch_norm(self):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3)], name="bare")
        message = "'bare' has no BatchNorm or BatchNormalization layer"
        with pytest.warns(UserWarning, match=message) as caught:
            assert kerasbn.from_keras(model, momentum=0.9) is model
        assert caught[0].filename == __file__

    def test_a_layer_that_makes_its_batch_norm_itself(self):
        class Own(layers.Layer):
            def build(self, shape):
                self.norm = BatchNorm(name="hidden")
                self.norm.build(shape)

            def call(self, x):
                return self.norm(x)

        model = keras.Sequential([keras.Input((4,)), Own(name="own")])
        with pytest.raises(ValueError, match=r"Layer 'own' of the class Own makes its .*'hidden'"):
            kerasbn.from_keras(model, momentum=0.9)
