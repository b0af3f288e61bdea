"""The noise layer against its distributions, and the landscape recorder against NumPy."""

import keras
import numpy as np
import pytest
import small_training

from sweeps.harness.training import recorders
from sweeps.harness.training.estimator import Estimator
from sweeps.harness.training.models import model_fn
from sweeps.noise.program import Landscape, Noise, Recalibrated

IMAGES, LABELS = small_training.images(300)


def trial(noise=1.0, **changes):
    fields = {"program": "noise", "options": {"noise": noise}, "optimizer": "sgd"}
    fields |= {"bn_logits": False, "learning_rate": 0.2}
    return small_training.trial(**fields | changes)


def estimator(trial):
    made = Estimator(model_fn, trial)
    made.initialize(trial)
    return made


def drawn(strength, samples=4000, units=3000, seed=7):
    """Shift and scale that the layer gives each sample and unit, solved from two inputs."""
    layer = Noise(strength)
    outputs = []
    for value in (0.0, 1.0):
        layer.seed_generator.state.assign([seed, 1])
        outputs.append(layer(np.full((samples, units), value, np.float32), training=True).numpy())
    return outputs[0], outputs[1] - outputs[0]


@pytest.mark.parametrize("strength", [1.0, 2.0])
def test_units_and_samples_have_the_distributions_of_the_paper(strength):
    m, s = drawn(strength)
    mu, sigma = m.mean(0), s.mean(0)
    # Per unit: uniform on [-0.5, 0.5] and [1, 1.25]; a uniform variable's variance is width^2 / 12.
    assert mu.mean() == pytest.approx(0, abs=0.02 * strength)
    assert mu.std() == pytest.approx(strength * 1 / 12**0.5, rel=0.03)
    assert np.abs(mu).max() == pytest.approx(0.5 * strength, abs=0.01 * strength)
    assert sigma.mean() == pytest.approx(1 + strength * 0.125, abs=0.005 * strength)
    assert sigma.std() == pytest.approx(strength * 0.25 / 12**0.5, rel=0.03)
    # Per sample: uniform within 0.1 of the unit's.
    for each, centre in ((m, mu), (s, sigma)):
        around = each - centre
        assert around.std() == pytest.approx(strength * 0.2 / 12**0.5, rel=0.01)
        assert np.abs(around).max() == pytest.approx(0.1 * strength, abs=0.01 * strength)
        assert abs(np.corrcoef(around[:, 0], around[:, 1])[0, 1]) < 0.06  # its own in each unit
    assert abs(np.corrcoef(mu, sigma)[0, 1]) < 0.06
    assert abs(np.corrcoef((m - mu)[:, 0], (s - sigma)[:, 0])[0, 1]) < 0.06


def test_each_call_draws_a_new_shift_for_each_unit():
    layer = Noise(1.0)
    first, second = (layer(np.zeros((500, 50), np.float32), training=True) for _ in range(2))
    shifts = [each.numpy().mean(0) for each in (first, second)]
    assert np.abs(shifts[0] - shifts[1]).mean() > 0.1


def test_the_noise_is_reproducible_off_in_inference_and_saved_with_the_layer():
    images = IMAGES[:20]
    network = estimator(trial())
    first = network.model(images, training=True).numpy()
    other = network.model(images, training=True).numpy()
    assert np.abs(first - other).max() > 0.01
    network.initialize(trial())
    np.testing.assert_array_equal(network.model(images, training=True), first)
    network.initialize(trial(seed=4))
    assert np.abs(network.model(images, training=True).numpy() - first).max() > 0.01
    inference = network.model(images, training=False).numpy()
    np.testing.assert_array_equal(network.model(images, training=False), inference)
    clone = Noise.from_config(Noise(1.5, name="mine").get_config())
    assert (clone.strength, clone.name) == (1.5, "mine")


def test_layers_have_different_noise():
    layers = [each for each in estimator(trial()).model.layers if isinstance(each, Noise)]
    assert len(layers) == 2
    streams = [
        [layer(np.zeros((1, 4), np.float32), training=True).numpy()[0, 0] for _ in range(20)]
        for layer in layers
    ]
    assert set(streams[0]).isdisjoint(streams[1])


@pytest.mark.parametrize("batch_norm", [False, True])
def test_noise_comes_right_before_each_hidden_activation(batch_norm):
    kinds = [type(each).__name__ for each in estimator(trial(batch_norm=batch_norm)).model.layers]
    norm = ["BatchNorm"] if batch_norm else []
    hidden = ["Dense", *norm, "Noise", "Activation"]
    assert kinds == ["Rescaling", "Flatten", *hidden, *hidden, "Dense"]
    assert "Noise" not in str(estimator(trial(0.0)).model.layers)


def loss_and_gradient(weights, x, labels):
    """Cross-entropy and its gradient of Dense -> batch norm -> ReLU -> Dense, in float64."""
    kernel, bias, gamma, beta, last, last_bias = weights
    a = x @ kernel + bias
    std = np.sqrt(a.var(0) + 1e-3)
    hat = (a - a.mean(0)) / std
    y = gamma * hat + beta
    h = np.maximum(y, 0)
    logits = h @ last + last_bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    rows = np.arange(len(x))
    d_logits = p.copy()
    d_logits[rows, labels] -= 1
    d_logits /= len(x)
    d_y = (d_logits @ last.T) * (y > 0)
    d_hat = d_y * gamma
    d_a = (d_hat - d_hat.mean(0) - hat * (d_hat * hat).mean(0)) / std
    gradient = [x.T @ d_a, d_a.sum(0), (d_y * hat).sum(0), d_y.sum(0)]
    gradient += [h.T @ d_logits, d_logits.sum(0)]
    return -np.log(p[rows, labels]).mean(), gradient


def test_the_landscape_is_that_of_numpy_and_changes_nothing():
    made = trial(0.0, hidden_units=(6,), learning_rate=0.2)
    network = estimator(made)
    network.train_steps([(IMAGES[:50], LABELS[:50])] * 3)
    before = [v.numpy() for v in network.model.variables]
    run = recorders.Run(network, made, (IMAGES, LABELS), (IMAGES, LABELS))
    rows = np.array(Landscape(run).rows(3))
    for variable, value in zip(network.model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)

    x, labels = IMAGES[:50].reshape(50, -1) / 255.0, LABELS[:50].astype(int)
    start = [v.numpy().astype(float) for v in network.model.trainable_variables]
    _, gradient = loss_and_gradient(start, x, labels)
    assert rows[:, 0].tolist() == [0, 0.5, 1, 2, 4]
    for multiple, loss, change in rows:
        moved = [w - multiple * 0.2 * g for w, g in zip(start, gradient, strict=True)]
        expected, there = loss_and_gradient(moved, x, labels)
        distance = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(there, gradient, strict=True)))
        assert loss == pytest.approx(expected, rel=1e-3)
        assert change == pytest.approx(distance, rel=2e-2, abs=1e-5)


def test_all_points_of_a_landscape_have_the_same_noise():
    made = trial(1.0)
    network = estimator(made)
    landscape = Landscape(recorders.Run(network, made, (IMAGES, LABELS), (IMAGES, LABELS)))
    state = [v.numpy() for v in network.model.non_trainable_variables]
    first, second = landscape.rows(0), landscape.rows(0)
    assert first == second
    assert first[0][2] == 0  # the gradient at a step of no length is the same
    for variable, value in zip(network.model.non_trainable_variables, state, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_the_landscape_follows_the_learning_rate_of_the_run():
    slow, fast = trial(0.0, learning_rate=0.05), trial(0.0, learning_rate=0.1)
    network = estimator(slow)
    landscape = Landscape(recorders.Run(network, slow, (IMAGES, LABELS), (IMAGES, LABELS)))
    losses = {multiple: loss for multiple, loss, _ in landscape.rows(0)}
    network.initialize(fast)
    faster = {multiple: loss for multiple, loss, _ in landscape.rows(0)}
    assert faster[0.5] == pytest.approx(losses[1], rel=1e-5)
    assert faster[2] == pytest.approx(losses[4], rel=1e-5)


def test_recalibrated_accuracy_is_that_of_noise_free_batch_statistics_and_changes_nothing():
    made = trial(1.0, batch_size=300)
    network = estimator(made)
    network.train_steps([(IMAGES[:50], LABELS[:50])] * 20)
    model = network.model
    before = [v.numpy() for v in model.variables]
    run = recorders.Run(network, made, (IMAGES, LABELS), (IMAGES, LABELS))
    ((moving, recalibrated),) = Recalibrated(run).rows(20)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)

    x = IMAGES.reshape(300, -1) / 255.0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            x = x @ layer.kernel.numpy() + layer.bias.numpy()
        elif isinstance(layer, keras.layers.Activation):
            x = np.maximum(x, 0)
        elif hasattr(layer, "gamma"):
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3)
            x = x * layer.gamma.numpy() + layer.beta.numpy()
    assert recalibrated == pytest.approx((x.argmax(1) == LABELS).mean(), abs=0.004)
    predicted = model.predict(IMAGES, verbose=0).argmax(1)
    assert moving == pytest.approx((predicted == LABELS).mean(), abs=0.004)
    assert moving != recalibrated


def test_a_saved_network_with_noise_can_be_loaded(tmp_path):
    network = estimator(trial()).model
    network.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(IMAGES[:5]), network(IMAGES[:5]))
