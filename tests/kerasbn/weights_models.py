"""Models for the tests of `load_weights`. Each takes a function that makes the next batch norm."""

from __future__ import annotations

import itertools

import keras
import numpy as np
from keras import layers

import kerasbn

OURS, THEIRS = kerasbn.BatchNorm, layers.BatchNormalization
# The classes of the batch norms, in the order in which a model makes them.
MIXTURES = {"ours": [OURS], "theirs": [THEIRS], "mixed": [OURS, THEIRS, THEIRS]}


@keras.saving.register_keras_serializable(package="weights_models")
class Cell(layers.Layer):
    """A cell of a recurrent network that normalizes its state."""

    def __init__(self, norm, **kwargs):
        super().__init__(**kwargs)
        self.state_size = self.output_size = 3
        self.dense, self.norm = layers.Dense(3), norm

    def build(self, shape):
        self.dense.build((None, shape[-1] + 3))
        self.norm.build((None, 3))

    def call(self, x, states, training=False):
        y = self.norm(self.dense(keras.ops.concatenate([x, states[0]], -1)), training=training)
        return y, [y]

    def get_config(self):
        return {"norm": keras.saving.serialize_keras_object(self.norm)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["norm"]))


class Containers(keras.Model):
    """A subclassed model with batch norms in attributes, lists, dictionaries and lists of lists."""

    def __init__(self, norm):
        super().__init__()
        self.first = norm()
        self.listed = [norm(), layers.Dense(4), norm()]
        self.named = {"z": norm(), "a": norm()}
        self.inner = [[norm()], [norm(), norm()]]
        self.again = [self.first, norm()]  # the first is saved with its attribute
        for number in (1, 2, 10):  # 10 comes before 2 in a sorted list of names
            setattr(self, f"batch_norm_{number}", norm())

    def call(self, x, training=None):
        numbered = [getattr(self, f"batch_norm_{number}") for number in (1, 2, 10)]
        nested = itertools.chain(*self.inner)
        for layer in [*self.listed, *self.named.values(), *nested, *self.again, *numbered]:
            x = layer(x, training=training) if not isinstance(layer, layers.Dense) else layer(x)
        return x


def sequential(norm):
    parts = [[layers.Dense(4), norm()] for _ in range(12)]
    return keras.Sequential([keras.Input((4,)), *itertools.chain(*parts)])


def functional(norm):
    x = keras.Input((3, 4))
    inner = keras.Sequential([keras.Input((4,)), norm(), layers.Dense(4), norm()])
    shared = norm(scale=False)
    y = layers.TimeDistributed(norm())(layers.TimeDistributed(inner)(x))
    y = shared(shared(norm(renorm=True)(y)))
    return keras.Model(x, norm(axis=1)(y))


def wrapped(norm):
    x = keras.Input((3, 4))
    y = layers.Bidirectional(
        layers.RNN(Cell(norm()), return_sequences=True),
        backward_layer=layers.RNN(Cell(norm()), return_sequences=True, go_backwards=True),
    )(x)
    return keras.Model(x, layers.TimeDistributed(norm())(y))


def subclassed(norm):
    model = Containers(norm)
    model(np.ones((2, 4), "float32"))
    return model


def frozen(norm):
    x = keras.Input((3, 4))
    inner = keras.Sequential([keras.Input((4,)), norm(), layers.Dense(4), norm()])
    inner.layers[0].trainable = False
    model = keras.Sequential([x, layers.TimeDistributed(inner), layers.Dense(4), norm(), norm()])
    model.layers[1].trainable = model.layers[2].trainable = False
    return model


MODELS = {f.__name__: f for f in (sequential, functional, wrapped, subclassed, frozen)}


def make(name, mixture, seed=None):
    """Makes a model.

    Args:
        name: Name of the function that makes it, among `MODELS`.
        mixture: Name of the classes of its batch norms, among `MIXTURES`.
        seed: Seed of the values of its weights. Default `None`: the initial values.
    """
    classes = itertools.cycle(MIXTURES[mixture])
    model = MODELS[name](lambda **options: next(classes)(**options))
    return model if seed is None else randomized(model, seed)


def randomized(model, seed=0):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.dtype in ("float32", "bfloat16", "float16", "float64"):
            weight.assign(rng.uniform(0.5, 2.0, weight.shape))
    return model


def values(model):
    return [keras.ops.convert_to_numpy(weight.value) for weight in model.weights]


def assert_same(actual, desired):
    """Compares the weights of two models, or lists of such weights."""
    lists = [each if isinstance(each, list) else values(each) for each in (actual, desired)]
    for value, expected in zip(*lists, strict=True):
        np.testing.assert_array_equal(value, expected)
