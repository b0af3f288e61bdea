"""Bugs that users reported in other batch norms, tried on this layer.

Each test names the report, as repository#number on GitHub, and the symptom. The bugs of tools and
of saved files are in test_reported_bugs_in_tools.py.
"""

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm

EPSILON = 1e-3


def normalized(x, axes, where=None):
    """x normalized by its own statistics in float64, and the mean and the variance as vectors."""
    x = np.asarray(x, "float64")
    where = np.ones(x.shape, bool) if where is None else np.broadcast_to(where, x.shape)
    mean = x.mean(axes, keepdims=True, where=where)
    variance = np.square(x - mean).mean(axes, keepdims=True, where=where)
    return (x - mean) / np.sqrt(variance + EPSILON), mean.ravel(), variance.ravel()


def fit(model, x, epochs=1, batch_size=None, **options):
    """Trains a model towards zeros, with a learning rate of 0 by default."""
    model.compile(keras.optimizers.SGD(0.0), "mse", **options)
    y = np.zeros(model.outputs[0].shape[1:])
    y = np.broadcast_to(y, (len(x[0] if isinstance(x, list) else x), *y.shape))
    model.fit(x, y, epochs=epochs, batch_size=batch_size or len(y), verbose=0)


class TestMasks:
    def test_mask_of_too_low_rank_is_explained(self, features):
        """keras-team/keras#19818: an obscure broadcasting error."""
        with pytest.raises(ValueError, match="mask"):
            BatchNorm()(features((1, 2, 3, 4)), mask=np.ones((1, 2), bool), training=True)

    def test_broadcast_mask(self, features, run, assert_close):
        """keras-team/keras#19848: a mask that broadcasts over an axis gives wrong statistics."""
        x, mask = features((2, 2, 3, 4)), np.array([[1, 0], [1, 1]], bool)[..., None]
        layer = BatchNorm(momentum=0.0)
        y = run(layer, x, mask=mask).y
        expected, mean, variance = normalized(x, (0, 1, 2), mask[..., None])
        assert_close(y, expected)
        assert_close(layer.moving_mean, mean)
        assert_close(layer.moving_variance, variance)

    def test_concatenated_masked_embeddings(self, assert_close):
        """keras-team/keras#21581: an exception in `fit` after a `Concatenate` of two masks."""
        ids = np.random.default_rng(0).integers(0, 4, (2, 8, 6))
        ids[:, :, 4:] = 0  # padding
        inputs = [keras.Input((6,)) for _ in ids]
        embeddings = [keras.layers.Embedding(4, 3, mask_zero=True) for _ in ids]
        embedded = [layer(x) for layer, x in zip(embeddings, inputs, strict=True)]
        layer = BatchNorm(momentum=0.0)
        outputs = layer(keras.layers.Concatenate()(embedded))
        fit(keras.Model(inputs, keras.layers.Dense(1)(outputs)), list(ids))
        tables = [keras.ops.convert_to_numpy(e.embeddings) for e in embeddings]
        x = np.concatenate([t[i] for t, i in zip(tables, ids, strict=True)], -1)
        _, mean, variance = normalized(x, (0, 1), (ids > 0).any(0)[..., None])
        assert_close(layer.moving_mean, mean)
        assert_close(layer.moving_variance, variance)

    @pytest.mark.parametrize("options", [{}, {"renorm": True}])
    def test_padding_changes_no_statistic(self, features, assert_close, options):
        """tensorflow/tensorflow#30161: padding counts; #30298: renorm does not support masks."""
        x = features((8, 5, 2))
        padded = np.concatenate([x, np.full((8, 3, 2), -10.0, "float32")], 1)
        layers = []
        for data in (x, padded):
            layers.append(BatchNorm(momentum=0.5, **options))
            first = [keras.Input(data.shape[1:]), keras.layers.Masking(-10.0)]
            fit(keras.Sequential([*first, layers[-1]]), data, epochs=2)
        for weight, expected in zip(layers[1].weights, layers[0].weights, strict=True):
            assert_close(weight, expected)


class TestTypes:
    @pytest.mark.parametrize("dtype", ["float16", "mixed_float16"])
    def test_large_float16_inputs(self, run, assert_close, dtype):
        """keras-team/keras#9582: no float16 at all; #22586: NaN from values of 60,000 to 65,000."""
        x = np.random.default_rng(0).uniform(60000, 65000, (1, 16, 16, 4)).astype("float16")
        layer = BatchNorm(momentum=0.0, dtype=dtype)
        y = run(layer, x).y
        expected, mean, variance = normalized(x, (0, 1, 2))
        assert y.dtype == "float16"
        assert_close(y, expected, 1e-3)
        assert_close(layer.moving_mean, mean)
        assert_close(layer.moving_variance, variance)

    def test_float64(self, features, run, assert_close, double):
        """tensorflow/tensorflow#33365, keras-team/keras#11198: float64 is refused."""
        x = features((4, 4, 4, 3), dtype="float64")
        with double():
            layer = BatchNorm(momentum=0.0, dtype="float64")
            y = run(layer, x).y
            expected, _, variance = normalized(x, (0, 1, 2))
            assert_close(y, expected, 1e-12)
            assert_close(layer.moving_variance, variance, 1e-12)

    def test_integers(self, assert_close):
        """keras-team/keras#15778: `fit` fails on uint8 images."""
        x = np.random.default_rng(0).integers(0, 256, (64, 5), "uint8")
        layer = BatchNorm(momentum=0.0)
        fit(keras.Sequential([keras.Input((5,), dtype="uint8"), layer]), x)
        _, mean, variance = normalized(x, 0)
        assert_close(layer.moving_mean, mean)
        assert_close(layer.moving_variance, variance)


class TestAxes:
    def test_first_axis_of_images_of_any_size(self, features, assert_close):
        """keras-team/keras#10648: `axis=1` fails in a graph ("Shape must be rank 1")."""
        x, layer = features((4, 3, 6, 5), 1), BatchNorm(axis=1, momentum=0.0)
        model = keras.Sequential([keras.Input((3, None, None)), layer])
        model.compile(keras.optimizers.SGD(0.0), "mse")
        model.fit(x, np.zeros_like(x), batch_size=4, verbose=0)
        expected, mean, _ = normalized(x, (0, 2, 3))
        assert_close(layer.moving_mean, mean)
        assert_close(model.predict(x, verbose=0), expected)

    def test_tuple(self, features, run, assert_close):
        """keras-team/keras#12126: a tuple for `axis` is refused."""
        x = features((6, 3, 2), (1, 2))
        assert_close(run(BatchNorm(axis=(1, 2)), x).y, normalized(x, 0)[0], axes=0)


class TestBatchSizes:
    @pytest.mark.parametrize("unbiased", [False, True])
    def test_one_value_per_feature(self, features, run, unbiased):
        """pytorch/pytorch#1381, tensorflow/tensorflow#34062: the moving variance becomes NaN."""
        layer = BatchNorm(unbiased_variance=unbiased)
        x = features((1, 1, 1, 3))
        assert np.all(run(layer, x).y == 0)
        np.testing.assert_allclose(layer.moving_variance, 0.99, rtol=1e-6)
        np.testing.assert_allclose(layer.moving_mean, 0.01 * x.ravel(), rtol=1e-5)

    def test_no_examples(self, run):
        """pytorch/pytorch#12013: an empty batch makes the running mean NaN."""
        layer = BatchNorm()
        assert run(layer, np.zeros((0, 9, 5), "float32")).y.shape == (0, 9, 5)
        run(layer, np.ones((2, 9, 5), "float32"), mask=np.zeros((2, 9), bool))
        assert np.all(keras.ops.convert_to_numpy(layer.moving_mean) == 0)
        assert np.all(keras.ops.convert_to_numpy(layer.moving_variance) == 1)

    def test_last_batch_of_one_example(self, features, assert_close):
        """pytorch/pytorch#4534: an exception for the last batch of an epoch."""
        x, layer = features((21, 3)), BatchNorm(momentum=0.5)
        fit(keras.Sequential([keras.Input((3,)), layer]), x[:20], batch_size=10)
        before = keras.ops.convert_to_numpy(layer.moving_mean)
        fit(keras.Sequential([keras.Input((3,)), layer]), x[20:])
        assert_close(layer.moving_mean, 0.5 * before + 0.5 * x[20])

    def test_last_ghost_batch_of_one_example(self, features, run, assert_close):
        """dreamquark-ai/tabnet#384: an exception for 101 examples in ghost batches of 10."""
        x = features((101, 3))
        groups = [normalized(x[i : i + 10], 0) for i in range(0, 101, 10)]
        layer = BatchNorm(momentum=0.0, virtual_batch_size=10)
        assert_close(run(layer, x).y, np.concatenate([y for y, *_ in groups]))
        sizes = [10] * 10 + [1]
        assert_close(layer.moving_variance, np.average([v for *_, v in groups], 0, sizes))

    def test_ghost_batches_are_for_training_alone(self, features, run, assert_close):
        """keras-team/keras#15790: inference fails unless the ghost batch size divides the batch."""
        x, layer = features((7, 3)), BatchNorm(virtual_batch_size=4)
        assert_close(run(layer, x, training=False).y, x / np.sqrt(1 + EPSILON))

    def test_ghost_batches_of_unknown_shape(self, features, assert_close):
        """tensorflow/tensorflow#32380: `virtual_batch_size` fails if a size is None."""
        x, layer = features((6, 4, 4, 3)), BatchNorm(momentum=0.0, virtual_batch_size=4)
        model = keras.Sequential([keras.Input((None, None, 3)), layer])
        model.compile(keras.optimizers.SGD(0.0), "mse")
        model.fit(x, np.zeros_like(x), batch_size=6, verbose=0)
        means = [normalized(group, (0, 1, 2))[1] for group in (x[:4], x[4:])]
        assert_close(layer.moving_mean, np.average(means, 0, [4, 2]))


class TestExactness:
    def test_variance_is_not_negative(self, run, assert_close, mode):
        """google/flax#1491, keras-team/keras#18795: rounding gives a negative variance."""
        x = 1e4 + np.random.default_rng(0).normal(size=(32, 8, 8, 2)).astype("float32") * 1e-2
        layer = BatchNorm(momentum=0.0)
        y = run(layer, x, mode=mode).y
        expected, _, variance = normalized(x, (0, 1, 2))
        assert_close(y, expected, 1e-3)
        assert_close(layer.moving_variance, variance, 1e-3)

    def test_huge_values_at_the_moving_mean(self, run, mode):
        """tensorflow/tensorflow#117318: XLA returns -1e10 in place of 0 for x = mean = 1e15.

        float32 knows x and the mean to 1e8, which is 4e9 standard deviations here. Under XLA, the
        error stays below that.
        """
        x, layer = np.full((3, 1), 1e15, "float32"), BatchNorm()
        layer.build(x.shape)
        layer.moving_mean.assign([1e15])
        layer.moving_variance.assign([0.0])
        y = run(layer, x, training=False, mode=mode).y
        unit = 1e15 * np.finfo("float32").eps / np.sqrt(layer.epsilon)
        assert np.all(np.abs(y) <= (unit if mode in ("xla", "jit") else 0))

    def test_training_on_pixels(self, assert_close):
        """keras-team/keras#19072: networks with batch norm do not learn in steps under XLA."""
        x = np.random.default_rng(0).integers(0, 256, (64, 6, 6, 2)).astype("float32")
        layer = BatchNorm(momentum=0.0)
        jit = {"jit_compile": True} if keras.backend.backend() != "torch" else {}
        fit(keras.Sequential([keras.Input((6, 6, 2)), layer]), x, **jit)
        _, mean, variance = normalized(x, (0, 1, 2))
        assert_close(layer.moving_mean, mean)
        assert_close(layer.moving_variance, variance)

    def test_moving_variance_does_not_depend_on_the_rank(self, features, run, assert_close):
        """tensorflow/tensorflow#55545: only images get the variance with Bessel's correction."""
        x, flat, image = features((8, 3)), BatchNorm(momentum=0.0), BatchNorm(momentum=0.0)
        run(flat, x)
        run(image, x.reshape(2, 2, 2, 3))
        assert_close(image.moving_variance, normalized(x, 0)[2])
        assert_close(flat.moving_variance, normalized(x, 0)[2])

    def test_population_variance_from_small_batches(self, run, assert_close):
        """keras-team/keras#8982: batches of two give half of the population's variance."""
        x = np.random.default_rng(0).normal(size=(20000, 3)).astype("float32")
        layer = BatchNorm(momentum=0.0, virtual_batch_size=2, unbiased_variance=True)
        run(layer, x)
        assert_close(layer.moving_variance, x.reshape(-1, 2, 3).var(1, ddof=1).mean(0))
        assert_close(layer.moving_variance, np.ones(3), 0.05)


class TestTraining:
    def test_frozen(self, features, assert_close):
        """keras-team/keras#7085, #9965: a frozen layer moves its averages and uses the batch."""
        x, layer = features((16, 3)), BatchNorm()
        model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(1)])
        layer.trainable = False
        before = [np.array(keras.ops.convert_to_numpy(w)) for w in layer.weights]
        fit(model, x, epochs=2)
        for weight, value in zip(layer.weights, before, strict=True):
            assert np.all(keras.ops.convert_to_numpy(weight) == value)
        assert_close(layer(x, training=True), x / np.sqrt(1 + EPSILON))

    def test_time_distributed(self, features, assert_close):
        """keras-team/keras#7466: the averages do not move; #16239: not the wrapped outputs."""
        x, values = features((6, 4, 3)), []
        for cls in (BatchNorm, keras.layers.BatchNormalization):
            layer = keras.layers.TimeDistributed(cls(momentum=0.5))
            fit(keras.Sequential([keras.Input((4, 3)), layer]), x)
            values.append([*layer.layer.weights, layer(x, training=True)])
        assert np.any(keras.ops.convert_to_numpy(values[0][2]) != 0)
        for actual, expected in zip(*values, strict=True):
            assert_close(actual, expected, 1e-4)  # Keras's layer rounds more

    def test_called_three_times_in_a_model(self, assert_close):
        """keras-team/keras#6623: the updates of several calls are added instead of chained."""
        inputs, layer = keras.Input((1,)), BatchNorm(momentum=0.5)
        outputs = [layer(inputs * factor) for factor in (1.0, 2.0, 4.0)]
        fit(keras.Model(inputs, keras.layers.Concatenate()(outputs)), np.full((4, 1), 2.0))
        assert_close(layer.moving_mean, [((2 * 0.5 + 4) * 0.5 + 8) * 0.5])

    def test_renorm(self, features, run, assert_close):
        """keras-team/keras#19063: no backend but TensorFlow has renorm."""
        x = features((32, 3))
        clipping = {"rmax": 3.0, "rmin": 1 / 3, "dmax": 5.0}
        layer = BatchNorm(renorm=True, renorm_clipping=clipping)
        x_hat, mean, variance = normalized(x, 0)
        r = np.clip(np.sqrt(variance + EPSILON), 1 / 3, 3)  # the averages are 0 and 1
        assert_close(run(layer, x).y, x_hat * r + np.clip(mean, -5, 5))

    def test_beta_without_gamma(self, features, run, assert_close):
        """keras-team/keras#19073: `scale=False, center=True` fails on PyTorch."""
        x, dy = features((8, 3)), features((8, 3), seed=1)
        layer = BatchNorm(scale=False, center=True, beta_initializer="ones")
        result = run(layer, x, dy)
        assert_close(result.y, normalized(x, 0)[0] + 1)
        assert_close(result.dbeta, dy.sum(0))

    def test_momentum_none_weights_batches_equally(self, features, run, assert_close):
        """pytorch/pytorch#31498: is `momentum=None` really the average of all batches?"""
        batches = [features((8, 3), seed=seed) for seed in range(3)]
        layer = BatchNorm(momentum=None)
        for x in batches:
            run(layer, x)
        assert_close(layer.moving_mean, np.mean([normalized(x, 0)[1] for x in batches], 0))
        assert_close(layer.moving_variance, np.mean([normalized(x, 0)[2] for x in batches], 0))
