"""Bugs of other batch norms under derivatives, `vmap` and rematerialization, tried on this layer.

See test_reported_bugs.py.
"""

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm

BACKEND = keras.backend.backend()
EPSILON = 1e-3


def functional(layer, training):
    """The layer as a function of x, without updates of its state."""
    weights = [
        [w.value for w in ws] for ws in (layer.trainable_weights, layer.non_trainable_weights)
    ]
    return lambda x: layer.stateless_call(*weights, x, training=training)[0]


def derivatives_along(f, x, v, order):
    """The derivatives of t -> f(x + t v) at 0, up to this order, as floats. f gives a scalar."""
    if BACKEND == "jax":
        import jax

        def along(t):
            return f(jax.numpy.asarray(x) + t * v)

        found = [along]
        for _ in range(order):
            found.append(jax.grad(found[-1]))
        return [float(each(0.0)) for each in found]
    if BACKEND == "torch":
        import torch

        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        value = f(torch.tensor(x) + t * torch.tensor(v))
        found = [value]
        for _ in range(order):
            found.append(torch.autograd.grad(found[-1], t, create_graph=True)[0])
        return [float(each.detach()) for each in found]
    import tensorflow as tf

    t = tf.Variable(0.0, dtype="float64")

    def derivative(order):
        if order == 0:
            return f(tf.constant(x) + t * tf.constant(v))
        with tf.GradientTape() as tape:
            value = derivative(order - 1)
        return tape.gradient(value, t)

    return [float(derivative(each)) for each in range(order + 1)]


@pytest.mark.parametrize("features", [3, 32])  # PyTorch has a kernel for each
def test_third_derivative(double, features):
    """pytorch/pytorch#186256: wrong from the third derivative on; #4422: no second derivative."""
    x, v, weights = np.random.default_rng(0).normal(size=(3, 6, features))

    def value(t):  # in extended precision: the differences below cancel digits
        z = np.longdouble(x) + t * np.longdouble(v)
        d = z - z.mean(0)
        return np.sum(weights * d / np.sqrt(np.square(d).mean(0) + np.longdouble(EPSILON)))

    h = np.longdouble("1e-3")
    ahead = value(2 * h) - 2 * value(h) + 2 * value(-h) - value(-2 * h)
    expected = [value(0), (value(h) - value(-h)) / (2 * h), ahead / (2 * h**3)]
    with double():
        layer = BatchNorm(dtype="float64")
        layer.build(x.shape)
        call, w = functional(layer, training=True), keras.ops.convert_to_tensor(weights)
        found = derivatives_along(lambda z: keras.ops.sum(call(z) * w), x, v, 3)
    assert found[0] == pytest.approx(float(expected[0]), rel=1e-9)
    assert found[1] == pytest.approx(float(expected[1]), rel=1e-4)
    assert found[3] == pytest.approx(float(expected[2]), rel=1e-3)


def test_jacobian_of_each_example_in_inference(assert_close):
    """pytorch/functorch#867: `vmap(jacrev(...))` fails with moving averages."""
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    layer = BatchNorm()
    layer.build(x.shape)
    layer.moving_variance.assign([0.5, 1.0, 2.0])
    call = functional(layer, training=False)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            inputs = tf.constant(x)
            tape.watch(inputs)
            y = call(inputs)
        jacobians = tape.batch_jacobian(y, inputs)
    else:
        import importlib

        transforms = importlib.import_module({"jax": "jax", "torch": "torch.func"}[BACKEND])
        per_example = transforms.jacrev(lambda each: call(each[None])[0])
        jacobians = transforms.vmap(per_example)(keras.ops.convert_to_tensor(x))
    expected = np.diag(1 / np.sqrt(np.array([0.5, 1.0, 2.0]) + EPSILON))
    assert_close(jacobians, np.broadcast_to(expected, (4, 3, 3)))


def test_training_of_many_models_in_one_call(assert_close):
    """pytorch/functorch#384: `vmap` over batches fails at the update of the moving averages."""
    x = np.random.default_rng(0).normal(3, 2, size=(5, 8, 3)).astype("float32")
    layer = BatchNorm(momentum=0.0)
    layer.build(x.shape[1:])
    trainable = [w.value for w in layer.trainable_weights]
    state = [w.value for w in layer.non_trainable_weights]

    def train(batch):
        return layer.stateless_call(trainable, state, batch, training=True)

    if BACKEND == "tensorflow":
        import tensorflow as tf

        y, (mean, variance) = tf.vectorized_map(train, tf.constant(x))
    else:
        import importlib

        transforms = importlib.import_module({"jax": "jax", "torch": "torch.func"}[BACKEND])
        y, (mean, variance) = transforms.vmap(train)(keras.ops.convert_to_tensor(x))
    assert_close(mean, x.mean(1))
    assert_close(variance, x.var(1))
    assert_close(y, (x - x.mean(1)[:, None]) / np.sqrt(x.var(1)[:, None] + EPSILON))


@pytest.mark.skipif(BACKEND == "tensorflow", reason="the next test")
def test_rematerialization_updates_once(assert_close):
    """pytorch/pytorch#96136: the forward pass runs twice, and moves the averages twice."""
    x = np.random.default_rng(0).normal(3, 2, size=(8, 3)).astype("float32")
    layer = BatchNorm(momentum=0.5)
    layer.build(x.shape)
    if BACKEND == "jax":
        import jax

        weights = [
            [w.value for w in ws] for ws in (layer.trainable_weights, layer.non_trainable_weights)
        ]

        def loss(x):
            y, state = layer.stateless_call(*weights, x, training=True)
            return (y**3).sum(), state

        _, (mean, _) = jax.grad(jax.checkpoint(loss), has_aux=True)(x)
        layer.moving_mean.assign(mean)
    else:
        import torch
        from torch.utils.checkpoint import checkpoint

        z = torch.tensor(x, requires_grad=True)
        y = checkpoint(lambda z: layer(z, training=True), z, use_reentrant=False)
        (y**3).sum().backward()
    assert_close(layer.moving_mean, 0.5 * x.mean(0))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.recompute_grad")
@pytest.mark.parametrize("kind", [BatchNorm, keras.layers.BatchNormalization])
def test_recompute_grad_updates_twice_as_with_keras(assert_close, kind):
    """The square root of the momentum in docs/layer.md makes it one update."""
    import tensorflow as tf

    x = np.random.default_rng(0).normal(3, 2, size=(8, 3)).astype("float32")
    layer = kind(momentum=0.5**0.5)
    layer.build(x.shape)

    @tf.function
    def gradient(z):
        with tf.GradientTape() as tape:
            tape.watch(z)
            y = tf.recompute_grad(lambda z: layer(z, training=True))(z)
            loss = tf.reduce_sum(y**3)
        return tape.gradient(loss, z)

    gradient(tf.constant(x))
    assert_close(layer.moving_mean, 0.5 * x.mean(0))
    assert_close(layer.moving_variance, 0.5 + 0.5 * x.var(0))
