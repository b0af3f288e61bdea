"""Dtype policies: output and state dtypes, no overflow, and exact statistics."""

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm, reference

POLICIES = ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"]
# Relative rounding error of an output: half precision has 11 or 8 significant bits.
ROUNDING = {"float16": 2**-11, "bfloat16": 2**-8}


def half(policy):
    return policy.removeprefix("mixed_")


@pytest.mark.parametrize("policy", [*POLICIES, "float32", "float64"])
def test_output_has_the_compute_dtype(features, double, policy):
    with double():
        layer = BatchNorm(dtype=policy)
        y = layer(features((6, 4)), training=True)
        assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype == half(policy)
        assert layer.gamma.dtype == layer.beta.dtype == layer.variable_dtype


@pytest.mark.parametrize("policy", [*POLICIES, "float32", "float64"])
def test_statistics_are_kept_in_float32_at_least(double, policy):
    with double():
        layer = BatchNorm(dtype=policy, renorm=True, debias=True)
        layer.build((None, 4))
        kept = {w.name: w.dtype for w in layer.non_trainable_weights}
        assert kept.pop("update_count") == "float32"
        assert set(kept.values()) == {"float64" if policy == "float64" else "float32"}


@pytest.mark.parametrize("policy", POLICIES)
def test_float32_inputs_beyond_half_precisions_range(features, assert_close, policy):
    x = features((200, 4), means=(6e4, 8e4), scales=(2e3, 5e3))  # float16 ends at 65,504
    layer = BatchNorm(momentum=0.0, dtype=policy)
    y = layer(x, training=True)
    exact = x.astype("float64")
    assert_close(layer.moving_mean, exact.mean(0), 1e-6)
    assert_close(layer.moving_variance, exact.var(0), 1e-6)
    for output in (y, layer(x)):
        output = keras.ops.cast(output, "float32")
        assert_close(output, reference.forward(x)[0], ROUNDING[half(policy)])


@pytest.mark.parametrize("policy", POLICIES)
def test_half_precision_inputs_of_a_thousand(features, run, assert_close, policy):
    x = features((200, 4), means=(-1e3, 1e3), scales=(500, 1e3))
    x = keras.ops.convert_to_numpy(keras.ops.cast(keras.ops.cast(x, half(policy)), "float32"))
    dy = features((200, 4), seed=1, means=(-1, 1), scales=(0.5, 1))
    layer = BatchNorm(momentum=0.0, dtype=policy)
    result = run(layer, keras.ops.cast(x, half(policy)), dy)
    y, cache = reference.forward(x)
    exact = x.astype("float64")
    assert_close(layer.moving_mean, exact.mean(0), 1e-6)
    assert_close(layer.moving_variance, exact.var(0), 1e-6)
    assert_close(result.y.astype("float32"), y, ROUNDING[half(policy)])
    # dy passes through the cast of the output, so it is rounded too.
    dx = reference.backward(dy, cache)[0]
    assert_close(result.dx.astype("float32"), dx, 3 * ROUNDING[half(policy)], axes=0)


@pytest.mark.parametrize("policy", POLICIES)
def test_moving_averages_of_many_batches_are_not_rounded_away(features, assert_close, policy):
    x = features((50, 4), means=(100, 200), scales=(1, 5))
    layer = BatchNorm(
        momentum=0.99, dtype=policy, moving_mean_initializer=keras.initializers.Constant(90.0)
    )
    exact = x.astype("float64")
    expected = np.full(4, 90.0)
    for _ in range(30):
        layer(x, training=True)
        expected = 0.99 * expected + 0.01 * exact.mean(0)
    assert_close(layer.moving_mean, expected)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_fit_in_mixed_precision_keeps_exact_statistics(features, assert_close, policy):
    x = features((64, 4), means=(6e4, 8e4), scales=(2e3, 5e3))
    layer = BatchNorm(momentum=0.0, dtype=policy)
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1, dtype=policy)])
    model.compile("sgd", "mse")
    model.fit(x, np.ones((64, 1)), batch_size=64, epochs=2, verbose=0)
    assert_close(layer.moving_mean, x.astype("float64").mean(0), 1e-6)
    assert_close(layer.moving_variance, x.astype("float64").var(0), 1e-6)
    assert np.isfinite(model.predict(x, verbose=0)).all()


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_integer_inputs_are_numbers(assert_close, dtype):
    x = np.random.default_rng(0).integers(0, 255, (50, 3)).astype(dtype)
    layer = BatchNorm(momentum=0.0)
    y = layer(x, training=True)
    assert_close(y, reference.forward(x)[0], axes=0)
    assert_close(layer.moving_variance, x.astype("float64").var(0))
