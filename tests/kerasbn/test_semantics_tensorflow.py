"""TensorFlow's ways to trace, compile and differentiate, next to Keras's layer."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow's transforms", allow_module_level=True)

import tensorflow as tf

from kerasbn import BatchNorm, reference

BOTH = [BatchNorm, keras.layers.BatchNormalization]
EPSILON = 1e-3


@pytest.fixture
def modest(features):
    """Makes data with means as large as the deviations, on which Keras's layer is exact."""
    return lambda shape, seed=0: features(shape, seed=seed, means=(-2, 2), scales=(0.5, 2))


def built(cls):
    layer = cls(momentum=0.5)
    layer.build((None, 3))
    return layer


@pytest.mark.parametrize("jit_compile", [False, True])
def test_function_around_call(modest, assert_close, jit_compile):
    x = modest((8, 3))
    for base in BOTH:

        class Decorated(base):
            @tf.function(jit_compile=jit_compile)
            def call(self, inputs, training=None, mask=None):
                return super().call(inputs, training=training, mask=mask)

        layer = built(Decorated)
        assert_close(layer(x, training=True), reference.forward(x, None, None, EPSILON)[0], axes=0)
        assert_close(layer.moving_mean, x.mean(0, "float64") / 2)
        scale = np.sqrt(0.5 + x.var(0, "float64") / 2 + EPSILON)
        assert_close(layer(x, training=False), (x - x.mean(0, "float64") / 2) / scale, axes=0)


@pytest.mark.parametrize("how", ["eager", "graph", "xla"])
def test_recompute_grad(modest, assert_close, how):
    """The gradients are right. Each evaluation of the layer is an update, as in Keras."""
    x = tf.constant(modest((8, 3)))
    weight = tf.constant(modest((8, 3), seed=1))
    results = []
    for cls in BOTH:
        layer = built(cls)

        def step(x, layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = tf.recompute_grad(lambda x: layer(x, training=True))(x)
                loss = tf.reduce_sum(weight * y)
            return tape.gradient(loss, [x, *(w.value for w in layer.trainable_weights)])

        if how != "eager":
            step = tf.function(step, jit_compile=how == "xla")
        results.append([*step(x), layer.moving_mean])
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected, 1e-4)
    assert_close(results[0][-1], 0.75 * x.numpy().mean(0, "float64"))  # two updates of momentum 0.5
    _, cache = reference.forward(x.numpy(), np.ones(3), np.zeros(3), EPSILON)
    for actual, expected in zip(
        results[0], reference.backward(weight.numpy(), cache), strict=False
    ):
        assert_close(actual, expected, 1e-4)


def test_forward_mode(modest, assert_close):
    x, direction = tf.constant(modest((8, 3))), tf.constant(modest((8, 3), seed=1))

    def y_of(values):
        return reference.forward(values, None, None, EPSILON)[0]

    step = 1e-5 * direction.numpy().astype("float64")
    expected = (y_of(x.numpy() + step) - y_of(x.numpy() - step)) / 2e-5
    for cls in BOTH:
        layer = built(cls)
        with tf.autodiff.ForwardAccumulator(x, direction) as accumulator:
            y = layer(x, training=True)
        assert_close(accumulator.jvp(y), expected, 1e-4)
        assert_close(layer.moving_mean, x.numpy().mean(0, "float64") / 2)


def test_second_derivative_is_right_where_kerass_is_not(modest, assert_close):
    x = modest((6, 3))

    def gradient(values):
        y, cache = reference.forward(values, None, None, EPSILON)
        return reference.backward(3 * y**2, cache)[0]

    expected = np.zeros((6, 3, 6, 3))
    for index in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[index] = 1e-5
        expected[(..., *index)] = (gradient(x + step) - gradient(x - step)) / 2e-5
    errors = []
    for cls in BOTH:
        layer, point = built(cls), tf.constant(x)
        with tf.GradientTape() as outer:
            outer.watch(point)
            with tf.GradientTape() as inner:
                inner.watch(point)
                total = tf.reduce_sum(layer(point, training=True) ** 3)
            dx = inner.gradient(total, point)
        errors.append(np.abs(outer.jacobian(dx, point) - expected).max() / np.abs(expected).max())
    assert errors[0] < 1e-3
    # Keras's variance comes from tf.nn.moments, which stops the gradient of the mean. If this
    # fails, Keras has corrected it, and docs/layer.md should say so.
    assert errors[1] > 0.01


@pytest.mark.parametrize("training", [True, False])
def test_vectorized_map_is_kerass(modest, assert_close, training):
    x = tf.constant(np.stack([modest((8, 3)), modest((8, 3), seed=1)]))
    results = []
    for cls in BOTH:
        layer = built(cls)
        y = tf.vectorized_map(lambda x, layer=layer: layer(x, training=training), x)
        results.append([y, layer.moving_mean])
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected)


def test_loop_updates_once_per_iteration(modest, assert_close):
    x = tf.constant(modest((8, 3)))
    for cls in BOTH:
        layer = built(cls)

        @tf.function
        def loop(x, layer=layer):
            for i in tf.range(3):
                layer(x + tf.cast(i, x.dtype), training=True)

        loop(x)
        mean = x.numpy().mean(0, "float64")
        assert_close(layer.moving_mean, 0.125 * mean + 0.25 * (mean + 1) + 0.5 * (mean + 2))


PROGRAM = """
import sys
import keras, numpy as np, tensorflow as tf
from kerasbn import BatchNorm
which = sys.argv[1]
if which == "determinism":
    tf.config.experimental.enable_op_determinism()
else:
    tf.config.optimizer.set_jit("autoclustering")
x = np.random.default_rng(0).normal(1, 2, (24, 3)).astype("float32")

def trained(cls):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), cls(momentum=0.5), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    model.fit(x, x[:, :1], batch_size=6, epochs=3, shuffle=False, verbose=0)
    return [np.array(w) for w in model.weights]

ours, again, theirs = map(trained, (BatchNorm, BatchNorm, keras.layers.BatchNormalization))
for a, b, c in zip(ours, again, theirs):
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-4)
print("the same")
"""


@pytest.mark.parametrize("which", ["determinism", "autoclustering"])
def test_settings_of_the_whole_process(which):
    """In a new process, because TensorFlow cannot switch determinism off again."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, which],
        env={**os.environ, "TF_XLA_FLAGS": "--tf_xla_cpu_global_jit"},
        capture_output=True,
        text=True,
    )
    assert result.stdout == "the same\n", result.stderr
