"""The layer inside models, in every way that Keras can train and call them."""

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm

ON_TENSORFLOW = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a feature of TensorFlow"
)


class Subclassed(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.norm = layer
        self.head = keras.layers.Dense(1)

    def call(self, x, training=None):
        return self.head(self.norm(x, training=training))


def functional(layer):
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))


def sequential(layer):
    return keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1)])


BUILDERS = [sequential, functional, Subclassed]


@pytest.mark.parametrize("build", BUILDERS)
def test_fit_moves_the_averages_and_learns(features, assert_close, build):
    x = features((40, 4))
    layer = BatchNorm(momentum=None)
    model = build(layer)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    y = (x[:, :1] - x[:, :1].mean()) / x[:, :1].std()
    history = model.fit(x, y, batch_size=10, epochs=5, shuffle=False, verbose=0)
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]
    # Every epoch has the same four batches, so the average is the mean of their means.
    assert_close(layer.moving_mean, x.mean(0))
    assert_close(layer.moving_variance, x.reshape(4, 10, 4).var(1).mean(0))


def test_train_on_batch_uses_the_batch_and_predict_the_averages(features, assert_close):
    x = features((16, 4))
    layer = BatchNorm(momentum=0.0)
    model = functional(layer)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    before = model.predict(x, verbose=0)
    model.train_on_batch(x, np.ones((16, 1)))
    after = model.predict(x, verbose=0)
    assert_close(layer.moving_variance, x.var(0))
    kernel, bias = model.layers[-1].get_weights()
    assert_close(before, x / np.sqrt(1 + 1e-3) @ kernel + bias)
    assert_close(after, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3) @ kernel + bias)


@ON_TENSORFLOW
@pytest.mark.parametrize(
    "options", [{}, {"virtual_batch_size": 4}, {"renorm": True, "debias": True}], ids=str
)
def test_fit_compiled_equals_fit_run_eagerly(features, assert_close, options):
    x = features((26, 4))  # batches of 10, 10 and 6
    weights = []
    for how in ({"run_eagerly": True}, {"jit_compile": True}):
        layer = BatchNorm(momentum=0.5, **options)
        model = keras.Sequential([keras.Input((4,)), layer])
        model.compile(keras.optimizers.SGD(0.1), "mse", **how)
        model.fit(x, np.tanh(x), batch_size=10, shuffle=False, verbose=0)
        weights.append(layer.weights)
    for weight, expected in zip(*weights, strict=True):
        assert_close(weight, expected)


@pytest.mark.parametrize("options", [{}, {"virtual_batch_size": 3}, {"momentum": None}], ids=str)
def test_input_of_unknown_sizes(features, assert_close, options):
    layer = BatchNorm(**options)
    model = keras.Sequential([keras.Input((None, None, 4)), layer])
    assert model.output_shape == (None, None, None, 4)
    model.compile("sgd", "mse")
    expected = np.zeros(4)
    for step, shape in enumerate([(5, 2, 3, 4), (7, 3, 2, 4)]):
        x = features(shape, seed=step)
        model.train_on_batch(x, x)
        mean = x.mean((0, 1, 2))
        rate = 1 / (step + 1) if "momentum" in options else 0.01
        expected = (1 - rate) * expected + rate * mean
    assert_close(layer.moving_mean, expected)


def test_symbolic_call_in_training_mode(features):
    inputs, mask = keras.Input((3, 4)), keras.Input((3,), dtype="bool")
    outputs = BatchNorm(axis=1, virtual_batch_size=2)(inputs, training=True, mask=mask)
    assert outputs.shape == (None, 3, 4)
    x = features((5, 3, 4))
    y = keras.Model([inputs, mask], outputs)([x, np.ones((5, 3), bool)])
    assert np.isfinite(keras.ops.convert_to_numpy(y)).all()


def test_freezing_the_model_freezes_the_averages(features):
    layer = BatchNorm()
    model = sequential(layer)
    layer.trainable = False
    model.compile("sgd", "mse")
    before = layer.get_weights()
    model.fit(features((16, 4)), np.ones((16, 1)), verbose=0)
    np.testing.assert_array_equal(layer.get_weights(), before)


@pytest.mark.parametrize("training", [np.bool_(True), np.array(True), 1])
def test_training_may_be_anything_true(features, assert_close, training):
    x = features((6, 4))
    layer = BatchNorm(momentum=0.0)
    layer(x, training=training)
    assert_close(layer.moving_mean, x.mean(0))


def test_stateless_call_returns_the_averages_and_keeps_its_own(features, assert_close):
    x = features((6, 4))
    layer = BatchNorm(momentum=0.0)
    layer.build(x.shape)
    weights = [
        [w.value for w in ws] for ws in (layer.trainable_weights, layer.non_trainable_weights)
    ]
    _, (mean, variance) = layer.stateless_call(*weights, x, training=True)
    assert_close(mean, x.mean(0))
    assert_close(variance, x.var(0))
    assert_close(layer.moving_mean, np.zeros(4))


def test_time_distributed(features):
    x = features((6, 3, 4))
    layer = BatchNorm(momentum=0.5)
    model = keras.Sequential([keras.Input((3, 4)), keras.layers.TimeDistributed(layer)])
    model.compile("sgd", "mse")
    model.fit(x, x, verbose=0)
    assert np.abs(layer.get_weights()[2]).min() > 0
    assert np.isfinite(model.predict(x, verbose=0)).all()


@ON_TENSORFLOW
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("options", [{"axis": 1}, {"virtual_batch_size": 4}], ids=str)
def test_custom_loop_over_batches_of_different_sizes(features, assert_close, jit_compile, options):
    import tensorflow as tf

    layer = BatchNorm(momentum=None, **options)
    layer.build((None, 3, 4))
    signature = [tf.TensorSpec([None, 3, 4]), tf.TensorSpec([None, None], tf.bool)]
    if jit_compile:  # XLA compiles once for every size
        signature = None

    @tf.function(jit_compile=jit_compile, input_signature=signature)
    def step(x, mask):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(layer(x, training=True, mask=mask) - 1.0))
        return loss, tape.gradient(loss, [w.value for w in layer.trainable_weights])

    axis = options.get("axis", -1)
    means = []
    for seed, size in enumerate((8, 5)):
        x = features((size, 3, 4), axis, seed=seed)
        mask = np.random.default_rng(seed).random((size, 3)) < 0.8
        loss, gradients = step(tf.constant(x), tf.constant(mask))
        assert np.isfinite([loss, *(tf.norm(g) for g in gradients)]).all()
        counted = np.ma.array(x, mask=np.broadcast_to(~mask[..., None], x.shape))
        means.append(counted.mean((0, 1) if axis == -1 else (0, 2)).filled(np.nan))
    assert_close(layer.moving_mean, np.mean(means, 0))


@ON_TENSORFLOW
def test_fit_on_a_dataset_with_a_smaller_last_batch(features, assert_close):
    import tensorflow as tf

    x = features((25, 4))
    layer = BatchNorm(momentum=None, virtual_batch_size=4)
    model = keras.Sequential([layer])
    model.compile("sgd", "mse")
    model.fit(tf.data.Dataset.from_tensor_slices((x, x)).batch(10), shuffle=False, verbose=0)
    assert_close(layer.moving_mean, np.mean([x[:10].mean(0), x[10:20].mean(0), x[20:].mean(0)], 0))
