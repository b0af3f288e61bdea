"""Models with one known fault each, for the tests of `diagnose`, and a control without a fault."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

import kerasbn

KINDS = [kerasbn.BatchNorm, layers.BatchNormalization]
RNG = np.random.default_rng(0)
# Features of different scales, and four classes that depend on them.
X = (RNG.normal(size=(512, 6)) * [0.5, 1, 2, 4, 8, 3] + [1, -1, 2, -2, 3, 0]).astype("float32")
Y = ((X[:, 0] > 1) * 2 + (X[:, 1] > -1)).astype("int32")
TOKENS = np.where(np.arange(10) < RNG.integers(2, 10, (256, 1)), RNG.integers(1, 9, (256, 10)), 0)


class Broken(NamedTuple):
    """A model, the data to diagnose it with, and what the report must find.

    Attributes:
        model: The model.
        data: Data for `diagnose`.
        faults: Expected (fault, layer) pairs.
        batch_size: Number of examples per batch.
    """

    model: keras.Model
    data: Any
    faults: list[tuple[str, str | None]]
    batch_size: int = 64


def network(kind, second=None, *, before_second=(), bias=False, momentum=0.8):
    """A small classifier with two batch norms, "first" and "second"."""
    return keras.Sequential(
        [
            keras.Input((6,)),
            kind(name="first", momentum=momentum),
            layers.Dense(16, use_bias=bias, name="dense"),
            *before_second,
            second or kind(name="second", momentum=momentum),
            layers.Activation("relu"),
            layers.Dense(4, activation="softmax", name="head"),
        ],
        name="classifier",
    )


def trained(model, steps=40, batch_size=64, x=X):
    model.compile("adam", "sparse_categorical_crossentropy")
    for step in range(steps):
        i = np.random.default_rng(step).choice(len(x), batch_size)
        model.train_on_batch(x[i], Y[i])
    return model


@functools.cache
def _healthy_weights(kind):
    return trained(network(kind)).get_weights()


def healthy(kind, **options):
    """A network that was trained before, in this process, with a healthy result."""
    model = network(kind, **options)
    model.set_weights(_healthy_weights(kind))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def control(kind):
    return Broken(healthy(kind), (X, Y), [])


def high_momentum(kind):
    """Momentum 0.999 after 50 steps, in one of two layers."""
    model = trained(network(kind, kind(name="second", momentum=0.999)), 50)
    return Broken(model, (X, Y), [("lagging averages", "second")])


def frozen_on_other_data(kind):
    """Fine-tuned on shifted data with frozen statistics."""
    model = healthy(kind)
    model.get_layer("first").trainable = False
    shifted = X + np.float32(10)
    trained(model, 40, x=shifted)
    return Broken(model, (shifted, Y), [("frozen on other data", "first")])


def other_data(kind):
    """Data of another scale than that of training."""
    return Broken(healthy(kind), (3 * X, Y), [("other statistics", "first")])


def batches_of_two(kind):
    model = trained(network(kind, momentum=0.95), 60, batch_size=2)
    faults = [("small batches", "first"), ("small batches", "second")]
    return Broken(model, (X[:200], Y[:200]), faults, 2)


def dropout(kind):
    """Dropout right before a batch norm."""
    model = trained(network(kind, before_second=[layers.Dropout(0.6, name="drop", seed=1)]))
    return Broken(model, (X, Y), [("dropout before norm", "second")])


def training_mode_in_graph(kind):
    """`training=True` in a functional graph, which `model(x)` and exports obey."""
    inner = healthy(kind)
    inputs = y = keras.Input((6,))
    for layer in inner.layers:
        y = layer(y, training=True) if layer.name == "second" else layer(y)
    return Broken(keras.Model(inputs, y), X, [("training=True", "second")])


class Stuck(keras.Model):
    """Calls its second batch norm with `training=True`, whatever the mode."""

    def __init__(self, inner):
        super().__init__(name="stuck")
        self.inner = [*inner.layers]

    def call(self, x, training=None):
        for layer in self.inner:
            if layer.name in ("first", "second"):
                x = layer(x, training=training or layer.name == "second")
            else:
                x = layer(x)
        return x


def training_mode_in_code(kind):
    """`training=True` in the `call` of a subclassed model, which even `predict` obeys."""
    model = Stuck(healthy(kind))
    model(X[:2])
    return Broken(model, X, [("training=True", "second")])


def one_nan_batch(kind):
    """One batch with a NaN in training mode."""
    model = healthy(kind)
    x = X[:64].copy()
    x[3, 2] = np.nan
    model(x, training=True)
    return Broken(model, (X, Y), [("not finite", "first"), ("not finite", "second")])


def dead_channel(kind):
    model = healthy(kind)
    gamma = keras.ops.convert_to_numpy(model.get_layer("second").gamma).copy()
    gamma[5] = 1e-5
    model.get_layer("second").gamma.assign(gamma)
    return Broken(model, (X, Y), [("dead channels", "second")])


def mask_ignored(kind):
    """A convolution between the embedding and the batch norm drops the mask."""
    model = keras.Sequential(
        [
            keras.Input((10,), dtype="int32"),
            layers.Embedding(9, 5, mask_zero=True, name="words", embeddings_initializer="normal"),
            layers.Conv1D(4, 3, use_bias=False, padding="same", name="conv"),
            kind(name="norm"),
            layers.GlobalAveragePooling1D(),
        ]
    )
    kerasbn.recalibrate(model, TOKENS)
    return Broken(model, TOKENS, [("mask ignored", "norm")])


def shared(kind):
    """One batch norm for two inputs with different means."""
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    norm = kind(name="norm")
    model = keras.Model([a, b], layers.Add()([norm(a), norm(b)]))
    kerasbn.recalibrate(model, [X, X + 20])
    return Broken(model, [X, X + np.float32(20)], [("shared", "norm")])


def useless_bias(kind):
    model = network(kind, bias=True)
    kerasbn.recalibrate(model, X)
    return Broken(model, X, [("useless bias", "second")])


def large_offset(kind):
    x = X.copy()
    x[:, 1] += 2e4
    model = healthy(kind)
    kerasbn.recalibrate(model, x)
    return Broken(model, x, [("large offset", "first")])


def hardly_varies(kind):
    x = X.copy()
    x[:, 4] = 7.0
    model = healthy(kind)
    kerasbn.recalibrate(model, x)
    return Broken(model, x, [("variance near zero", "first")])


BROKEN = [
    high_momentum,
    frozen_on_other_data,
    other_data,
    batches_of_two,
    dropout,
    training_mode_in_graph,
    training_mode_in_code,
    one_nan_batch,
    dead_channel,
    mask_ignored,
    shared,
    useless_bias,
    large_offset,
    hardly_varies,
]
