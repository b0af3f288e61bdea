"""Replicas under `tf.distribute.MirroredStrategy` agree with the whole batch on one device.

The replicas are virtual CPU devices, and TensorFlow must know them when it starts. Therefore
`tests/test_backends.py` runs this file in a separate process. In any other process its tests are
skipped.
"""

import keras
import numpy as np
import pytest

import kerasbn
from kerasbn import BatchNorm, reference

from .matrices import half_by_default

if keras.backend.backend() != "tensorflow":
    pytest.skip("tf.distribute is TensorFlow's", allow_module_level=True)

import tensorflow as tf


@pytest.fixture(scope="module")
def devices():
    (cpu,) = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 4
        )
    except RuntimeError:
        pytest.skip("TensorFlow has started on one device: run this file alone")
    return [f"CPU:{index}" for index in range(4)]


@pytest.fixture(scope="module", params=["four replicas", "two replicas"])
def strategy(request, devices):
    if request.param == "four replicas":  # all-reduce among the replicas
        return tf.distribute.MirroredStrategy(devices)
    # TensorFlow's other way to reduce: in one thread, on one device.
    return tf.distribute.MirroredStrategy(devices[:2], tf.distribute.ReductionToOneDevice())


class Step:
    """One training step of a layer on all replicas, with the results of each."""

    def __init__(self, strategy, options, x, dy, mask=None, sizes=None):
        count = strategy.num_replicas_in_sync
        parts = np.cumsum(sizes)[:-1] if sizes else count

        def distribute(array):
            if array is None:
                return None
            shares = np.split(array, parts)
            return strategy.experimental_distribute_values_from_function(
                lambda context: tf.constant(shares[context.replica_id_in_sync_group])
            )

        with strategy.scope():
            self.layer = BatchNorm(**options)
            self.layer.build((None, *x.shape[1:]))
            self.layer.gamma.assign(np.linspace(0.5, 2, self.layer.gamma.shape[0]))

        def step(x, dy, mask):
            weights = [self.layer.gamma.value, self.layer.beta.value]
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = self.layer(x, training=True, mask=mask)
            dx, *gradients = tape.gradient(y, [x, *weights], dy)
            # Sum the gradients over the replicas, as an optimizer does.
            context = tf.distribute.get_replica_context()
            return y, dx, context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)

        run = tf.function(lambda *args: strategy.run(step, args))
        y, dx, (dgamma, dbeta) = run(distribute(x), distribute(dy), distribute(mask))

        def each(value):
            return [np.array(v) for v in strategy.experimental_local_results(value)]

        self.y, self.dx = np.concatenate(each(y)), np.concatenate(each(dx))
        self.dgamma, self.dbeta = each(dgamma)[0], each(dbeta)[0]
        self.weights = [each(weight.value) for weight in self.layer.weights]


def check_against_the_whole_batch(step, options, x, dy, mask, run, assert_close):
    whole = BatchNorm(**{**options, "synchronized": False})
    whole.build(x.shape)
    whole.gamma.assign(np.linspace(0.5, 2, whole.gamma.shape[0]))
    desired = run(whole, x, dy, mask=mask)
    axes = tuple(a for a in range(x.ndim) if a != options.get("axis", -1) % x.ndim)
    assert_close(step.y, desired.y, axes=axes)
    assert_close(step.dx, desired.dx, axes=axes)
    assert_close(step.dgamma, desired.dgamma)
    assert_close(step.dbeta, desired.dbeta)
    for replicas, expected in zip(step.weights, whole.weights, strict=True):
        assert_close(replicas[0], expected)
        for other in replicas[1:]:
            np.testing.assert_array_equal(other, replicas[0])


@pytest.mark.parametrize(
    ("options", "masked"),
    half_by_default(
        [
            {},
            {"axis": 1},
            {"renorm": True},
            {"momentum": None, "unbiased_variance": True},
            {"debias": True},
        ],
        [False, True],
    ),
    ids=str,
)
def test_synchronized_replicas_are_the_whole_batch(
    strategy, features, run, assert_close, options, masked
):
    options = {"momentum": 0.9, "synchronized": True, **options}
    x = features((12, 4, 5), options.get("axis", -1))
    dy = features(x.shape, seed=1, means=(-2, 2))
    mask = np.random.default_rng(2).random(x.shape[:2]) < 0.6 if masked else None
    step = Step(strategy, options, x, dy, mask)
    check_against_the_whole_batch(step, options, x, dy, mask, run, assert_close)


def test_fully_masked_replica_adds_nothing(strategy, features, run, assert_close):
    options = {"momentum": 0.9, "synchronized": True, "debias": True}
    x, dy = features((12, 4, 5)), features((12, 4, 5), seed=1, means=(-2, 2))
    mask = np.random.default_rng(2).random(x.shape[:2]) < 0.6
    mask[: 12 // strategy.num_replicas_in_sync] = False
    step = Step(strategy, options, x, dy, mask)
    check_against_the_whole_batch(step, options, x, dy, mask, run, assert_close)


def test_all_replicas_fully_masked_move_no_average(strategy, features):
    x = features((12, 4, 5))
    step = Step(strategy, {"synchronized": True, "debias": True}, x, x, np.zeros((12, 4), bool))
    assert np.isfinite(step.y).all()
    assert np.isfinite(step.dx).all()
    _, _, mean, variance, count = step.weights
    np.testing.assert_array_equal(mean, np.zeros_like(mean))
    np.testing.assert_array_equal(variance, np.ones_like(variance))
    np.testing.assert_array_equal(count, np.zeros_like(count))


@pytest.mark.parametrize("masked", [False, True])
def test_replicas_of_different_sizes_weigh_by_their_values(
    strategy, features, run, assert_close, masked
):
    options = {"momentum": 0.9, "synchronized": True}
    x, dy = features((12, 4, 5)), features((12, 4, 5), seed=1, means=(-2, 2))
    mask = np.random.default_rng(2).random(x.shape[:2]) < 0.6 if masked else None
    sizes = {4: [5, 0, 6, 1], 2: [12, 0]}[strategy.num_replicas_in_sync]
    step = Step(strategy, options, x, dy, mask, sizes)
    check_against_the_whole_batch(step, options, x, dy, mask, run, assert_close)


@pytest.mark.parametrize("masked", [False, True])
def test_synchronized_variance_is_exact_at_large_offset(strategy, features, assert_close, masked):
    x = features((200, 6), means=(1e4, 2e4), scales=(1.0, 1.0))
    mask = np.random.default_rng(2).random(200) < 0.6 if masked else None
    step = Step(strategy, {"momentum": 0.0, "synchronized": True}, x, x, mask)
    y, cache = reference.forward(
        x, np.linspace(0.5, 2, 6), mask=None if mask is None else mask[:, None]
    )
    assert_close(step.weights[3][0], cache.sigma2[0])
    assert_close(step.y, y, axes=0)


@pytest.mark.parametrize(
    "options", [{}, {"virtual_batch_size": 2}, {"debias": True}, {"momentum": None}], ids=str
)
def test_replicas_by_themselves_normalize_with_their_own_statistics(
    strategy, features, run, assert_close, options
):
    options = {"momentum": 0.9, **options}
    count = strategy.num_replicas_in_sync
    x, dy = features((12, 4, 5)), features((12, 4, 5), seed=1, means=(-2, 2))
    step = Step(strategy, options, x, dy)
    outputs, averages = [], []
    for part, dpart in zip(np.split(x, count), np.split(dy, count), strict=True):
        alone = BatchNorm(**options)
        alone.build(x.shape)
        alone.gamma.assign(np.linspace(0.5, 2, 5))
        outputs.append(run(alone, part, dpart))
        averages.append([np.array(w.value) for w in alone.non_trainable_weights])
    y, dx, dgamma, dbeta = zip(*outputs, strict=True)
    assert_close(step.y, np.concatenate(y), axes=(0, 1))
    assert_close(step.dx, np.concatenate(dx), axes=(0, 1))
    assert_close(step.dgamma, sum(dgamma))
    assert_close(step.dbeta, sum(dbeta))
    for replicas, alone in zip(step.weights[2:], zip(*averages, strict=True), strict=True):
        assert_close(replicas[0], np.mean(alone, 0))
        for other in replicas[1:]:
            np.testing.assert_array_equal(other, replicas[0])


def test_synchronized_on_one_device_is_plain(features, run, assert_close):
    x, dy = features((6, 4, 5)), features((6, 4, 5), seed=1, means=(-2, 2))
    synchronized, plain = BatchNorm(synchronized=True), BatchNorm()
    for array, expected in zip(run(synchronized, x, dy), run(plain, x, dy), strict=True):
        assert_close(array, expected, 1e-6)
    assert_close(synchronized.moving_variance, plain.moving_variance, 1e-6)


@pytest.mark.parametrize("synchronized", [False, True])
def test_fit_under_the_strategy(strategy, features, assert_close, synchronized):
    def fitted(**options):
        layer = BatchNorm(momentum=None, **options)
        model = keras.Sequential([keras.Input((4,)), layer])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        # Two batches of 16 and a last one of 8.
        model.fit(x, np.tanh(x), batch_size=16, shuffle=False, epochs=2, verbose=0)
        return layer

    x = features((40, 4))
    with strategy.scope():
        layer = fitted(synchronized=synchronized)
    averages = [
        [np.array(v) for v in strategy.experimental_local_results(w.value)]
        for w in (layer.moving_mean, layer.moving_variance)
    ]
    for replicas in averages:
        for other in replicas[1:]:
            np.testing.assert_array_equal(other, replicas[0])
    mean, variance = (replicas[0] for replicas in averages)
    assert_close(mean, np.mean([x[:16].mean(0), x[16:32].mean(0), x[32:].mean(0)], 0))
    if synchronized:
        alone = fitted()
        assert_close(variance, alone.moving_variance)
        assert_close(layer.gamma, alone.gamma)
        assert_close(layer.beta, alone.beta)


class TestRecalibrate:
    """Each replica's part of a distributed batch counts as a batch. Plain data are not split."""

    @pytest.mark.parametrize("distributed", [True, False])
    def test_a_model_of_a_strategy(self, strategy, distributed):
        x = np.random.default_rng(0).normal(5, 2, (53, 3)).astype("float32")
        with strategy.scope():
            model = keras.Sequential([keras.Input((3,)), BatchNorm()])
        batches = [x[:40], x[40:]]
        data = tf.data.Dataset.from_tensor_slices((x, x[:, 0])).batch(40)
        if distributed:
            replicas = strategy.num_replicas_in_sync
            size = 40 // replicas  # the last batch leaves fewer or none for the last replicas
            data = strategy.experimental_distribute_dataset(data)
            parts = [
                part for batch, _ in data for part in strategy.experimental_local_results(batch)
            ]
            batches = [part.numpy() for part in parts if len(part)]
            assert len(batches[0]) == size
            assert sum(map(len, batches)) == len(x)
        kerasbn.recalibrate(model, data)
        m = np.array([len(batch) for batch in batches])
        variance = sum(len(b) * b.var(0, "float64") for b in batches) / (m - 1).sum()
        norm = model.layers[0]
        for variable, expected in (
            (norm.moving_mean, x.mean(0, "float64")),
            (norm.moving_variance, variance),
        ):
            for replica in strategy.experimental_local_results(variable.value):
                np.testing.assert_allclose(replica, expected, rtol=1e-5)
