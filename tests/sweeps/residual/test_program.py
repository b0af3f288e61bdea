"""Residual networks and their variances against a forward pass in NumPy."""

import numpy as np
import pytest
import small_training

from sweeps.harness.training import models
from sweeps.harness.training.estimator import Estimator
from sweeps.harness.training.recorders import Run, make
from sweeps.residual.program import Scalar

IMAGES, LABELS = small_training.images(120)
DEPTH, WIDTH = 6, 16


def trial(branch, **changes):
    fields = {"hidden_units": (WIDTH,) * DEPTH, "optimizer": "sgd", "bn_logits": False}
    own = {"program": "residual", "options": {"branch": branch, "part": "depth"}}
    normed = {"batch_norm": branch == "batch_norm", "record": ("branches",)}
    return small_training.trial(**fields | own | normed | changes)


def forward(model, branch, images):
    """The network's branches, block outputs and logits, with the images' own statistics."""
    dense = [(w.numpy().astype(float), b.numpy()) for w, b in _pairs(model)]
    scalars = [layer.scalar.numpy() for layer in model.layers if isinstance(layer, Scalar)]

    def activated(x):
        if branch == "batch_norm":
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3)
        return np.maximum(x, 0)

    x = (images.reshape(len(images), -1) / 255 - 0.1307) / 0.3081
    x = x @ dense[0][0] + dense[0][1]
    branches, outputs = [], []
    for number, (kernel, bias) in enumerate(dense[1:-1]):
        value = activated(x) @ kernel + bias
        value = value * scalars[number] if scalars else value
        x = x + value
        branches.append(value)
        outputs.append(x)
    return branches, outputs, activated(x) @ dense[-1][0] + dense[-1][1]


def _pairs(model):
    return [(layer.kernel, layer.bias) for layer in model.layers if hasattr(layer, "kernel")]


@pytest.mark.parametrize("branch", ["plain", "batch_norm", "skip_init"])
def test_the_logits_are_those_of_numpy(branch):
    model = models.build(trial(branch))
    for layer in model.layers:
        if isinstance(layer, Scalar):
            layer.scalar.assign(0.7)
    _, _, expected = forward(model, branch, IMAGES)
    found = model(IMAGES, training=True).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("branch", ["plain", "batch_norm", "skip_init"])
def test_the_variances_are_those_of_numpy_and_the_network_stays_as_it_is(branch):
    fields = trial(branch)
    estimator = Estimator(models.model_fn, fields)
    estimator.initialize(fields)
    before = [v.numpy() for v in estimator.model.variables]
    run = Run(estimator, fields, (IMAGES, LABELS), (IMAGES, LABELS))
    rows = make(run, ["branches"])["branches"].rows(0)
    for value, variable in zip(before, estimator.model.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    branches, outputs, _ = forward(estimator.model, branch, IMAGES)
    assert [row[0] for row in rows] == list(range(1, DEPTH + 1))
    expected = [
        (f.var(), x.var(), f.var() / x.var()) for f, x in zip(branches, outputs, strict=True)
    ]
    np.testing.assert_allclose([row[1:] for row in rows], expected, rtol=1e-3)


def test_a_skip_init_block_is_the_identity_until_its_scalar_is_trained():
    fields = trial("skip_init", learning_rate=0.1)
    estimator = Estimator(models.model_fn, fields)
    estimator.initialize(fields)
    model = estimator.model
    first, last = (layer for layer in model.layers if hasattr(layer, "kernel")), None
    kernels = [layer.kernel.numpy() for layer in first]
    x = (IMAGES.reshape(len(IMAGES), -1) / 255 - 0.1307) / 0.3081
    last = np.maximum(x @ kernels[0], 0) @ kernels[-1]
    np.testing.assert_allclose(model(IMAGES).numpy(), last, rtol=1e-4, atol=1e-4)
    for _ in range(5):
        estimator.train_steps([(IMAGES[:50], LABELS[:50])])
    scalars = [layer.scalar.numpy() for layer in model.layers if isinstance(layer, Scalar)]
    assert len(scalars) == DEPTH
    assert np.abs(scalars).min() > 0


def test_plain_branches_double_the_variance_and_normalized_ones_add_to_it():
    wide = {"hidden_units": (256,) * 12}
    shares = {}
    for branch in ("plain", "batch_norm"):
        fields = trial(branch, **wide)
        estimator = Estimator(models.model_fn, fields)
        estimator.initialize(fields)
        run = Run(estimator, fields, (IMAGES, LABELS), (IMAGES, LABELS))
        rows = make(run, ["branches"])["branches"].rows(0)
        shares[branch] = np.array([row[3] for row in rows])
    np.testing.assert_allclose(shares["plain"], 0.5, atol=0.12)
    drop = shares["batch_norm"][-1] / shares["batch_norm"][0]
    assert 0.5 < drop * 13 / 2 < 1.6  # from 1 / 2 to 1 / 13, up to the variance of the input


@pytest.mark.parametrize("layer", ["kerasbn", "keras"])
def test_either_layer_normalizes_every_branch_and_the_last_block(layer):
    model = models.build(trial("batch_norm", bn_layer=layer))
    norms = [each for each in model.layers if hasattr(each, "moving_mean")]
    assert len(norms) == DEPTH + 1
    assert {type(each).__module__.partition(".")[0] for each in norms} == {layer}
    assert {each.momentum for each in norms} == {0.9}


def test_plain_networks_have_neither_scalars_nor_batch_norm():
    model = models.build(trial("plain"))
    assert not any(
        isinstance(each, Scalar) or hasattr(each, "moving_mean") for each in model.layers
    )
