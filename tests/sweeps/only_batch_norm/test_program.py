"""Networks of which a part trains: what changes, by how much, and what stays."""

import keras
import numpy as np
import pytest
import small_training

from sweeps.harness.training import recorders
from sweeps.harness.training.estimator import Estimator
from sweeps.harness.training.models import model_fn
from sweeps.only_batch_norm import program

IMAGES, LABELS = small_training.images(300)
EVERY = (784 + 1) * 20 + (20 + 1) * 10 + (10 + 1) * 10 + 2 * (20 + 10)
LENET = {"architecture": "lenet", "hidden_units": (2, 3, 8, 6)}


def trial(trained, gamma_l2=0.0, **changes):
    options = {"trained": trained, "gamma_l2": gamma_l2}
    fields = {"program": "only_batch_norm", "options": options, "bn_logits": False}
    return small_training.trial(**fields | changes)


def trained_network(trial, steps=4):
    """The estimator after some steps, and the values of its variables before them, by path."""
    estimator = Estimator(model_fn, trial)
    estimator.initialize(trial)
    start = {v.path: v.numpy() for v in estimator.model.variables}
    estimator.train_steps([(IMAGES[:50], LABELS[:50])] * steps)
    return estimator, start


def changed(estimator, start):
    """The kinds of variables that changed: the last parts of their paths."""
    paths = [v.path for v in estimator.model.variables if np.any(v.numpy() != start[v.path])]
    return {path.split("/")[-1] for path in paths}, paths


STATISTICS = {"moving_mean", "moving_variance"}


@pytest.mark.parametrize("network", [{}, LENET])
@pytest.mark.parametrize(
    ("trained", "kinds"),
    [
        ("all", {"kernel", "bias", "gamma", "beta"}),
        ("batch_norm", {"gamma", "beta"}),
        ("output", {"kernel", "bias"}),
        ("random", {"changes"}),
    ],
)
def test_only_the_named_part_trains_and_statistics_always_move(network, trained, kinds):
    estimator, start = trained_network(trial(trained, **network))
    found, paths = changed(estimator, start)
    assert found == kinds | STATISTICS
    if trained == "output":
        output = estimator.model.layers[-1].name
        assert {p.split("/")[-2] for p in paths if p.endswith(("kernel", "bias"))} == {output}


@pytest.mark.parametrize("network", [{}, LENET])
def test_two_weights_per_unit_change_and_no_others(network):
    estimator, _ = trained_network(trial("random", **network), steps=6)
    layers = [each for each in estimator.model.layers if isinstance(each, program._TwoWeights)]
    assert len(layers) == len(network.get("hidden_units", (20, 10)))
    for layer in layers:
        units = layer.kernel.shape[-1]
        difference = (layer.changed_kernel.numpy() - layer.kernel.numpy()).reshape(-1, units)
        positions = layer.positions.numpy()
        mask = np.zeros_like(difference, bool)
        mask[positions[:, 0], positions[:, 1]] = True
        assert mask.sum(axis=0).tolist() == [2] * units
        assert np.all(difference[~mask] == 0)
        given = np.zeros_like(difference)
        given[positions[:, 0], positions[:, 1]] = layer.changes.numpy()
        np.testing.assert_allclose(difference, given, atol=1e-6)
        assert np.any(difference != 0)


def test_the_outputs_are_those_of_a_layer_with_the_changed_kernel():
    generator = np.random.default_rng(1)
    for layer, plain, shape in (
        (program.TwoWeightsDense(4), keras.layers.Dense(4), (5, 7)),
        (program.TwoWeightsConv2D(3, 3), keras.layers.Conv2D(3, 3), (2, 6, 6, 2)),
    ):
        x = generator.normal(size=shape).astype(np.float32)
        layer(x), plain(x)
        layer.draw_positions(generator)
        layer.changes.assign(generator.normal(size=layer.changes.shape))
        layer.bias.assign(generator.normal(size=layer.bias.shape))
        kernel = layer.kernel.numpy().copy().reshape(-1, layer.kernel.shape[-1])
        for (i, j), change in zip(layer.positions.numpy(), layer.changes.numpy(), strict=True):
            kernel[i, j] += change
        plain.kernel.assign(kernel.reshape(layer.kernel.shape))
        plain.bias.assign(layer.bias)
        np.testing.assert_allclose(layer(x), plain(x), atol=1e-5)


def test_positions_and_gammas_follow_from_the_seed():
    estimator = Estimator(model_fn, trial("random"))

    def drawn(seed):
        estimator.initialize(trial("random", seed=seed))
        layer = next(e for e in estimator.model.layers if isinstance(e, program._TwoWeights))
        norm = program.norms(estimator.model)[0]
        return layer.positions.numpy(), norm.gamma.numpy(), layer.changes.numpy()

    first, again, other = drawn(3), drawn(3), drawn(4)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert np.any(first[0] != other[0])
    assert np.any(first[1] != other[1])
    assert not first[2].any()


def test_every_part_starts_from_the_same_random_network():
    outputs = []
    for trained in ("all", "batch_norm", "output", "random"):
        made = trial(trained, hidden_units=(400, 300))
        estimator = Estimator(model_fn, made)
        estimator.initialize(made)
        outputs.append(estimator.model(IMAGES[:5]).numpy())
        gammas = np.concatenate([n.gamma.numpy() for n in program.norms(estimator.model)])
        assert gammas.min() >= 0
        assert gammas.max() <= 1
        assert gammas.mean() == pytest.approx(0.5, abs=0.05)
    for each in outputs[1:]:
        np.testing.assert_allclose(each, outputs[0], atol=1e-5)


def test_a_penalty_pulls_gammas_to_zero():
    sizes = []
    for factor in (0.0, 0.1):
        estimator, _ = trained_network(trial("batch_norm", factor), steps=30)
        sizes.append(
            np.mean([np.abs(n.gamma.numpy()).mean() for n in program.norms(estimator.model)])
        )
    assert sizes[1] < 0.7 * sizes[0]


@pytest.mark.parametrize(
    ("trained", "parameters"),
    [
        ("all", EVERY),
        ("batch_norm", 2 * (20 + 10)),
        ("output", 10 * 10 + 10),
        ("random", 2 * (20 + 10)),
    ],
)
def test_recorders_count_parameters_and_list_gammas(trained, parameters):
    made = trial(trained)
    estimator, _ = trained_network(made, steps=1)
    run = recorders.Run(estimator, made, (IMAGES, LABELS), (IMAGES, LABELS))
    found = recorders.make(run, ("gammas", "parameters"))
    assert found["parameters"].rows(1) == [(parameters, EVERY)]
    rows = found["gammas"].rows(1)
    assert [row[:2] for row in rows] == [(1, u) for u in range(1, 21)] + [
        (2, u) for u in range(1, 11)
    ]
    gammas = np.concatenate([n.gamma.numpy() for n in program.norms(estimator.model)])
    np.testing.assert_allclose([row[2] for row in rows], gammas, rtol=1e-5)


def test_a_layer_with_too_few_weights_is_an_error():
    layer = program.TwoWeightsDense(4)
    layer.build((None, 1))
    with pytest.raises(ValueError, match=r"has 1 weight, but 2 are to train. Use wider layers"):
        layer.draw_positions(np.random.default_rng(0))


def test_a_saved_network_can_be_loaded(tmp_path):
    estimator, _ = trained_network(trial("random", **LENET))
    estimator.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(IMAGES[:5]), estimator.model(IMAGES[:5]))
