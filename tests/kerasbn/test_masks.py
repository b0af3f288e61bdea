"""Masked values do not count: statistics equal those of the unmasked values, gathered by hand."""

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm


def some(shape, share=0.6):
    return np.random.default_rng(5).random(shape) < share


def test_statistics_are_those_of_the_unmasked_values(features, assert_close):
    x = features((6, 5, 4))
    mask = some((6, 5))
    layer = BatchNorm(momentum=0.0)
    y = layer(x, training=True, mask=mask)
    counted = x[mask]
    assert_close(layer.moving_mean, counted.mean(0))
    assert_close(layer.moving_variance, counted.var(0))
    assert_close(y, (x - counted.mean(0)) / np.sqrt(counted.var(0) + 1e-3), axes=(0, 1))


def test_masked_training_equals_training_on_the_gathered_values(features, run, assert_close):
    x, dy = features((6, 5, 4)), features((6, 5, 4), seed=1, means=(-2, 2))
    mask = some((6, 5))
    # A masked loss has no gradient at masked positions.
    masked = run(BatchNorm(), x, dy * mask[..., None], mask=mask)
    gathered = run(BatchNorm(), x[mask], dy[mask])
    assert_close(masked.y[mask], gathered.y, axes=0)
    assert_close(masked.dx[mask], gathered.dx, axes=0)
    assert_close(masked.dx[~mask], np.zeros_like(x[~mask]))
    assert_close(masked.dgamma, gathered.dgamma)
    assert_close(masked.dbeta, gathered.dbeta)


def test_axis_1_has_the_statistics_of_its_own_unmasked_values(features, assert_close):
    x = features((6, 5, 4), 1)
    mask = some((6, 5))
    layer = BatchNorm(axis=1, momentum=0.0)
    layer(x, training=True, mask=mask)
    for feature in range(5):
        counted = x[mask[:, feature], feature]
        assert_close(layer.moving_mean[feature], counted.mean())
        assert_close(layer.moving_variance[feature], counted.var())


@pytest.mark.parametrize(("shape", "axis"), [((7, 1), -1), ((7, 4, 1), -1), ((7, 1, 4), 1)])
def test_one_channel(features, assert_close, shape, axis):
    x = features(shape, axis)
    mask = some(shape[:-1])
    layer = BatchNorm(axis=axis, momentum=0.0)
    layer(x, training=True, mask=mask)
    assert_close(layer.moving_mean, [x[mask].mean()])
    assert_close(layer.moving_variance, [x[mask].var()])


@pytest.mark.parametrize("mask_shape", [(1, 5), (6, 1), (1, 1)])
def test_mask_of_size_1_broadcasts(features, run, assert_close, mask_shape):
    x, dy = features((6, 5, 4)), features((6, 5, 4), seed=1, means=(-2, 2))
    mask = np.arange(np.prod(mask_shape)).reshape(mask_shape) % 2 == 0
    small, full = BatchNorm(momentum=0.0), BatchNorm(momentum=0.0)
    actual = run(small, x, dy, mask=mask)
    desired = run(full, x, dy, mask=np.broadcast_to(mask, (6, 5)))
    for array, expected in zip(actual, desired, strict=True):
        assert_close(array, expected, 1e-6)
    assert_close(small.moving_variance, full.moving_variance, 1e-6)


def test_feature_without_a_value_keeps_its_averages(features, assert_close):
    x = features((6, 3, 4), 1)
    mask = np.ones((6, 3), bool)
    mask[:, 1] = False
    layer = BatchNorm(axis=1, momentum=None, moving_mean_initializer="ones")
    layer(x, training=True, mask=mask)
    assert_close(layer.moving_mean, [x[:, 0].mean(), 1.0, x[:, 2].mean()])
    assert_close(layer.moving_variance, [x[:, 0].var(), 1.0, x[:, 2].var()])
    assert_close(layer.update_count, [1, 0, 1])


def test_no_reduced_axis_makes_a_masked_value_a_feature_without_values(features, assert_close):
    x = features((3, 2), (0, 1))
    layer = BatchNorm(axis=(0, 1), momentum=0.0)
    layer(x, training=True, mask=[True, False, True])
    assert_close(layer.moving_mean, [x[0], [0, 0], x[2]], 0)
    assert_close(layer.moving_variance, [[0, 0], [1, 1], [0, 0]], 0)


NOTHING = {
    "plain": {},
    "renorm": {"renorm": True},
    "debias": {"debias": True},
    "cumulative": {"momentum": None},
    "unbiased": {"unbiased_variance": True},
    "ghost": {"virtual_batch_size": 2},
}


@pytest.mark.parametrize("options", NOTHING.values(), ids=NOTHING)
def test_fully_masked_batch_moves_no_average(features, run, options):
    layer = BatchNorm(**options)
    layer.build((5, 3, 4))
    before = [keras.ops.convert_to_numpy(w.value) for w in layer.weights]
    x = features((5, 3, 4))
    result = run(layer, x, x, mask=np.zeros((5, 3), bool))
    assert all(np.isfinite(array).all() for array in result)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight.value), value)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", NOTHING.values(), ids=NOTHING)
def test_empty_batch_moves_no_average(run, options, masked):
    layer = BatchNorm(**options)
    layer.build((None, 3, 4))
    before = [keras.ops.convert_to_numpy(w.value) for w in layer.weights]
    x = np.zeros((0, 3, 4), "float32")
    result = run(layer, x, x, mask=np.zeros((0, 3), bool) if masked else None)
    assert result.y.shape == result.dx.shape == (0, 3, 4)
    np.testing.assert_array_equal([result.dgamma, result.dbeta], np.zeros((2, 4)))
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight.value), value)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_masked_value_spoils_no_statistic(features, assert_close, value):
    x = features((6, 5, 4))
    mask = some((6, 5))
    x[~mask] = value
    layer = BatchNorm(momentum=0.0)
    y = keras.ops.convert_to_numpy(layer(x, training=True, mask=mask))
    assert_close(layer.moving_mean, x[mask].mean(0))
    assert_close(layer.moving_variance, x[mask].var(0))
    assert np.isfinite(y[mask]).all()


@pytest.mark.parametrize("form", [list, np.float32, np.int32, np.bool_])
def test_mask_may_be_of_any_form(features, assert_close, form):
    x = features((6, 4))
    mask = np.array([True, False, True, True, False, True])
    layer = BatchNorm(momentum=0.0)
    layer(x, training=True, mask=form(mask))
    assert_close(layer.moving_mean, x[mask].mean(0))


def test_mask_travels_through_the_layer_to_the_next():
    tokens = np.array([[3, 1, 0], [2, 0, 0]])
    inputs = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(5, 4, mask_zero=True)(inputs)
    pooled = keras.layers.GlobalAveragePooling1D()(BatchNorm()(embedded))
    model = keras.Model(inputs, pooled)
    y = keras.ops.convert_to_numpy(model(tokens))
    table = keras.ops.convert_to_numpy(model.layers[1].embeddings.value) / np.sqrt(1 + 1e-3)
    expected = [table[[3, 1]].mean(0), table[2]]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-7)


def test_mask_is_of_no_consequence_in_inference(features):
    x = features((6, 5, 4))
    layer = BatchNorm()
    masked, plain = (
        keras.ops.convert_to_numpy(layer(x, mask=mask)) for mask in (some((6, 5)), None)
    )
    np.testing.assert_array_equal(masked, plain)
