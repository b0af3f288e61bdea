"""Every option of the layer agrees with the same computation by hand."""

import doctest

import keras
import numpy as np
import pytest

import kerasbn.batch_norm
from kerasbn import BatchNorm, reference

from .matrices import half_by_default


def constant(value):
    return keras.initializers.Constant(value)


def weights_of(layer):
    return [keras.ops.convert_to_numpy(w.value) for w in layer.weights]


def test_example_in_the_docstring_runs():
    results = doctest.testmod(kerasbn.batch_norm)
    assert results.attempted > 0
    assert results.failed == 0


# The moving averages.


def test_momentum_is_the_weight_of_the_old_average(features, assert_close):
    layer = BatchNorm(
        momentum=0.7,
        moving_mean_initializer=constant(5.0),
        moving_variance_initializer=constant(3.0),
    )
    first, second = features((20, 4)), features((20, 4), seed=1)
    layer(first, training=True)
    layer(second, training=True)
    assert_close(layer.moving_mean, 0.49 * 5 + 0.21 * first.mean(0) + 0.3 * second.mean(0))
    assert_close(layer.moving_variance, 0.49 * 3 + 0.21 * first.var(0) + 0.3 * second.var(0))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99, 0.999999, 1.0])
def test_debiased_average_is_the_normalized_exponential_one(features, assert_close, momentum):
    layer = BatchNorm(
        momentum=momentum,
        debias=True,
        moving_mean_initializer=constant(1e3),
        moving_variance_initializer=constant(1e3),
    )
    batches = [features((20, 4), seed=seed) for seed in range(6)]
    for t, batch in enumerate(batches, 1):
        layer(batch, training=True)
        share = momentum ** np.arange(t - 1, -1, -1.0)
        share /= share.sum()
        means, variances = (np.array([f(b, 0) for b in batches[:t]]) for f in (np.mean, np.var))
        assert_close(layer.moving_mean, share @ means, 1e-6)
        assert_close(layer.moving_variance, share @ variances, 1e-6)


def test_cumulative_average_weighs_every_batch_the_same(features, assert_close):
    layer = BatchNorm(
        momentum=None,
        moving_mean_initializer=constant(1e3),
        moving_variance_initializer=constant(1e3),
    )
    batches = np.array([features((20, 4), seed=seed) for seed in range(6)])
    for batch in batches:
        layer(batch, training=True)
    assert_close(layer.moving_mean, batches.mean((0, 1)), 1e-6)
    assert_close(layer.moving_variance, batches.var(1).mean(0), 1e-6)


def test_unbiased_variance_feeds_the_average_only(features, assert_close):
    x = features((5, 4))
    layer = BatchNorm(momentum=0.0, unbiased_variance=True)
    y = layer(x, training=True)
    assert_close(layer.moving_variance, x.var(0, ddof=1))
    assert_close(y, reference.forward(x)[0], axes=0)


def test_unbiased_variance_of_a_single_value_is_zero(features, assert_close):
    layer = BatchNorm(momentum=0.0, unbiased_variance=True)
    layer(features((1, 4)), training=True)
    assert_close(layer.moving_variance, np.zeros(4))


def population(x, mask, unbiased, size):
    """Mean and variance for the moving averages: groups weighted by their unmasked values."""
    total, mean, variance = 0.0, 0.0, 0.0
    for start in range(0, len(x), size):
        run = slice(start, start + size)
        _, cache = reference.forward(x[run], axis=(1, 3), mask=None if mask is None else mask[run])
        m = cache.m
        factor = m / np.maximum(m - 1, 1) if unbiased else 1.0
        total = total + m
        mean = mean + m * cache.mu
        variance = variance + m * cache.sigma2 * factor
    return np.squeeze(mean / total, (0, 2)), np.squeeze(variance / total, (0, 2))


@pytest.mark.parametrize(
    ("momentum", "debias", "unbiased", "size", "masked"),
    half_by_default([0.6, None], [False, True], [False, True], [None, 3], [False, True]),
)
def test_options_of_the_averages_combine(
    features, assert_close, double, momentum, debias, unbiased, size, masked
):
    shape = (7, 3, 4, 2)
    mask = np.random.default_rng(2).random((*shape[:-1], 1)) < 0.6 if masked else None
    fed = []
    with double():
        layer = BatchNorm(
            axis=(1, 3),
            momentum=momentum,
            debias=debias,
            unbiased_variance=unbiased,
            virtual_batch_size=size,
            dtype="float64",
        )
        for seed in range(2):
            x = features(shape, (1, 3), seed=seed, dtype="float64")
            layer(x, training=True, mask=mask[..., 0] if masked else None)
            fed.append(population(x, mask, unbiased, size or len(x)))
    shares = {
        (0.6, False): [0.24, 0.4],
        (0.6, True): [0.24 / 0.64, 0.4 / 0.64],
        (None, False): [0.5, 0.5],
        (None, True): [0.5, 0.5],
    }[momentum, debias]
    initial = (
        0.36 if (momentum, debias) == (0.6, False) else 0.0
    )  # weight of the initial variance, 1
    mean, variance = (shares[0] * fed[0][i] + shares[1] * fed[1][i] for i in (0, 1))
    assert_close(layer.moving_mean, mean, 1e-10)
    assert_close(layer.moving_variance, initial + variance, 1e-10)


def test_state_beyond_kerass_exists_only_with_its_option():
    def names(**options):
        layer = BatchNorm(**options)
        layer.build((None, 3))
        return [w.name for w in layer.weights]

    four = ["gamma", "beta", "moving_mean", "moving_variance"]
    assert names(unbiased_variance=True, virtual_batch_size=2) == four
    assert names(momentum=None) == [*four, "update_count"]
    assert names(debias=True) == [*four, "update_count"]
    assert names(renorm=True) == [*four, "moving_stddev", "renorm_mean", "renorm_stddev"]
    assert names(center=False, scale=False) == four[2:]


# Training and inference.


@pytest.mark.parametrize("training", [False, None])
def test_inference_normalizes_with_the_moving_averages(features, assert_close, training):
    x = features((6, 4))
    layer = BatchNorm(
        moving_mean_initializer=constant([1.0, 2.0, 3.0, 4.0]),
        moving_variance_initializer=constant([0.5, 1.0, 2.0, 9.0]),
        gamma_initializer=constant([1.0, 2.0, 3.0, 4.0]),
        beta_initializer=constant(0.25),
    )
    y = layer(x, training=training)
    expected = (x - [1, 2, 3, 4]) / np.sqrt(np.array([0.5, 1, 2, 9]) + 1e-3) * [1, 2, 3, 4] + 0.25
    assert_close(y, expected, axes=0)


@pytest.mark.parametrize("options", [{}, {"renorm": True}, {"debias": True}])
def test_inference_updates_nothing(features, options):
    layer = BatchNorm(**options)
    layer.build((6, 4))
    before = weights_of(layer)
    layer(features((6, 4)), training=False)
    np.testing.assert_equal(weights_of(layer), before)


def test_layer_that_is_not_trainable_is_in_inference_mode(features, assert_close):
    x = features((6, 4))
    layer = BatchNorm(trainable=False)
    assert_close(layer(x, training=True), x / np.sqrt(1 + 1e-3))
    assert_close(layer.moving_mean, np.zeros(4))


# Ghost batches.


@pytest.mark.parametrize(("n", "masked"), half_by_default([1, 4, 8, 9, 11], [False, True]))
def test_ghost_batches_are_the_groups_one_by_one(features, run, assert_close, n, masked):
    shape = (n, 3, 5)
    x, dy = features(shape), features(shape, seed=1)
    mask = np.random.default_rng(2).random(shape[:-1]) < 0.7 if masked else None
    ghost = run(BatchNorm(virtual_batch_size=4), x, dy, mask=mask)
    groups = []
    for start in range(0, n, 4):
        part = slice(start, start + 4)
        m = None if mask is None else mask[part, :, None]
        y, cache = reference.forward(x[part], mask=m)
        groups.append((y, *reference.backward(dy[part], cache)))
    y, dx, dgamma, dbeta = zip(*groups, strict=True)
    assert_close(ghost.y, np.concatenate(y), axes=(0, 1))
    assert_close(ghost.dx, np.concatenate(dx), axes=(0, 1))
    assert_close(ghost.dgamma, sum(dgamma))
    assert_close(ghost.dbeta, sum(dbeta))


def test_ghost_batches_of_axes_that_alternate(features, run, assert_close):
    # Kept and reduced axes alternate six times, and TensorFlow can broadcast over five.
    x, dy = features((4, 3, 2, 3, 2), (1, 3)), features((4, 3, 2, 3, 2), (1, 3), seed=1)
    ghost = run(BatchNorm(axis=(1, 3), virtual_batch_size=2), x, dy)
    y, caches = zip(*(reference.forward(x[i : i + 2], axis=(1, 3)) for i in (0, 2)), strict=True)
    dx, dgamma, _ = zip(
        *(reference.backward(dy[i : i + 2], c) for i, c in zip((0, 2), caches, strict=True)),
        strict=True,
    )
    assert_close(ghost.y, np.concatenate(y), axes=(0, 2, 4))
    assert_close(ghost.dx, np.concatenate(dx), axes=(0, 2, 4))
    assert_close(ghost.dgamma, sum(dgamma))


def test_ghost_batches_leave_inference_alone(features):
    x = features((9, 4))
    plain, ghost = BatchNorm(), BatchNorm(virtual_batch_size=4)
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(f(x)) for f in (plain, ghost)))


def test_group_larger_than_the_batch_is_the_batch(features, assert_close):
    x = features((5, 4))
    plain, ghost = BatchNorm(momentum=0.0), BatchNorm(momentum=0.0, virtual_batch_size=64)
    assert_close(ghost(x, training=True), keras.ops.convert_to_numpy(plain(x, training=True)), 1e-6)
    assert_close(ghost.moving_variance, plain.moving_variance, 1e-6)


# Axes.


@pytest.mark.parametrize("axis", [(1, 3), (3, 1), [-1, -3]])
def test_every_index_combination_of_the_axes_is_a_feature(features, assert_close, axis):
    x = features((6, 3, 4, 2), (1, 3))
    layer = BatchNorm(axis=axis, momentum=0.0)
    y = layer(x, training=True)
    assert layer.gamma.shape == (3, 2)
    assert_close(layer.moving_mean, x.mean((0, 2)))
    assert_close(layer.moving_variance, x.var((0, 2)))
    assert_close(y, reference.forward(x, axis=(1, 3))[0], axes=(0, 2))


def test_axis_first_is_axis_last_of_the_transposed_input(features, run, assert_close):
    x, dy = features((6, 3, 4, 5), 1), features((6, 3, 4, 5), 1, seed=1, means=(-2, 2))
    first = run(BatchNorm(axis=1), x, dy)
    last = run(BatchNorm(), np.moveaxis(x, 1, -1), np.moveaxis(dy, 1, -1))
    assert_close(first.y, np.moveaxis(last.y, -1, 1), axes=(0, 2, 3))
    assert_close(first.dx, np.moveaxis(last.dx, -1, 1), axes=(0, 2, 3))
    assert_close(first.dgamma, last.dgamma)


@pytest.mark.parametrize(("shape", "axis"), [((4,), -1), ((2, 3), (0, 1))])
def test_no_reduced_axis_makes_each_value_a_feature(features, run, assert_close, shape, axis):
    x = features(shape, axis)
    layer = BatchNorm(axis=axis, momentum=0.0)
    result = run(layer, x, np.ones_like(x))
    assert_close(result.y, np.zeros(shape))
    assert_close(result.dx, np.zeros(shape))
    assert_close(result.dbeta, np.ones(shape))
    assert_close(layer.moving_mean, x, 0)


# Renormalization.


def test_renorm_without_clipping_normalizes_with_the_moving_statistics(features, run, assert_close):
    layer = BatchNorm(renorm=True)
    layer.build((6, 4))
    mean, deviation = np.array([1, -2, 30, 4.0]), np.array([0.5, 1, 7, 3.0])
    layer.renorm_mean.assign(mean)
    layer.renorm_stddev.assign(deviation)
    x = features((6, 4))
    assert_close(run(layer, x).y, (x - mean) / deviation, axes=0)


def test_renorm_divides_by_the_root_of_epsilon_at_least(features, run, assert_close):
    layer = BatchNorm(renorm=True, epsilon=0.25, moving_variance_initializer="zeros")
    x = features((6, 4))
    assert_close(run(layer, x).y, x / 0.5, axes=0)


def test_renorm_in_float64_is_exact(features, run, assert_close, double):
    x = features((6, 4), dtype="float64")
    clipping = {"rmin": 0.7, "rmax": 1.4, "dmax": 0.3}
    with double():
        layer = BatchNorm(renorm=True, renorm_clipping=clipping, dtype="float64")
        layer.build(x.shape)
        layer.renorm_mean.assign(x.mean(0) * [1.01, 0.99, 2, 1])
        layer.renorm_stddev.assign(x.std(0) * [1.2, 3, 1, 0.1])
        y = run(layer, x).y
    x_hat, cache = reference.forward(x)
    old = x.std(0) * [1.2, 3, 1, 0.1]
    r = np.clip(np.sqrt(cache.sigma2 + 1e-3) / old, 0.7, 1.4)
    d = np.clip((cache.mu - x.mean(0) * [1.01, 0.99, 2, 1]) / old, -0.3, 0.3)
    assert_close(y, x_hat * r + d, 1e-10, axes=0)


def test_renorm_clipped_to_nothing_is_plain(features, run, assert_close):
    clipping = {"rmin": 1.0, "rmax": 1.0, "dmax": 0.0}
    x, dy = features((6, 4)), features((6, 4), seed=1)
    plain = run(BatchNorm(), x, dy)
    renormed = run(BatchNorm(renorm=True, renorm_clipping=clipping), x, dy)
    for actual, desired in zip(renormed, plain, strict=True):
        assert_close(actual, desired, 1e-6)


def test_renorm_corrections_are_constants_to_the_gradient(features, run, assert_close):
    layer = BatchNorm(renorm=True)
    layer.build((6, 4))
    layer.renorm_stddev.assign([0.5, 1, 7, 3.0])
    x, dy = features((6, 4)), features((6, 4), seed=1)
    _, cache = reference.forward(x)
    r = np.sqrt(cache.sigma2 + 1e-3) / [0.5, 1, 7, 3]
    assert_close(run(layer, x, dy).dx, r * reference.backward(dy, cache)[0], axes=0)


def test_renorm_counts_unmasked_values_only(features, assert_close):
    x = features((6, 5, 4))
    mask = np.random.default_rng(2).random((6, 5)) < 0.5
    layer = BatchNorm(renorm=True, momentum=0.0, renorm_momentum=0.0)
    layer(x, training=True, mask=mask)
    assert_close(layer.moving_mean, x[mask].mean(0))
    assert_close(layer.moving_variance, x[mask].var(0))
    assert_close(layer.renorm_mean, x[mask].mean(0))
    assert_close(layer.renorm_stddev, np.sqrt(x[mask].var(0) + 1e-3))


def test_renorm_moves_its_own_averages_by_renorm_momentum(features, assert_close):
    x = features((6, 4))
    layer = BatchNorm(
        renorm=True, momentum=0.9, renorm_momentum=0.4, moving_mean_initializer=constant(2.0)
    )
    layer(x, training=True)
    assert_close(layer.renorm_mean, 0.4 * 2 + 0.6 * x.mean(0))
    assert_close(layer.moving_mean, 0.9 * 2 + 0.1 * x.mean(0))
    deviation = 0.9 * 1 + 0.1 * np.sqrt(x.var(0) + 1e-3)
    assert_close(layer.moving_stddev, deviation)
    assert_close(layer.moving_variance, deviation**2 - 1e-3)


# Parameters.


def test_initializers_set_the_weights():
    layer = BatchNorm(
        beta_initializer=constant(1.0),
        gamma_initializer=constant(2.0),
        moving_mean_initializer=constant(3.0),
        moving_variance_initializer=constant(4.0),
    )
    layer.build((None, 2))
    np.testing.assert_array_equal(weights_of(layer), [[2, 2], [1, 1], [3, 3], [4, 4]])


def test_regularizers_add_their_losses(assert_close):
    layer = BatchNorm(
        gamma_initializer=constant(3.0),
        beta_initializer=constant(-5.0),
        gamma_regularizer=keras.regularizers.L2(0.1),
        beta_regularizer=keras.regularizers.L1(0.01),
    )
    layer.build((None, 2))
    assert_close(keras.ops.stack(layer.losses), [0.1 * 2 * 9, 0.01 * 2 * 5])


def test_constraints_hold_after_a_step_of_training(features):
    layer = BatchNorm(
        gamma_constraint=keras.constraints.MaxNorm(0.5),
        beta_constraint=keras.constraints.NonNeg(),
        beta_initializer=constant(0.01),
    )
    model = keras.Sequential([layer])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    x = features((8, 4))
    model.fit(x, -np.abs(x), epochs=1, verbose=0)
    gamma, beta, *_ = weights_of(layer)
    assert np.linalg.norm(gamma) == pytest.approx(0.5, rel=1e-5)
    assert (beta == 0).all()
