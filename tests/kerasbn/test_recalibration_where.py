"""`recalibrate(where=...)`: only the chosen batch norms change. Frozen ones are named."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import kerasbn

X = (np.random.default_rng(0).normal(size=(60, 4)) * [0.5, 1, 10, 50] + [3, -40, 0, 100]).astype(
    "float32"
)
BASE_MEAN, BASE_VARIANCE = np.array([1.0, -20, 2, 50]), np.array([4.0, 9, 50, 2000])
pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


def base_of(kind=kerasbn.BatchNorm, names=("in",)):
    norms = [kind(name=name) for name in names]
    base = keras.Sequential([keras.Input((4,)), *norms], name="base")
    for norm in norms:
        norm.moving_mean.assign(BASE_MEAN)
        norm.moving_variance.assign(BASE_VARIANCE)
    return base


def transfer(base, **options):
    """A base and a head, as in Keras's guide to transfer learning."""
    x = keras.Input((4,))
    y = layers.Dense(3, name="dense")(base(x, **options))
    return keras.Model(x, kerasbn.BatchNorm(name="head")(y), name="whole")


def statistics(norm):
    return [keras.ops.convert_to_numpy(v).copy() for v in (norm.moving_mean, norm.moving_variance)]


def messages_of(model, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kerasbn.recalibrate(model, X, **options)
    return [str(each.message) for each in caught if "batch norm" in str(each.message)]


@pytest.mark.parametrize("kind", [kerasbn.BatchNorm, layers.BatchNormalization])
def test_only_the_head_changes_and_sees_the_base_in_inference(kind, assert_close):
    base = base_of(kind)
    base.trainable = False
    model = transfer(base, training=False)
    before = statistics(base.layers[0])
    kerasbn.recalibrate(model, X, batch_size=30, where=lambda layer: layer.trainable)
    for old, new in zip(before, statistics(base.layers[0]), strict=True):
        np.testing.assert_array_equal(old, new)
    kernel, bias = map(np.float64, model.get_layer("dense").get_weights())
    y = ((np.float64(X) - BASE_MEAN) / np.sqrt(BASE_VARIANCE + 1e-3)) @ kernel + bias
    mean, variance = statistics(model.get_layer("head"))
    expected = (y[:30].var(0) + y[30:].var(0)) / 2 * 30 / 29
    assert_close(mean, y.mean(0), 1e-5, at_least=np.abs(y).max())
    assert_close(variance / expected, np.ones(3), 1e-4)


def test_a_choice_by_name():
    model = transfer(base_of())
    head = statistics(model.get_layer("head"))
    kerasbn.recalibrate(model, X, where=lambda layer: layer.name == "in")
    np.testing.assert_array_equal(statistics(model.get_layer("head"))[0], head[0])
    np.testing.assert_allclose(statistics(model.layers[1].layers[0])[0], X.mean(0), atol=1e-3)


def test_where_takes_the_batch_norms_alone():
    seen = []
    kerasbn.recalibrate(transfer(base_of()), X, where=lambda layer: seen.append(layer.name) or True)
    assert sorted(seen) == ["head", "in"]


def test_where_that_chooses_none_warns():
    model = transfer(base_of())
    before = statistics(model.get_layer("head"))
    (message,) = messages_of(model, where=lambda layer: False)
    assert message == (
        "`where` returns false for all 2 batch norms of model 'whole', which stays unchanged."
    )
    np.testing.assert_array_equal(statistics(model.get_layer("head"))[0], before[0])


@pytest.mark.parametrize("where", ["head", ["head"], True])
def test_where_that_is_no_function(where):
    with pytest.raises(ValueError, match=r"Expected where to be a function .* Received: .* For ex"):
        kerasbn.recalibrate(transfer(base_of()), X, where=where)


class TestTheWarning:
    def test_not_trainable(self):
        base = base_of()
        base.trainable = False
        assert messages_of(transfer(base)) == [
            "recalibrate changes 1 frozen batch norm of model 'whole' (trainable=False): base/in. "
            "To keep its statistics, choose other layers: where=lambda layer: layer.trainable. To "
            "recalibrate it without this warning: where=lambda layer: True."
        ]

    def test_called_with_training_false(self):
        assert messages_of(transfer(base_of(names=("in", "other")), training=False)) == [
            "recalibrate changes 2 frozen batch norms of model 'whole' (a call with "
            "training=False): base/in, base/other. To keep their statistics, choose other layers: "
            "where=lambda layer: layer.name not in ['in', 'other']. To recalibrate them without "
            "this warning: where=lambda layer: True."
        ]

    def test_names_a_few_of_many(self):
        base = base_of(names=list("abcdefgh"))
        base.trainable = False
        (message,) = messages_of(transfer(base))
        assert "changes 8 frozen batch norms" in message
        assert ": base/a, base/b, base/c, base/d, base/e, and 3 more. To keep" in message

    def test_in_wrappers_and_in_models_inside_a_subclass(self):
        class Outer(keras.Model):
            def __init__(self, inner):
                super().__init__(name="outer")
                self.inner = inner

            def call(self, x, training=None):
                return self.inner(x, training=training)

        x = keras.Input((2, 2))
        wrapped = layers.TimeDistributed(kerasbn.BatchNorm(name="bn"), name="each")
        model = Outer(keras.Model(x, wrapped(x, training=False), name="inner"))
        data = X.reshape(-1, 2, 2)
        model(data)
        with pytest.warns(UserWarning, match=r"1 frozen batch norm .*: inner/each/bn\. To keep"):
            kerasbn.recalibrate(model, data)

    def test_not_if_another_call_trains(self):
        x, norm = keras.Input((4,)), kerasbn.BatchNorm()
        model = keras.Model(x, [norm(x, training=False), norm(2.0 * x)])
        assert messages_of(model) == []

    @pytest.mark.parametrize("options", [{"where": lambda layer: True}, {}])
    def test_not_with_a_choice_and_not_without_frozen_ones(self, options):
        base = base_of()
        base.trainable = not options
        assert messages_of(transfer(base), **options) == []
