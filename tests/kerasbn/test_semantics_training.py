"""Steps that are not one call per batch: accumulation, shared layers, overflow, `training`."""

import keras
import numpy as np
import pytest

import kerasbn
from kerasbn import BatchNorm, reference

BACKEND = keras.backend.backend()
BOTH = [BatchNorm, keras.layers.BatchNormalization]
EPSILON = 1e-3


def numpy_of(tensor):
    return np.array(keras.ops.convert_to_numpy(tensor))


def state(layer):
    return [numpy_of(weight) for weight in layer.weights]


@pytest.fixture
def modest(features):
    """Makes data with means as large as the deviations, on which Keras's layer is exact."""
    return lambda shape, seed=0: features(shape, seed=seed, means=(-2, 2), scales=(0.5, 2))


class TestGradientAccumulation:
    K = 4

    def averages(self, x, momentum):
        """Moving averages after one optimizer step, which accumulates K micro-batches."""
        layer = BatchNorm(momentum=momentum)
        model = keras.Sequential([keras.Input((3,)), layer])
        optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=self.K)
        model.compile(optimizer, "mse")
        model.fit(x, x, batch_size=len(x) // self.K, shuffle=False, verbose=0)
        return numpy_of(layer.moving_mean), numpy_of(layer.moving_variance)

    @pytest.mark.parametrize("momentum", [0.9, 0.99])
    def test_root_of_momentum_counts_micro_batches_as_one_update(
        self, modest, assert_close, momentum
    ):
        x = modest((40, 3))
        mean, variance = self.averages(x, momentum ** (1 / self.K))
        micro = x.astype("float64").reshape(self.K, -1, 3)
        root = momentum ** (1 / self.K)
        weights = (1 - root) * root ** np.arange(self.K)[::-1]
        assert weights.sum() == pytest.approx(1 - momentum, rel=1e-12)  # as that of one update
        assert_close(mean, weights @ micro.mean(1), 1e-4)
        assert_close(variance, momentum + weights @ micro.var(1), 1e-5)
        # The micro-batches' weights differ by less than (1 - momentum) / 2 from their mean.
        largest = np.abs(weights / weights.mean() - 1).max()
        assert largest < (1 - momentum) / 2
        spread = np.abs(micro.mean(1) - micro.mean((0, 1))).max(0)
        one_update = (1 - momentum) * micro.mean((0, 1))
        assert np.all(np.abs(mean - one_update) <= (1 - momentum) * largest * spread + 1e-6)

    def test_without_it_the_old_average_fades_k_times_as_fast(self, modest, assert_close):
        x = modest((40, 3))
        mean, _ = self.averages(x, 0.9)
        micro = x.astype("float64").reshape(self.K, -1, 3)
        assert_close(mean, 0.1 * 0.9 ** np.arange(self.K)[::-1] @ micro.mean(1), 1e-4)

    def test_cumulative_average_weighs_micro_batches_equally(self, modest, assert_close):
        x = modest((40, 3))
        mean, variance = self.averages(x, None)
        micro = x.astype("float64").reshape(self.K, -1, 3)
        assert_close(mean, micro.mean((0, 1)))
        assert_close(variance, micro.var(1).mean(0))

    def test_ghost_batches_are_the_other_direction(self, modest, assert_close):
        """One large batch with the statistics of K small ones is exactly one update."""
        x = modest((40, 3))
        layer = BatchNorm(momentum=0.9, virtual_batch_size=10)
        y = layer(x, training=True)
        micro = x.astype("float64").reshape(self.K, -1, 3)
        assert_close(layer.moving_mean, 0.1 * micro.mean((0, 1)))
        assert_close(layer.moving_variance, 0.9 + 0.1 * micro.var(1).mean(0))
        expected = [reference.forward(part, None, None, EPSILON)[0] for part in micro]
        assert_close(y, np.concatenate(expected), axes=0)


class TwoCalls(keras.Model):
    """Calls its layer on real and on generated data, like the discriminator of a GAN."""

    def __init__(self, layer):
        super().__init__()
        self.norm = layer

    def call(self, x, training=None):
        return self.norm(x, training=training) - self.norm(2 * x + 1, training=training)


class TestCalledTwice:
    def test_each_call_is_one_update(self, modest, assert_close):
        x = modest((12, 3))
        means = np.array([x.mean(0, "float64"), 2 * x.mean(0, "float64") + 1])
        variances = np.array([x.var(0, "float64"), 4 * x.var(0, "float64")])
        for cls in BOTH:
            model = TwoCalls(cls(momentum=0.75))
            model.compile(keras.optimizers.SGD(0.1), "mse")
            model.fit(x, x, batch_size=12, verbose=0)
            weights = np.array([0.25 * 0.75, 0.25])
            assert_close(model.norm.moving_mean, weights @ means)
            assert_close(model.norm.moving_variance, 0.75**2 + weights @ variances)

    def test_shared_layer_trains_as_kerass(self, modest, assert_close):
        states = []
        for cls in BOTH:
            a, b = keras.Input((3,)), keras.Input((3,))
            layer = cls(momentum=0.75)
            model = keras.Model([a, b], keras.layers.add([layer(a), layer(b)]))
            model.compile(keras.optimizers.SGD(0.1), "mse")
            x = [modest((12, 3)), modest((12, 3), seed=1)]
            model.fit(x, x[0], batch_size=6, epochs=2, shuffle=False, verbose=0)
            states.append(state(layer))
        for actual, expected in zip(*states, strict=True):
            assert_close(actual, expected, 1e-4)


class TestOverflow:
    """Loss scaling skips the optimizer's step after an overflow. Forward has then happened."""

    def trained(self, cls, x, scale):
        layer = cls(momentum=0.75)
        model = keras.Sequential([keras.Input((3,)), layer])
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.1), initial_scale=scale
        )
        model.compile(optimizer, "mse")
        model.train_on_batch(x, np.full((12, 3), 100.0))
        return model, layer

    def test_in_the_gradient_moves_the_averages_alone(self, modest, assert_close):
        x = modest((12, 3))
        for cls in BOTH:
            _, layer = self.trained(cls, x, 1e38)
            gamma, beta, mean, variance = state(layer)
            np.testing.assert_array_equal([gamma, beta], [np.ones(3), np.zeros(3)])
            assert_close(mean, 0.25 * x.mean(0, "float64"))
            assert_close(variance, 0.75 + 0.25 * x.var(0, "float64"))

    @pytest.mark.parametrize("bad", [np.inf, np.nan])
    def test_in_the_input_spoils_one_average_which_recalibrate_repairs(
        self, modest, assert_close, bad
    ):
        x = modest((12, 3))
        spoiled = x.copy()
        spoiled[4, 1] = bad
        for cls in BOTH:
            model, layer = self.trained(cls, spoiled, 8.0)
            gamma, beta, mean, variance = state(layer)
            np.testing.assert_array_equal([gamma, beta], [np.ones(3), np.zeros(3)])
            for values in (mean, variance):
                np.testing.assert_array_equal(np.isfinite(values), [True, False, True])
            assert_close(mean[[0, 2]], 0.25 * x.mean(0, "float64")[[0, 2]])
            kerasbn.recalibrate(model, x, batch_size=12)
            assert_close(layer.moving_mean, x.mean(0, "float64"))
            assert_close(layer.moving_variance, x.var(0, "float64", ddof=1))


class TestTraining:
    @pytest.mark.parametrize("value", [True, False])
    @pytest.mark.parametrize(
        "make", [np.bool_, np.array, keras.ops.convert_to_tensor, int, lambda value: [1] * value]
    )
    def test_any_single_truth_value(self, modest, assert_close, make, value):
        x = modest((8, 3))
        results = []
        for cls in BOTH:
            layer = cls(momentum=0.75)
            results.append((layer(x, training=make(value)), layer.moving_mean))
        for actual, expected in zip(*results, strict=True):
            assert_close(actual, expected)
        right = reference.forward(x, None, None, EPSILON)[0] if value else x / np.sqrt(1 + EPSILON)
        assert_close(results[0][0], right, axes=0)

    def test_several_truth_values(self, modest):
        with pytest.raises(ValueError, match=r"(?s)single truth value.*Pass True or False"):
            BatchNorm()(modest((8, 3)), training=np.array([True, False]))

    def traced(self, layer, x):
        if BACKEND == "tensorflow":
            import tensorflow as tf

            tf.function(lambda x, flag: layer(x, training=flag))(x, tf.constant(True))
        else:
            import jax

            layer.build(x.shape)
            jax.jit(lambda x, flag: layer(x, training=flag))(x, True)

    @pytest.mark.skipif(BACKEND == "torch", reason="every tensor has a value")
    def test_unknown_while_tracing(self, modest):
        """Keras's layer raises an error of the backend."""
        x = modest((8, 3))
        message = "truth value that is known when the layer is called.*needs a Python bool"
        with pytest.raises(ValueError, match=f"(?s){message}"):
            self.traced(BatchNorm(), x)
        with pytest.raises((TypeError, AttributeError)):
            self.traced(keras.layers.BatchNormalization(), x)
