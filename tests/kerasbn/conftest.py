"""Fixtures of the layer's tests: data, gradients on every backend, and comparisons."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import keras
import numpy as np
import pytest

import kerasbn
from kerasbn import folding

from . import folded_models


def pytest_configure(config):
    # NumPy 2 gives this warning whenever Keras converts a TensorFlow or PyTorch variable.
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation:DeprecationWarning")


class Run(NamedTuple):
    """A layer's output and gradients as NumPy arrays; `None` for a weight that it does not have."""

    y: np.ndarray
    dx: np.ndarray
    dgamma: np.ndarray | None
    dbeta: np.ndarray | None


@pytest.fixture
def seeded():
    """Gives every test the same initial weights."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def load_from(monkeypatch, tmp_path):
    """Makes the loader of the native kernel find a file with this content, or no file."""
    from kerasbn.kernels import native

    def forget():
        native.load.cache_clear()
        native._warn.cache_clear()

    def prepare(content):
        path = tmp_path / "library.so"
        if content is not None:
            path.write_bytes(content)
        monkeypatch.setattr(native.sources, "LIBRARY", path)
        forget()

    yield prepare
    monkeypatch.undo()
    forget()
    native.load()


@pytest.fixture
def quick_initial_kernels(monkeypatch):
    """Draws initial weights with NumPy, because JAX compiles its generator for every shape."""

    def draw(self, shape, dtype=None):
        return np.random.default_rng(2).normal(0, 0.3, shape).astype("float32")

    if keras.backend.backend() == "jax":
        monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", draw)


@pytest.fixture(scope="session")
def features():
    """Makes data whose features differ in mean and scale, which reveals wrong statistics."""

    def make(shape, axis=-1, *, seed=0, means=(-3.0, 40.0), scales=(0.5, 20.0), dtype="float32"):
        rng = np.random.default_rng(seed)
        per_feature = [1] * len(shape)
        for a in np.atleast_1d(axis):
            per_feature[a] = shape[a]
        mean = rng.uniform(*means, per_feature)
        scale = np.exp(rng.uniform(*np.log(scales), per_feature))
        return (mean + scale * rng.standard_normal(shape)).astype(dtype)

    return make


@pytest.fixture(scope="session")
def assert_close():
    """Compares arrays by their largest error over `axes`, relative to the largest expected value.

    With a batch norm's reduced axes every feature is compared on its own scale, so a feature with
    large values cannot hide an error in one with small values. A comparison entry by entry would be
    too strict: float32 has no digits left after subtracting two large, nearly equal numbers. If all
    entries are such differences (dx of two examples is nearly 0), pass the size of those numbers as
    `at_least`.
    """

    def check(actual, desired, tolerance=1e-5, *, axes=None, at_least=0.0):
        actual, desired = (_as_float64(a) for a in (actual, desired))
        assert actual.shape == desired.shape
        if not desired.size:
            return
        error = np.max(np.abs(actual - desired), axes, keepdims=True)
        magnitude = np.max(np.abs(desired), axes, keepdims=True)
        limit = tolerance * np.maximum(magnitude, at_least)
        assert np.all(error <= limit), (
            f"error {error[~(error <= limit)][0]:.3g} exceeds {limit[~(error <= limit)][0]:.3g}\n"
            f"actual\n{actual}\ndesired\n{desired}"
        )

    return check


def _as_float64(array):
    array = getattr(array, "value", array)  # a weight holds its tensor there
    return np.asarray(keras.ops.convert_to_numpy(array), "float64")


@pytest.fixture
def assert_folds(assert_close):
    """Folds a model, compares outputs, counts the remaining batch norms; returns the result."""

    def check(model, kept=0, tolerance=1e-5):
        folded = kerasbn.fold(model)
        x = folded_models.inputs_for(model)
        actual, desired = (folded_models.outputs(m, x) for m in (folded, model))
        for y, expected in zip(actual, desired, strict=True):
            assert_close(y, expected, tolerance)
        assert len(folded_models.norms_in(folded)) == kept
        assert sum(not d.into for d in folding.plan(model)) == kept
        return folded

    return check


@pytest.fixture
def assert_statistics(assert_close):
    """Compares a layer's moving averages with a mean and a variance."""

    def check(layer, expected, tolerance=1e-5):
        mean, variance = expected
        stddev = np.sqrt(np.max(variance))
        assert_close(layer.moving_mean, mean, tolerance, at_least=stddev)
        moving = _as_float64(layer.moving_variance)
        assert_close(moving / variance, np.ones_like(variance), tolerance)

    return check


@pytest.fixture(scope="session")
def double():
    """Makes a context in which JAX computes float64 in float64; by default it uses float32."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext
    import jax

    return lambda: jax.enable_x64(True)


# PyTorch needs a C++ compiler to compile, and a user may not have one.
COMPILED = {"tensorflow": ["graph", "xla"], "jax": ["jit"], "torch": []}[keras.backend.backend()]


@pytest.fixture(params=COMPILED)
def compiled_mode(request):
    """Each way in which the backend can compile a call; see `run`."""
    return request.param


@pytest.fixture(params=COMPILED if keras.backend.backend() == "jax" else ["eager", *COMPILED])
def mode(request):
    """Each way to execute a call, except eagerly on JAX: that takes a second for every test."""
    return request.param


@pytest.fixture(scope="session")
def run():
    """Calls a layer, updates its moving averages, and differentiates sum(dy * y); see `Run`."""
    differentiate = {
        "tensorflow": _differentiate_tensorflow,
        "jax": _differentiate_jax,
        "torch": _differentiate_torch,
    }[keras.backend.backend()]

    def call(layer, x, dy=None, *, mask=None, training=True, mode=None) -> Run:
        if not layer.built:
            layer.build(x.shape)
        dy = np.zeros(x.shape, x.dtype) if dy is None else dy
        y, dx, gradients = differentiate(layer, x, dy, mask, training, mode)
        named = {w.name: g for w, g in zip(layer.trainable_weights, gradients, strict=True)}
        arrays = (y, dx, named.get("gamma"), named.get("beta"))
        return Run(*(None if a is None else keras.ops.convert_to_numpy(a) for a in arrays))

    return call


def _differentiate_tensorflow(layer, x, dy, mask, training, mode):
    import tensorflow as tf

    weights = [w.value for w in layer.trainable_weights]

    def gradients(x, dy, mask):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training, mask=mask)
        dx, *others = tape.gradient(y, [x, *weights], tf.cast(dy, y.dtype))
        return y, dx, others

    if mode in ("graph", "xla"):
        gradients = tf.function(gradients, jit_compile=mode == "xla")
    return gradients(*(None if a is None else tf.convert_to_tensor(a) for a in (x, dy, mask)))


def _differentiate_torch(layer, x, dy, mask, training, mode):
    import torch

    x = keras.ops.convert_to_tensor(x).clone().requires_grad_()
    y = layer(x, training=training, mask=mask)
    weights = [w.value for w in layer.trainable_weights]
    dy = keras.ops.cast(dy, y.dtype)
    dx, *gradients = torch.autograd.grad(y, [x, *weights], dy, allow_unused=True)
    return y.detach(), dx, gradients


def _differentiate_jax(layer, x, dy, mask, training, mode):
    import jax

    def gradients(trainable, state, x, dy, mask):
        def forward(trainable, x):
            return layer.stateless_call(trainable, state, x, training=training, mask=mask)

        y, pull_back, state = jax.vjp(forward, trainable, x, has_aux=True)
        return y, state, pull_back(dy.astype(y.dtype))

    if mode != "eager":  # also by default: an eager call compiles every operation
        gradients = jax.jit(gradients)
    trainable = [w.value for w in layer.trainable_weights]
    state = [w.value for w in layer.non_trainable_weights]
    arrays = (None if a is None else jax.numpy.asarray(a) for a in (x, dy, mask))
    y, state, (others, dx) = gradients(trainable, state, *arrays)
    for weight, value in zip(layer.non_trainable_weights, state, strict=True):
        weight.assign(value)
    return y, dx, others
