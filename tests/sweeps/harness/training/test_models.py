"""The networks of the other studies, and the effect of a trial's options on them."""

import math

import keras
import numpy as np
import pytest
from small_training import images, trial

from sweeps.harness.training.estimator import Estimator
from sweeps.harness.training.models import build, model_fn

IMAGES, LABELS = images(50)


def lenet(**changes):
    fields = {"architecture": "lenet", "hidden_units": (6, 16, 120, 84), "bn_logits": False}
    return trial(**fields | changes)


def regression(**changes):
    fields = {
        "architecture": "regression",
        "hidden_units": (10,) * 8,
        "target_accuracy": None,
        "bn_logits": False,
        "kernel_stddev": 0.1,
        "bias": -0.2,
    }
    return trial(**fields | changes)


def test_lenet_has_the_published_number_of_weights():
    # 61,706, as LeNet-5 has: 156 + 2,416 + 48,120 + 10,164 + 850.
    assert build(lenet(batch_norm=False)).count_params() == 61_706
    assert build(lenet()).count_params() == 61_706 + 4 * (6 + 16 + 120 + 84)


def test_lenet_sees_pixels_from_0_to_1():
    model = build(lenet(batch_norm=False))
    tap = keras.Model(model.inputs, model.layers[1].output)
    found = tap.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(found[..., 0], IMAGES / 255.0, rtol=1e-6)


def test_the_regression_net_is_the_protocols():
    plain, normed = build(regression(batch_norm=False)), build(regression())
    weights = 10 + 10 + 7 * (100 + 10) + 10 + 1
    assert plain.count_params() == weights
    assert normed.count_params() == weights + 4 * (1 + 8 * 10)  # on the input, too
    values = np.concatenate([w.ravel() for w in plain.get_weights() if w.ndim == 2])
    assert values.std() == pytest.approx(0.1, rel=0.1)
    assert all((w == np.float32(-0.2)).all() for w in plain.get_weights() if w.ndim == 1)


@pytest.mark.parametrize("make", [trial, lenet, regression])
def test_weights_of_every_network_come_from_the_seed_alone(make):
    keras.utils.set_random_seed(1)
    first = build(make()).get_weights()
    keras.utils.set_random_seed(2)
    again, other = build(make()).get_weights(), build(make(seed=4)).get_weights()
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert all((a != b).any() for a, b in zip(first, other, strict=True) if a.ndim > 1)


@pytest.mark.parametrize(
    "changes", [{"dropout": 0.5}, {"steps_per_execution": 4}, {"l2": 0.1}, {"decay_steps": 2.0}]
)
def test_a_run_on_a_used_estimator_is_that_on_a_fresh_one(changes):
    made = trial(**changes)
    used = Estimator(model_fn, made)
    used.initialize(trial(**changes, seed=7))
    used.train_steps([(IMAGES, LABELS)] * 3)
    used.initialize(made)
    fresh = Estimator(model_fn, made)
    fresh.initialize(made)
    steps = [(IMAGES, LABELS)] * 4
    assert used.train_steps(steps) == fresh.train_steps(steps)


def test_several_steps_in_one_call_are_the_same_steps():
    one, several = Estimator(model_fn, trial()), Estimator(model_fn, trial(steps_per_execution=4))
    steps = [
        (IMAGES[i:] if i == 0 else np.roll(IMAGES, i, 0), np.roll(LABELS, i)) for i in range(4)
    ]
    one.initialize(trial())
    several.initialize(trial())
    np.testing.assert_allclose(several.train_steps(steps), one.train_steps(steps), rtol=1e-5)


def test_the_mean_squared_error_is_what_a_regression_trains_on():
    made = regression(hidden_units=(5,), batch_norm=False)
    estimator = Estimator(model_fn, made)
    x = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
    estimator.initialize(made)
    predicted = estimator.model.predict(x, verbose=0)
    (loss,) = estimator.train_steps([(x, 3 * x)])
    assert loss == pytest.approx(((predicted - 3 * x) ** 2).mean(), rel=1e-5)


def test_l2_adds_the_squares_of_the_hidden_kernels_to_the_loss():
    losses = []
    for l2 in (None, 0.1):
        made = trial(l2=l2, batch_norm=False)
        estimator = Estimator(model_fn, made)
        estimator.initialize(made)
        kernels = [w for w in estimator.model.get_weights() if w.ndim == 2][:-1]
        losses += estimator.train_steps([(IMAGES, LABELS)])
    squares = sum((w.astype(np.float64) ** 2).sum() for w in kernels)
    assert losses[1] - losses[0] == pytest.approx(0.1 * squares, rel=1e-4)


def test_dropout_drops_in_training_alone_and_by_the_seed():
    model = build(trial(dropout=0.5, hidden_units=(1000,), batch_norm=False, activation="linear"))
    tap = keras.Model(model.inputs[0], model.layers[-2].output)
    share = (np.asarray(tap(IMAGES, training=True)) == 0).mean()
    assert share == pytest.approx(0.5, abs=0.02)
    assert (np.asarray(tap(IMAGES, training=False)) != 0).all()


def test_random_layers_never_share_a_seed():
    """Keras counts the first number of a seed up with every draw."""
    model = build(trial(dropout=0.5, hidden_units=(20,) * 4, batch_norm=False, seed=3))
    states = [
        layer.seed_generator.state.numpy()
        for layer in model.layers
        if isinstance(layer, keras.layers.Dropout)
    ]
    assert len({int(second) for _, second in states}) == 4
    assert min(abs(np.diff(sorted(int(first) for first, _ in states)))) > 10_000
    again = build(trial(dropout=0.5, hidden_units=(20,) * 4, batch_norm=False, seed=3))
    dropouts = [layer for layer in again.layers if isinstance(layer, keras.layers.Dropout)]
    for layer, state in zip(dropouts, states, strict=True):
        np.testing.assert_array_equal(layer.seed_generator.state.numpy(), state)


def test_the_rate_is_divided_by_e_in_each_time_constant():
    optimizer = model_fn(trial(optimizer="sgd", decay_steps=100.0)).optimizer
    optimizer.build([])
    optimizer.iterations.assign(200)
    assert float(optimizer.learning_rate) == pytest.approx(0.01 / math.e**2, rel=1e-5)


def test_normalizations_are_those_asked_for():
    def norms(**changes):
        return [each for each in build(trial(**changes)).layers if "orm" in type(each).__name__]

    assert [each.groups for each in norms(batch_norm=False, group_norm=5)] == [5, 5]
    assert [each.virtual_batch_size for each in norms(bn_virtual_batch_size=16)] == [16] * 3
    renorm = norms(bn_renorm=True, bn_momentum=0.7)[0]
    assert (renorm.renorm, renorm.renorm_momentum, renorm.momentum) == (True, 0.7, 0.7)
    assert renorm.renorm_clipping == {"rmax": 3.0, "rmin": 1 / 3, "dmax": 5.0}
    assert norms(batch_norm=False) == []
