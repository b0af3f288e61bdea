"""The native operation that moves both averages of a layer, on TensorFlow."""

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm, kernels, moments
from kerasbn.kernels import native

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow's kernel", allow_module_level=True)

import tensorflow as tf

if native.library() is None:
    pytest.skip("the native kernel was not built", allow_module_level=True)
move = native.library().operations.kerasbn_move

SIZE = 37


@pytest.fixture
def arguments():
    """Two averages and their values, in float64."""
    return list(np.random.default_rng(0).normal(3.0, 2.0, (4, SIZE)))


def moved(averages, values, rate):
    return [a * (1.0 - rate) + v * rate for a, v in zip(averages, values, strict=True)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-7), ("float64", 1e-15)])
@pytest.mark.parametrize("rate", [0.0, 0.01, 1.0])
def test_values(arguments, dtype, tolerance, rate):
    tensors = [tf.constant(a, dtype) for a in arguments]
    results = kernels.move_averages(tensors[:2], tensors[2:], rate)
    expected = moved(arguments[:2], arguments[2:], rate)
    np.testing.assert_allclose(results, expected, rtol=tolerance)
    assert {r.dtype.name for r in results} == {dtype}


def test_a_rate_of_zero_keeps_the_bits(arguments):
    averages = [tf.constant(a, "float32") for a in arguments[:2]]
    for result, average in zip(move(*averages, *averages[::-1], 1.0, 0.0), averages, strict=True):
        np.testing.assert_array_equal(result, average)


def test_same_value_as_the_formula_with_a_rate_that_is_a_tensor(arguments):
    tensors = [tf.constant(a, "float32") for a in arguments]
    rate = tf.constant(0.3)
    for result, average, value in zip(
        kernels.move_averages(tensors[:2], tensors[2:], rate), tensors[:2], tensors[2:], strict=True
    ):
        np.testing.assert_allclose(result, moments.move_average(average, value, rate), rtol=2e-7)


def test_one_rate_for_each_feature(arguments):
    rates = np.linspace(0.0, 1.0, SIZE)
    tensors = [tf.constant(a) for a in arguments]
    results = kernels.move_averages(tensors[:2], tensors[2:], tf.constant(rates))
    expected = moved(arguments[:2], arguments[2:], rates)
    np.testing.assert_allclose(results, expected, rtol=1e-15)


def test_gradient(arguments):
    tensors = [tf.constant(a) for a in arguments]
    theory, numeric = tf.test.compute_gradient(
        lambda *tensors: tf.stack(move(*tensors, 0.7, 0.3)), tensors
    )
    for t, n in zip(theory, numeric, strict=True):
        np.testing.assert_allclose(t, n, atol=1e-9)


def test_wrong_sizes(arguments):
    average, value = tf.ones(4), tf.ones(3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="moving averages must have"):
        move(average, average, value, average, 0.9, 0.1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="moving averages must have"):
        move(average, average, average, value, 0.9, 0.1)


@pytest.mark.parametrize("options", [{}, {"unbiased_variance": True}, {"renorm": True}], ids=str)
@pytest.mark.parametrize(("shape", "axis"), [((6, 5), -1), ((6, 5, 4), 1), ((6, 2, 3, 4), (2, 3))])
def test_a_layer_moves_its_averages_as_without_the_native_kernel(options, shape, axis):
    x = np.random.default_rng(1).normal(2.0, 3.0, (3, *shape)).astype("float32")
    averages = []
    for on in (True, False):
        layer = BatchNorm(axis, momentum=0.9, **options)
        kernels.use_native(on)
        try:
            for batch in x:
                layer(batch, training=True)
        finally:
            kernels.use_native(True)
        averages.append([w.numpy() for w in layer.non_trainable_weights])
    for ours, plain in zip(*averages, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=2e-6, atol=1e-6)
