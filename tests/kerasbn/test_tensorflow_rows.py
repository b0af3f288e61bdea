"""The compiled kernel, on smaller shapes than it usually gets."""

import keras
import numpy as np
import pytest

from kerasbn import reference

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow's kernel", allow_module_level=True)

import tensorflow as tf

import kerasbn
from kerasbn.kernels import tensorflow_rows as rows

from .matrices import half_by_default

EPSILON = 1e-3
# One row; less than a fold; not a multiple of a fold; few channels; a size that widens unevenly.
SHAPES = [(1, 3), (20, 4), (331, 17), (64, 3, 3, 6), (9, 5, 5, 6), (40, 7, 5)]


@pytest.fixture
def parameters(features):
    def make(c, dtype):
        return tuple(features((c,), seed=seed, dtype=dtype) for seed in (7, 8))

    return make


@pytest.mark.parametrize(
    ("dtype", "within", "shape"),
    half_by_default(["float32", "float64"], [False, True], SHAPES),
    ids=str,
)
def test_forward_and_backward_are_the_reference(
    features, parameters, assert_close, shape, within, dtype
):
    tolerance = {"float32": 1e-5, "float64": 1e-11}[dtype]
    x = features(shape, means=(-1e4, 1e4), scales=(0.5, 20), dtype=dtype)
    dy = features(shape, seed=1, dtype=dtype)
    gamma, beta = parameters(shape[-1], dtype)
    y, pivot, delta, variance, inverse = rows.forward(
        *map(tf.constant, (x, gamma, beta)), EPSILON, within
    )
    gradients = rows.backward(*map(tf.constant, (dy, x, gamma)), pivot, delta, inverse, within)
    expected, cache = reference.forward(x, gamma, beta, epsilon=EPSILON)
    dx, dgamma, dbeta = reference.backward(dy, cache)
    scale = np.abs(gamma) / np.sqrt(EPSILON)  # dx is a difference of nearly equal terms
    assert_close(y, expected, tolerance, axes=cache.axes)
    assert_close(gradients[0], dx, tolerance, axes=cache.axes, at_least=scale)
    assert_close(gradients[1], dgamma.ravel(), tolerance, at_least=np.abs(dy).sum())
    assert_close(gradients[2], dbeta.ravel(), tolerance, at_least=np.abs(dy).sum())
    values = x.reshape(-1, shape[-1]).astype("float64")
    assert_close(pivot + delta, values.mean(0), 1e-6)
    assert_close(variance, values.var(0), tolerance)


@pytest.mark.parametrize("shape", [(640, 30), (60, 200), (64, 8, 8, 6), (32, 20, 40)], ids=str)
def test_layers_that_xla_compiles_together(features, parameters, assert_close, shape):
    """XLA may recompute a layer's output wherever it is used."""
    x = features(shape, means=(-1e4, 1e4), scales=(0.5, 20))
    dy = features(shape, seed=1)
    gamma, beta = parameters(shape[-1], "float32")
    layers = [kerasbn.BatchNorm(epsilon=EPSILON) for _ in range(3)]
    for layer, offset in zip(layers, (1e4, -3e3, 0), strict=True):  # the next layer's mean
        layer.build(shape)
        layer.gamma.assign(gamma)
        layer.beta.assign(beta + offset)

    @tf.function(jit_compile=True)
    def step(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for layer in layers:
                y = layer(y, training=True)
        return y, tape.gradient(y, [x, layers[0].gamma.value, layers[2].beta.value], dy)

    y, (dx, dgamma, dbeta) = step(tf.constant(x), tf.constant(dy))
    caches, expected = [], x.astype("float64")
    for layer in layers:
        expected, cache = reference.forward(expected, gamma, layer.beta.numpy(), epsilon=EPSILON)
        caches.append(cache)
    gradients, upstream = [], dy.astype("float64")
    for cache in reversed(caches):
        gradients.append(reference.backward(upstream, cache))
        upstream = gradients[-1][0]
    # The later layers get float32 values near 1e4, rounded to 1e-3 of their deviation.
    axes = caches[0].axes
    steepness = np.abs(gamma) / np.sqrt(EPSILON)
    assert_close(y, expected, 5e-3 / np.abs(gamma).min(), axes=axes)
    assert_close(dx, upstream, 5e-3, axes=axes, at_least=steepness)
    assert_close(dgamma, gradients[2][1].ravel(), 5e-3, at_least=np.abs(dy).sum())
    assert_close(dbeta, gradients[0][2].ravel(), 1e-5, at_least=np.abs(dy).sum())


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("examples", [0, 1, 37, 200])
def test_any_number_of_examples_of_one_trace(features, assert_close, examples, within):
    x = features((200, 4, 6))[:examples]
    layer_forward = tf.function(
        lambda x: rows.forward(x, None, None, EPSILON, within)[0],
        input_signature=[tf.TensorSpec([None, 4, 6], tf.float32)],
    )
    y = layer_forward(tf.constant(x))
    assert y.shape == x.shape
    if examples:
        expected, _ = reference.forward(x, np.ones(6), np.zeros(6), epsilon=EPSILON)
        assert_close(y, expected, 1e-5, axes=(0, 1))


def test_inference_is_the_formula(features, parameters, assert_close):
    x = features((33, 2, 6), means=(1e4, 2e4))
    mean, variance = x.mean((0, 1), dtype="float64"), x.var((0, 1), dtype="float64")
    mean, variance = mean.astype("float32"), variance.astype("float32")
    gamma, beta = parameters(6, "float32")
    y = rows.normalize(*map(tf.constant, (x, mean, variance, gamma, beta)), EPSILON)
    x_hat = (x.astype("float64") - mean) / np.sqrt(variance.astype("float64") + EPSILON)
    assert_close(y, x_hat * gamma + beta, 1e-6, axes=(0, 1))


@pytest.mark.parametrize(
    ("shape", "axes", "suited"),
    [
        ((500, 100), (0,), True),
        ((500, 10), (0,), False),  # too small
        ((None, 500), (0,), False),  # unknown number of rows
        ((None, 28, 28, 6), (0, 1, 2), True),  # image batches have one size, except the last
        ((None, None, None, 64), (0, 1, 2), False),
        ((64, 100, 50), (0, 2), False),
        ((100, 500), (1,), False),
    ],
    ids=str,
)
def test_what_is_compiled(monkeypatch, shape, axes, suited):
    monkeypatch.setattr(rows, "SMALLEST", 8192)  # whatever --compile-from says
    assert rows.suits(keras.KerasTensor(shape), axes) is suited


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_spoils_its_own_feature_alone(features, bad, within):
    x = features((40, 5, 4))
    spoiled = x.copy()
    spoiled[3, 2, 0] = bad
    results = []
    for given in (x, spoiled):
        y, pivot, delta, _, inverse = rows.forward(tf.constant(given), None, None, EPSILON, within)
        dx, *_ = rows.backward(tf.constant(x), given, None, pivot, delta, inverse, within)
        results.append((y.numpy(), dx.numpy()))
    for right, got in zip(*results, strict=True):
        assert np.isnan(got[..., 0]).all()
        np.testing.assert_array_equal(got[..., 1:], right[..., 1:])
