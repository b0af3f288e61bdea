import keras
import numpy as np
import pytest
import tensorflow as tf

from sweeps.harness.training.fused_adam import FusedAdam

RNG = np.random.default_rng(0)
START = RNG.normal(size=(4, 3))
GRADIENTS = RNG.normal(1.0, [[0.1, 1.0, 10.0]], size=(30, 4, 3))


def reference(learning_rate, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Algorithm 1 of the paper, epsilon where the end of its section 2 has it."""
    w, m, v = START.copy(), 0.0, 0.0
    for t, g in enumerate(GRADIENTS, start=1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        rate = learning_rate(t - 1) * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        w = w - rate * m / (np.sqrt(v) + epsilon)
    return w


def trained(optimizer, jit_compile=False):
    weights = keras.Variable(START, dtype="float64")
    optimizer.build([weights])

    @tf.function(jit_compile=jit_compile)
    def step(gradient):
        optimizer.apply([gradient], [weights])

    for gradient in GRADIENTS:
        step(tf.constant(gradient))
    return weights.numpy()


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_the_paper(jit_compile):
    optimizer = FusedAdam(0.01)
    # Keras keeps the learning rate in float32.
    expected = reference(lambda _: np.float64(np.float32(0.01)))
    np.testing.assert_allclose(trained(optimizer, jit_compile), expected, rtol=1e-12)


def test_options_and_schedule_as_in_keras():
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, 10, 0.5)
    options = {"learning_rate": rate, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-2}
    expected = trained(keras.optimizers.Adam(**options))
    np.testing.assert_allclose(trained(FusedAdam(**options)), expected, rtol=1e-6)
    assert np.abs(expected - START).max() > 0.1
