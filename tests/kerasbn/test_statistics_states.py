"""`statistics`: which statistics the layer normalizes with, and when it updates the averages."""

import itertools
import re

import keras
import numpy as np
import pytest

import kerasbn
from kerasbn import BatchNorm, folding, reference

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
GAMMA, BETA = np.array([1.0, 2.0, 0.5]), np.array([0.0, -1.0, 3.0])
MEAN, VARIANCE = np.array([1.0, 2.0, 3.0]), np.array([4.0, 1.0, 9.0])


def layer_with_weights(**options):
    """A layer on three features, with none of its weights at the initial value."""
    layer = BatchNorm(**{"momentum": 0.75, **options})
    layer.build((None, 3))
    named = {"gamma": GAMMA, "beta": BETA, "moving_mean": MEAN, "moving_variance": VARIANCE}
    for weight in layer.weights:
        weight.assign(named.get(weight.name, weight.value))
    return layer


def values(layer):
    return [np.array(keras.ops.convert_to_numpy(w)) for w in layer.non_trainable_weights]


def by_averages(x):
    x_hat = (x - MEAN) / np.sqrt(VARIANCE + 1e-3)
    return GAMMA * x_hat + BETA


def by_batch(x):
    return reference.forward(x, GAMMA, BETA, 1e-3)[0]


# The table of docs/layer.md: (statistics, training, trainable), batch statistics?, updates?
STATES = {
    ("auto", True, True): (True, True),
    ("auto", True, False): (False, False),
    ("auto", False, True): (False, False),
    ("auto", False, False): (False, False),
    ("frozen", True, True): (False, False),
    ("frozen", True, False): (False, False),
    ("frozen", False, True): (False, False),
    ("frozen", False, False): (False, False),
    ("batch", True, True): (True, True),
    ("batch", True, False): (True, False),
    ("batch", False, True): (True, False),
    ("batch", False, False): (True, False),
}


@pytest.mark.parametrize("state", STATES, ids=str)
def test_table(features, assert_close, state):
    statistics, training, trainable = state
    of_batch, updates = STATES[state]
    layer = layer_with_weights()
    layer.statistics, layer.trainable = statistics, trainable
    x = features((10, 3))
    y = layer(x, training=training)
    assert_close(y, by_batch(x) if of_batch else by_averages(x), axes=0)
    rate = 0.25 if updates else 0.0
    x = x.astype("float64")
    assert_close(layer.moving_mean, MEAN + rate * (x.mean(0) - MEAN))
    assert_close(layer.moving_variance, VARIANCE + rate * (x.var(0) - VARIANCE))


OPTIONS = [
    {"renorm": True, "renorm_clipping": {"rmax": 1.5, "dmax": 0.5}},
    {"virtual_batch_size": 4},
    {"debias": True, "unbiased_variance": True},
    {"momentum": None},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_batch_in_inference_is_training_without_updates(features, assert_close, options):
    x, mask = features((10, 3)), np.arange(10) != 4
    expected = layer_with_weights(**options)(x, training=True, mask=mask)
    layer = layer_with_weights(**options, statistics="batch")
    before = values(layer)
    assert_close(layer(x, training=False, mask=mask), expected, axes=0)
    for value, old in zip(values(layer), before, strict=True):
        np.testing.assert_array_equal(value, old)
    layer(x, training=True, mask=mask)
    assert not np.array_equal(values(layer)[0], before[0])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_frozen_in_training_is_inference(features, assert_close, options):
    x = features((10, 3))
    layer = layer_with_weights(**options, statistics="frozen")
    before = values(layer)
    assert_close(layer(x, training=True), by_averages(x), axes=0)
    for value, old in zip(values(layer), before, strict=True):
        np.testing.assert_array_equal(value, old)


def test_gradients_of_frozen_statistics(features, assert_close, run):
    x, dy = features((10, 3)), features((10, 3), seed=1)
    layer = layer_with_weights(statistics="frozen")
    result = run(layer, x, dy)
    std = np.sqrt(VARIANCE + 1e-3)
    assert_close(result.dx, dy * GAMMA / std, axes=0)
    assert_close(result.dgamma, (dy * (x - MEAN) / std).sum(0))
    assert_close(result.dbeta, dy.sum(0))


def test_gradients_of_batch_statistics_in_inference(features, assert_close, run):
    x, dy = features((10, 3)), features((10, 3), seed=1)
    result = run(layer_with_weights(statistics="batch"), x, dy, training=False)
    dx, dgamma, dbeta = reference.backward(dy, reference.forward(x, GAMMA, BETA, 1e-3)[1])
    assert_close(result.dx, dx, axes=0, tolerance=1e-4)
    assert_close(result.dgamma, dgamma)
    assert_close(result.dbeta, dbeta)


def compiled(layer):
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def test_fine_tuning_trains_gamma_and_beta_alone(features, assert_close):
    """Keras issue 4762: the statistics of a trained layer are frozen, the rest goes on."""
    x = features((12, 3), means=(-2, 2), scales=(0.5, 2))
    layer = BatchNorm(momentum=0.5)
    model = compiled(layer)
    model.fit(x, x, batch_size=6, verbose=0)
    layer.statistics = "frozen"
    model.compile(model.optimizer, "mse")
    before, gamma = values(layer), np.array(keras.ops.convert_to_numpy(layer.gamma))
    y = x * 3 - 1
    history = model.fit(x, y, batch_size=12, epochs=200, verbose=0).history["loss"]
    assert history[-1] < 1e-2 * history[0]
    for value, old in zip(values(layer), before, strict=True):
        np.testing.assert_array_equal(value, old)
    assert not np.allclose(keras.ops.convert_to_numpy(layer.gamma), gamma)
    # Training and inference now are the same function.
    assert_close(model(x, training=True), model.predict(x, verbose=0), axes=0)


@pytest.mark.parametrize("how", ["compile", "make functions"])
def test_a_compiled_model_needs_new_functions(features, assert_close, how):
    x = features((8, 3))
    layer = layer_with_weights()
    model = compiled(layer)

    def renew():
        if how == "compile":
            model.compile(model.optimizer, "mse")
        else:
            model.make_train_function(force=True)
            model.make_predict_function(force=True)

    model.fit(x, x, verbose=0)
    model.predict(x, verbose=0)
    layer.statistics = "frozen"
    renew()
    before = values(layer)
    model.fit(x, x, verbose=0)
    np.testing.assert_array_equal(values(layer), before)
    layer.statistics = "batch"
    renew()
    gamma, beta = (keras.ops.convert_to_numpy(w) for w in (layer.gamma, layer.beta))
    expected = reference.forward(x, gamma, beta, 1e-3)[0]
    assert_close(model.predict(x, verbose=0), expected, axes=0)
    model.fit(x, x, verbose=0)
    assert not np.array_equal(values(layer)[0], before[0])


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="nothing is compiled")
def test_a_compiled_function_keeps_the_old_value(features):
    """As with `trainable`: Keras traces the attribute's value into the function."""
    x = features((8, 3))
    layer = layer_with_weights()
    model = compiled(layer)
    model.fit(x, x, verbose=0)
    layer.statistics = "frozen"
    before = values(layer)
    model.fit(x, x, verbose=0)
    assert not np.array_equal(values(layer)[0], before[0])


@pytest.mark.parametrize("value", ["Auto", "moving", True, None, 1, ["batch"]])
def test_another_value(value):
    message = re.escape(f"Received: statistics={value!r}.")
    with pytest.raises(ValueError, match=f"'auto' .*'frozen' .*'batch' .*{message}"):
        BatchNorm(statistics=value)
    layer = BatchNorm(statistics="batch")
    with pytest.raises(ValueError, match=message):
        layer.statistics = value
    assert layer.statistics == "batch"


class TestConfiguration:
    @pytest.mark.parametrize("statistics", ["auto", "frozen", "batch"])
    def test_round_trip(self, features, tmp_path, statistics):
        layer = layer_with_weights()
        layer.statistics = statistics
        assert BatchNorm.from_config(layer.get_config()).statistics == statistics
        model = keras.Sequential([keras.Input((3,)), layer])
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert loaded.layers[0].statistics == statistics
        x = features((7, 3))
        np.testing.assert_array_equal(*(m.predict(x, verbose=0) for m in (model, loaded)))

    def test_configuration_without_it(self):
        config = BatchNorm().get_config()
        del config["statistics"]
        assert BatchNorm.from_config(config).statistics == "auto"
        theirs = keras.layers.BatchNormalization().get_config()
        assert BatchNorm.from_config(theirs).statistics == "auto"


class TestTools:
    def model(self, features, statistics, training=None):
        layer = layer_with_weights(name="bn")
        layer.statistics = statistics
        inputs = keras.Input((5,))
        hidden = keras.layers.Dense(3, name="dense")(inputs)
        return keras.Model(inputs, layer(hidden, training=training), name="net")

    def test_fold_keeps_batch_statistics(self, features):
        (decision,) = folding.plan(self.model(features, "batch"))
        assert str(decision) == 'bn: kept: it normalizes with batch statistics (statistics="batch")'

    @pytest.mark.parametrize("training", [None, True])
    def test_fold_folds_frozen_statistics(self, features, assert_close, training):
        model = self.model(features, "frozen", training)
        folded = kerasbn.fold(model)
        assert isinstance(folded.get_layer("bn"), keras.layers.Identity)  # an output keeps its name
        x = features((6, 5))
        assert_close(folded(x, training=True), model(x, training=True))

    def test_fold_keeps_auto_that_is_called_in_training(self, features):
        (decision,) = folding.plan(self.model(features, "auto", True))
        assert "training=True" in decision.reason

    def test_recalibrate_warns_about_frozen_statistics(self, features):
        model = self.model(features, "frozen")
        with pytest.warns(UserWarning, match="recalibrate changes") as caught:
            kerasbn.recalibrate(model, features((40, 5)))
        assert str(caught[0].message) == (
            "recalibrate changes 1 frozen batch norm of model 'net' (statistics=\"frozen\"): bn. "
            "To keep its statistics, choose other layers: where=lambda layer: layer.name not in "
            "['bn']. To recalibrate it without this warning: where=lambda layer: True."
        )

    @pytest.mark.filterwarnings("ignore:recalibrate changes")
    @pytest.mark.parametrize("statistics", ["auto", "frozen", "batch"])
    def test_recalibrate_gives_the_same_averages(self, features, assert_statistics, statistics):
        model = self.model(features, statistics)
        x = features((40, 5))
        kerasbn.recalibrate(model, x, batch_size=40)
        hidden = keras.ops.convert_to_numpy(model.get_layer("dense")(x)).astype("float64")
        expected = hidden.mean(0), hidden.var(0, ddof=1)
        assert_statistics(model.get_layer("bn"), expected, 1e-4)
        assert model.get_layer("bn").statistics == statistics

    @pytest.mark.parametrize("statistics", ["frozen", "batch"])
    def test_to_keras_refuses(self, features, assert_close, statistics):
        model = self.model(features, statistics)
        message = f"'bn' cannot be converted. Received: statistics='{statistics}'. .*\"auto\""
        with pytest.raises(ValueError, match=message):
            kerasbn.to_keras(model)
        model.get_layer("bn").statistics = "auto"
        x = features((6, 5))
        assert_close(kerasbn.to_keras(model)(x), model(x))

    def test_clones_keep_it(self, features):
        model = self.model(features, "batch")
        for clone in (keras.models.clone_model(model), kerasbn.fold(model)):
            assert clone.get_layer("bn").statistics == "batch"


@pytest.mark.skipif(not ON_TENSORFLOW, reason="TensorFlow's native kernel")
@pytest.mark.parametrize("options", [{}, {"renorm": True}, {"virtual_batch_size": 4}], ids=str)
def test_batch_statistics_in_inference_are_portable(features, assert_close, options):
    import tensorflow as tf

    layer = layer_with_weights(**options, statistics="batch")
    call = tf.function(lambda x: layer(x, training=False)).get_concrete_function(
        tf.TensorSpec((None, 3))
    )
    graph = call.graph.as_graph_def()
    nodes = itertools.chain(graph.node, *(f.node_def for f in graph.library.function))
    assert not [node.op for node in nodes if node.op.startswith("Kerasbn")]
    x = features((10, 3))
    assert_close(call(tf.constant(x)), layer(x), axes=0)
