"""The layer agrees with `keras.layers.BatchNormalization` on everything that Keras offers."""

import functools
import inspect

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm
from sweeps.harness import data

SHAPES = [((8, 5), -1), ((8, 5), 1), ((4, 3, 5, 6), -1), ((4, 3, 5, 6), 1)]


def pair(shape, **options):
    """Builds both layers with the same weights, none of them at its initial value."""
    layers = BatchNorm(**options), keras.layers.BatchNormalization(**options)
    rng = np.random.default_rng(7)
    for layer in layers:
        layer.build(shape)
    weights = [rng.uniform(0.5, 2.0, w.shape) for w in layers[1].weights]
    for layer in layers:
        layer.set_weights(weights)
    return layers


def test_arguments_are_kerass_and_then_our_own():
    ours, theirs = (
        list(inspect.signature(cls).parameters.values())
        for cls in (BatchNorm, keras.layers.BatchNormalization)
    )
    described = [
        [(p.name, p.default) for p in each if p.kind != p.VAR_KEYWORD] for each in (ours, theirs)
    ]
    assert described[0][: len(described[1])] == described[1]
    added = {p.name: (p.default, p.kind) for p in ours[len(described[1]) : -1]}
    assert added == {
        "virtual_batch_size": (None, inspect.Parameter.KEYWORD_ONLY),
        "unbiased_variance": (False, inspect.Parameter.KEYWORD_ONLY),
        "debias": (False, inspect.Parameter.KEYWORD_ONLY),
        "statistics": ("auto", inspect.Parameter.KEYWORD_ONLY),
    }


@pytest.mark.parametrize("options", [{}, {"renorm": True}, {"scale": False}, {"center": False}])
def test_weights_have_kerass_names_order_and_shapes(options):
    ours, theirs = pair((None, 3, 5), **options)
    assert [(w.name, w.shape, w.trainable) for w in ours.weights] == [
        (w.name, w.shape, w.trainable) for w in theirs.weights
    ]


STEPS = [
    *((shape, axis, True, True, mask) for shape, axis in SHAPES for mask in (False, True)),
    *((*SHAPES[2], *options, True) for options in ((True, False), (False, True), (False, False))),
]


@pytest.mark.parametrize(("shape", "axis", "center", "scale", "masked"), STEPS)
def test_training_step_is_kerass(features, run, assert_close, shape, axis, center, scale, masked):
    ours, theirs = pair(shape, axis=axis, momentum=0.9, center=center, scale=scale)
    # Means no larger than the deviations: Keras's E[x^2] - E[x]^2 would lose digits otherwise.
    x = features(shape, axis, means=(-2, 2), scales=(0.5, 3))
    dy = features(shape, axis, means=(-2, 2), scales=(0.5, 3), seed=1)
    mask = np.random.default_rng(2).random(shape[:-1]) < 0.6 if masked else None
    actual, desired = (run(layer, x, dy, mask=mask) for layer in (ours, theirs))
    axes = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
    assert_close(actual.y, desired.y, axes=axes)
    assert_close(actual.dx, desired.dx, axes=axes)
    if scale:
        assert_close(actual.dgamma, desired.dgamma)
    if center:
        assert_close(actual.dbeta, desired.dbeta)
    assert_close(ours.moving_mean, theirs.moving_mean, axes=())
    assert_close(ours.moving_variance, theirs.moving_variance, axes=())


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_inference_is_kerass(features, run, assert_close, shape, axis):
    ours, theirs = pair(shape, axis=axis)
    x, dy = features(shape, axis, means=(-2, 2)), features(shape, axis, seed=1)
    actual, desired = (run(layer, x, dy, training=False) for layer in (ours, theirs))
    for array, expected in zip(actual, desired, strict=True):
        assert_close(array, expected)


def test_renorm_steps_are_kerass(features, run, assert_close):
    clipping = {"rmax": 1.5, "rmin": 0.6, "dmax": 0.4}
    ours, theirs = pair((9, 4), momentum=0.8, renorm=True, renorm_clipping=clipping)
    for step in range(3):
        x = features((9, 4), seed=step, means=(-2, 2), scales=(0.5, 3))
        dy = features((9, 4), seed=9)
        actual, desired = (run(layer, x, dy) for layer in (ours, theirs))
        for array, expected in zip(actual, desired, strict=True):
            assert_close(array, expected)
    for weight, expected in zip(ours.weights, theirs.weights, strict=True):
        assert_close(weight, expected)


@functools.cache
def handwritten_digits():
    return data.load("mnist_5k")


def losses_of_training(batch_norm, units, steps, dtype):
    """Trains a net with batch norm after every dense layer, and returns the loss of each step."""
    digits = handwritten_digits()
    x = digits.x_train.reshape(-1, 784).astype(dtype) / 255
    layers = [keras.Input((784,))]
    for seed, n in enumerate((*units, 10)):
        initializer = keras.initializers.HeNormal(seed)
        layers.append(keras.layers.Dense(n, kernel_initializer=initializer, dtype=dtype))
        layers.append(batch_norm(momentum=0.9, dtype=dtype))
        layers.append(keras.layers.ReLU(dtype=dtype))
    net = keras.Sequential(layers[:-1])
    net.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=keras.backend.backend() == "jax",  # slow, and other tests cover XLA
    )
    random = np.random.default_rng(0)
    losses = []
    for _ in range(steps):
        batch = random.choice(len(x), 100, replace=False)
        net.reset_metrics()
        losses.append(float(np.ravel(net.train_on_batch(x[batch], digits.y_train[batch]))[0]))
    return np.array(losses)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Keras computes float64 only on TensorFlow"
)
def test_float64_training_of_a_deep_net_is_kerass():
    actual, desired = (
        losses_of_training(layer, (500, 400, 300, 200, 100, 50, 25), 50, "float64")
        for layer in (BatchNorm, keras.layers.BatchNormalization)
    )
    np.testing.assert_allclose(actual, desired, rtol=1e-10)


def test_float32_training_begins_as_kerass():
    # Only the first steps agree. Rounding opens a rectifier in one run and not in the other, and
    # Adam's first steps have size 0.01 however small the gradient is. Keras's own layer diverges
    # just as far if one weight changes by one rounding. In float64 no input is that close to 0.
    actual, desired = (
        losses_of_training(layer, (100, 25), 3, "float32")
        for layer in (BatchNorm, keras.layers.BatchNormalization)
    )
    np.testing.assert_allclose(actual, desired, rtol=1e-5)
