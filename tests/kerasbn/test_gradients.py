"""First and second derivatives, in reverse and forward mode, eager and compiled."""

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm, reference


def gradient_penalty(layer, mask):
    """Returns a function of x: value and gradient of sum(g^2), where g is the gradient of sum(y^3).

    The loss is cubic so that dy depends on x too.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        def value_and_gradient(x):
            x = tf.convert_to_tensor(x)
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    loss = tf.reduce_sum(layer(x, training=True, mask=mask) ** 3)
                penalty = tf.reduce_sum(inner.gradient(loss, x) ** 2)
            return penalty, outer.gradient(penalty, x)

        return value_and_gradient
    if keras.backend.backend() == "jax":
        import jax

        weights = [
            [w.value for w in ws] for ws in (layer.trainable_weights, layer.non_trainable_weights)
        ]

        def loss(x):
            y, _ = layer.stateless_call(*weights, x, training=True, mask=mask)
            return (y**3).sum()

        return jax.jit(jax.value_and_grad(lambda x: (jax.grad(loss)(x) ** 2).sum()))
    import torch

    def value_and_gradient(x):
        x = keras.ops.convert_to_tensor(x).requires_grad_()
        loss = (layer(x, training=True, mask=mask) ** 3).sum()
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        penalty = (gradient**2).sum()
        return penalty.detach(), torch.autograd.grad(penalty, x)[0]

    return value_and_gradient


PENALIZED = {
    "plain": {},
    "without parameters": {"center": False, "scale": False},
    "frozen parameters": {},
    "axis first": {"axis": 1},
    "ghost": {"virtual_batch_size": 3},
}


@pytest.mark.parametrize(
    ("name", "masked"), [*((name, False) for name in PENALIZED), ("plain", True), ("ghost", True)]
)
def test_gradient_penalty_has_the_numerical_gradient(features, double, name, masked):
    with double():
        layer = BatchNorm(momentum=1.0, dtype="float64", **PENALIZED[name])
        x = features((5, 2, 3), means=(-1, 1), scales=(0.5, 2), dtype="float64")
        layer.build(x.shape)
        for weight in layer.trainable_weights:
            weight.assign(np.random.default_rng(1).uniform(1, 2, weight.shape))
        if name == "frozen parameters":
            layer.gamma.trainable = layer.beta.trainable = False
        mask = np.random.default_rng(2).random((5, 2)) < 0.7 if masked else None
        penalty = gradient_penalty(layer, mask)
        gradient = keras.ops.convert_to_numpy(penalty(x)[1])
        direction = np.random.default_rng(3).standard_normal(x.shape)
        step = 1e-5
        above, below = (float(penalty(x + s * direction)[0]) for s in (step, -step))
    numerical = (above - below) / (2 * step)
    assert np.sum(gradient * direction) == pytest.approx(numerical, rel=1e-6)


# JAX takes seconds for the eager call, because it compiles every operation.
slow_on_jax = [pytest.mark.full] if keras.backend.backend() == "jax" else []


@pytest.mark.parametrize(
    ("options", "training"),
    [
        ({}, False),
        ({}, True),
        pytest.param({"axis": 1, "momentum": None}, True, marks=slow_on_jax),
        pytest.param({"virtual_batch_size": 3, "unbiased_variance": True}, True, marks=slow_on_jax),
        ({"renorm": True, "debias": True}, True),
    ],
)
def test_compiled_call_equals_the_eager_one(
    features, run, assert_close, compiled_mode, options, training
):
    shape = (7, 3, 4)
    x, dy = features(shape), features(shape, seed=1, means=(-2, 2))
    eager, compiled = BatchNorm(**options), BatchNorm(**options)
    desired = run(eager, x, dy, training=training, mode="eager")
    actual = run(compiled, x, dy, training=training, mode=compiled_mode)
    for array, expected in zip(actual, desired, strict=True):
        assert_close(array, expected)
    for weight, expected in zip(compiled.weights, eager.weights, strict=True):
        assert_close(weight, expected)


def test_parameters_have_gradients_when_the_input_is_data(features, run, assert_close):
    # As in a network's first layer: training needs dgamma and dbeta, but not dx.
    x, dy = features((6, 4)), features((6, 4), seed=1, means=(-2, 2))
    layer = BatchNorm()
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile(keras.optimizers.SGD(1.0), loss=lambda dy, y: keras.ops.sum(dy * y, -1) * len(x))
    model.fit(x, dy, batch_size=len(x), verbose=0)
    _, dgamma, dbeta = reference.backward(dy, reference.forward(x)[1])
    assert_close(layer.gamma, 1 - dgamma)
    assert_close(layer.beta, -dbeta)


@pytest.mark.parametrize("masked", [False, True])
def test_forward_mode_is_the_numerical_derivative(features, assert_close, double, masked):
    if keras.backend.backend() == "torch":
        pytest.skip("test_torch_transforms.py tests PyTorch's forward mode")
    x = features((6, 3), means=(-1, 1), scales=(0.5, 2), dtype="float64")
    direction = np.random.default_rng(3).standard_normal(x.shape)
    mask = np.array([1, 0, 1, 1, 0, 1], bool) if masked else None
    with double():
        layer = BatchNorm(momentum=1.0, dtype="float64")
        layer.build(x.shape)

        def forward(x):
            return layer(x, training=True, mask=mask)

        if keras.backend.backend() == "jax":
            import jax

            _, derivative = jax.jvp(forward, (x,), (direction,))
        else:
            import tensorflow as tf

            primal = tf.constant(x)
            with tf.autodiff.ForwardAccumulator(primal, tf.constant(direction)) as accumulator:
                y = forward(primal)
            derivative = accumulator.jvp(y)
        step = 1e-6
        above, below = (
            reference.forward(x + s * direction, mask=mask[:, None] if masked else None)[0]
            for s in (step, -step)
        )
        assert_close(derivative, (above - below) / (2 * step), 1e-8)
