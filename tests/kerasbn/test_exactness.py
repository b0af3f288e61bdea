"""Searches shapes, axes, options and values for a case where layer and reference differ."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kerasbn
from kerasbn import reference

# An example takes 0.3 s on JAX, because every shape is compiled, and 0.01 s elsewhere.
EXAMPLES, MANY = (10, 40) if keras.backend.backend() == "jax" else (120, 600)


@dataclass(frozen=True)
class Case:
    """One point of the search."""

    shape: tuple[int, ...]
    axis: tuple[int, ...]
    center: bool
    scale: bool
    epsilon: float
    virtual_batch_size: int | None
    mask_shape: tuple[int, ...] | None
    largest_mean: float
    scales: tuple[float, float]
    seed: int

    def data(self, dtype):
        """Makes x, dy, gamma, beta and the mask (or `None`)."""
        rng = np.random.default_rng(self.seed)
        per_feature = [n if a in self.axis else 1 for a, n in enumerate(self.shape)]
        mean = self.largest_mean * rng.uniform(-1, 1, per_feature)
        scale = np.exp(rng.uniform(*np.log(self.scales), per_feature))
        x = (mean + scale * rng.standard_normal(self.shape)).astype(dtype)
        dy = rng.standard_normal(self.shape).astype(dtype)
        sizes = [self.shape[a] for a in self.axis]
        gamma, beta = rng.uniform(0.5, 2.0, (2, *sizes)).astype(dtype)
        mask = None
        if self.mask_shape is not None:
            mask = rng.random(self.mask_shape) < rng.uniform(0, 1)
        return x, dy, gamma if self.scale else None, beta if self.center else None, mask


@st.composite
def cases(draw):
    rank = draw(st.sampled_from([2, 3, 4, 5]))
    shape = (draw(st.integers(1, 9)), *draw(st.tuples(*[st.integers(1, 4)] * (rank - 1))))
    first = draw(st.sampled_from([1, 1, 1, 0]))  # axis 0 is legal but rare
    choices = [c for n in range(1, rank + 1) for c in combinations(range(first, rank), n)]
    axis = draw(st.sampled_from(choices))
    sizes = [None, None, 2, 3, 5] if 0 not in axis else [None]
    positions = st.tuples(*(st.sampled_from([n, n, 1]) for n in shape[:-1]))  # size 1 broadcasts
    return Case(
        shape=shape,
        axis=axis,
        center=draw(st.booleans()),
        scale=draw(st.booleans()),
        epsilon=draw(st.sampled_from([1e-3, 1e-5])),
        virtual_batch_size=draw(st.sampled_from(sizes)),
        mask_shape=draw(st.none() | positions),
        largest_mean=draw(st.sampled_from([0.0, 1.0, 100.0, 1e4])),
        scales=draw(st.sampled_from([(1e-3, 1e3), (0.5, 2.0), (1e-3, 1e-3), (1e3, 1e3)])),
        seed=draw(st.integers(0, 10**6)),
    )


@dataclass
class Truth:
    """Expected results of a case, and the size of the terms in each sum."""

    y: np.ndarray
    dx: np.ndarray
    dgamma: np.ndarray
    dbeta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    counted: np.ndarray
    y_terms: np.ndarray
    dx_terms: np.ndarray
    dgamma_terms: np.ndarray
    dbeta_terms: np.ndarray


def truth(case, x, dy, gamma, beta, mask) -> Truth:
    groups = []
    size = case.virtual_batch_size or max(case.shape[0], 1)
    if mask is not None:
        mask = np.broadcast_to(mask[..., None], case.shape)
    for start in range(0, case.shape[0], size):
        run = slice(start, start + size)
        y, cache = reference.forward(
            x[run],
            gamma,
            beta,
            case.epsilon,
            axis=case.axis,
            mask=None if mask is None else mask[run],
        )
        groups.append((y, cache, *reference.backward(dy[run], cache)))
    axes = groups[0][1].axes
    reduced = tuple(a for a in range(x.ndim) if a not in case.axis)
    y, caches, dx, dgamma, dbeta = zip(*groups, strict=True)
    m = sum(c.m for c in caches)
    gamma = 1.0 if gamma is None else caches[0].gamma
    x_hat = np.concatenate([c.x_hat for c in caches])
    inverse = np.concatenate(
        [np.broadcast_to((c.sigma2 + c.epsilon) ** -0.5, c.x_hat.shape) for c in caches]
    )
    offset = 0.0 if beta is None else np.reshape(beta, caches[0].mu.shape)

    def largest(values):
        return np.max(np.abs(values), reduced, keepdims=True)

    return Truth(
        y=np.concatenate(y),
        dx=np.concatenate(dx),
        dgamma=sum(dgamma),
        dbeta=sum(dbeta),
        mean=(sum(c.m * c.mu for c in caches) / np.maximum(m, 1)).squeeze(axes),
        variance=(sum(c.m * c.sigma2 for c in caches) / np.maximum(m, 1)).squeeze(axes),
        counted=(m > 0).squeeze(axes),
        y_terms=largest(gamma * x_hat) + np.abs(offset),
        dx_terms=largest(gamma * dy * inverse),
        dgamma_terms=largest(dy * x_hat).squeeze(axes),
        dbeta_terms=largest(dy).squeeze(axes),
    )


def check_layer(case, dtype, tolerance, run, assert_close):
    x, dy, gamma, beta, mask = case.data(dtype)
    layer = kerasbn.BatchNorm(
        axis=case.axis,
        momentum=0.0,  # the moving averages become the batch's statistics
        epsilon=case.epsilon,
        center=case.center,
        scale=case.scale,
        virtual_batch_size=case.virtual_batch_size,
        dtype=dtype,
    )
    layer.build(case.shape)
    if case.scale:
        layer.gamma.assign(gamma)
    if case.center:
        layer.beta.assign(beta)
    result = run(layer, x, dy, mask=mask)
    expected = truth(case, x, dy, gamma, beta, mask)
    axes = tuple(a for a in range(x.ndim) if a not in case.axis)
    assert_close(result.y, expected.y, tolerance, axes=axes, at_least=expected.y_terms)
    assert_close(result.dx, expected.dx, tolerance, axes=axes, at_least=expected.dx_terms)
    if case.scale:
        scale = expected.dgamma_terms
        assert_close(result.dgamma, expected.dgamma, tolerance, axes=(), at_least=scale)
    if case.center:
        scale = expected.dbeta_terms
        assert_close(result.dbeta, expected.dbeta, tolerance, axes=(), at_least=scale)
    mean = np.where(expected.counted, expected.mean, 0.0)
    variance = np.where(expected.counted, expected.variance, 1.0)
    largest = np.max(np.abs(x), axes)
    # Rounding of x: a variance below its square is indistinguishable from 0.
    spacing = np.finfo(dtype).eps * largest
    assert_close(layer.moving_mean, mean, tolerance, axes=(), at_least=largest)
    assert_close(layer.moving_variance, variance, tolerance, axes=(), at_least=spacing**2)


# Every run has the same examples, so a failure comes from a change of the code.
search = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
long_search = settings(search, max_examples=MANY)


@search
@given(case=cases())
def test_float64_layer_is_the_reference_to_1e_10(case, run, assert_close, double):
    with double():
        check_layer(case, "float64", 1e-10, run, assert_close)


@search
@given(case=cases())
def test_float32_layer_is_the_reference_to_1e_5(case, run, assert_close):
    check_layer(case, "float32", 1e-5, run, assert_close)


@pytest.mark.full
@long_search
@given(case=cases())
def test_float64_layer_is_the_reference_in_a_long_search(case, run, assert_close, double):
    with double():
        check_layer(case, "float64", 1e-10, run, assert_close)


@pytest.mark.full
@long_search
@given(case=cases())
def test_float32_layer_is_the_reference_in_a_long_search(case, run, assert_close):
    check_layer(case, "float32", 1e-5, run, assert_close)


def test_variance_is_exact_at_large_offset(features, run, assert_close, mode):
    x = features((500, 6), means=(1e4, 2e4), scales=(1.0, 1.0))
    layer = kerasbn.BatchNorm(momentum=0.0)
    result = run(layer, x, x, mode=mode)
    y, cache = reference.forward(x)
    assert_close(layer.moving_variance, cache.sigma2[0], 1e-6)
    assert_close(result.y, y, 1e-6)
    assert np.isfinite(result.dx).all()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("axis", [-1, 1])
def test_gradient_is_exact_at_large_offset(features, run, assert_close, mode, axis, masked):
    x = features((6, 3, 8), axis, means=(1e4, 2e4), scales=(0.1, 1.0))
    dy = features(x.shape, axis, seed=1)
    mask = np.random.default_rng(2).random(x.shape[:2]) < 0.6 if masked else None
    layer = kerasbn.BatchNorm(axis, momentum=0.0)
    result = run(layer, x, dy, mask=mask, mode=mode)
    y, cache = reference.forward(x, axis=axis, mask=mask[..., None] if masked else None)
    dx, dgamma, dbeta = reference.backward(dy, cache)
    assert_close(layer.moving_variance, cache.sigma2.ravel(), 1e-5, axes=())
    assert_close(result.y, y, 1e-5, axes=cache.axes)
    assert_close(result.dx, dx, 1e-5, axes=cache.axes)
    assert_close(result.dgamma, dgamma, 1e-5)
    assert_close(result.dbeta, dbeta, 1e-5)


def test_variance_is_exact_when_the_first_value_is_an_outlier(features, run, assert_close, mode):
    x = features((100, 3))
    x[0] = 1e6  # the kernels subtract this value
    layer = kerasbn.BatchNorm(momentum=0.0)
    result = run(layer, x, mode=mode)
    y, cache = reference.forward(x)
    assert_close(layer.moving_variance, cache.sigma2[0], 1e-5)
    assert_close(result.y, y, 1e-5, axes=0)


def test_gamma_of_the_deviation_and_beta_of_the_mean_recover_the_input(features, assert_close):
    x = features((50, 4, 4, 3))
    layer = kerasbn.BatchNorm()
    layer.build(x.shape)
    _, cache = reference.forward(x)
    layer.gamma.assign(np.sqrt(cache.sigma2.ravel() + layer.epsilon))
    layer.beta.assign(cache.mu.ravel())
    assert_close(layer(x, training=True), x, 1e-6, axes=(0, 1, 2))


def test_dense_net_makes_beta_of_a_batch_of_one(features, assert_close):
    beta = keras.initializers.Constant([0.5, -2.0, 7.0])
    net = keras.Sequential([keras.layers.Dense(3), kerasbn.BatchNorm(beta_initializer=beta)])
    assert_close(net(features((1, 8)), training=True), [[0.5, -2.0, 7.0]], 0)
