"""The reference agrees with exact fractions, and its gradients with numerical ones."""

from fractions import Fraction

import numpy as np
import pytest

from kerasbn import reference

CASES = [
    ((6, 3), -1),
    ((4, 3, 5), 1),
    ((3, 2, 2, 4), (1, 3)),
    ((5, 2, 2, 3, 2), -2),
]


def central_difference(loss, array, step=1e-5):
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = loss()
        array[index] = kept - step
        below = loss()
        array[index] = kept
        gradient[index] = (above - below) / (2 * step)
    return gradient


def kept_sizes(shape, axis):
    return [shape[a] for a in sorted(a % len(shape) for a in np.atleast_1d(axis))]


def test_statistics_are_those_of_exact_fractions():
    x = np.array([[0.1, 1e8 + 1], [0.7, 1e8 + 4], [-0.3, 1e8 + 2]])
    _, cache = reference.forward(x)
    for feature in range(2):
        values = [Fraction(v) for v in x[:, feature]]
        mean = sum(values) / 3
        variance = sum((v - mean) ** 2 for v in values) / 3
        assert cache.mu[0, feature] == pytest.approx(float(mean), rel=1e-15)
        assert cache.sigma2[0, feature] == pytest.approx(float(variance), rel=1e-14)


def test_output_follows_the_papers_algorithm():
    x = np.array([[1.0, 20.0], [5.0, 60.0]])
    y, _ = reference.forward(x, gamma=[2.0, 3.0], beta=[0.5, -1.0], epsilon=0.25)
    # By hand: means 3 and 40, variances 4 and 400.
    first, second = 2 / np.sqrt(4.25), 20 / np.sqrt(400.25)
    expected = [[-2 * first + 0.5, -3 * second - 1], [2 * first + 0.5, 3 * second - 1]]
    np.testing.assert_allclose(y, expected, rtol=1e-14)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("shape", "axis"), CASES)
def test_gradients_are_the_numerical_ones(features, shape, axis, masked):
    rng = np.random.default_rng(1)
    x = features(shape, axis, means=(-2, 2), scales=(0.5, 2), dtype="float64")
    gamma, beta = rng.uniform(0.5, 2, (2, *kept_sizes(shape, axis)))
    mask = rng.random((*shape[:-1], 1)) < 0.6 if masked else None
    dy = rng.standard_normal(shape)

    def forward():
        return reference.forward(x, gamma, beta, 1e-2, axis=axis, mask=mask)

    analytic = reference.backward(dy, forward()[1])
    for array, gradient in zip((x, gamma, beta), analytic, strict=True):
        numerical = central_difference(lambda: np.sum(forward()[0] * dy), array)
        np.testing.assert_allclose(gradient, numerical, atol=1e-7)


@pytest.mark.parametrize(("shape", "axis"), CASES)
def test_mask_equals_leaving_the_values_out(features, shape, axis):
    x = features(shape, axis, dtype="float64")
    mask = np.random.default_rng(2).random(shape) < 0.5
    _, cache = reference.forward(x, axis=axis, mask=mask)
    counted = np.ma.array(x, mask=~mask)
    axes = cache.axes
    np.testing.assert_allclose(cache.mu, counted.mean(axes, keepdims=True).filled(0), rtol=1e-12)
    np.testing.assert_allclose(cache.sigma2, counted.var(axes, keepdims=True).filled(0), rtol=1e-10)


def test_feature_without_values_has_zero_statistics():
    x = np.array([[3.0, 4.0], [5.0, 9.0]])
    y, cache = reference.forward(x, epsilon=0.25, mask=[[True, False], [True, False]])
    assert cache.mu.tolist() == [[4.0, 0.0]]
    assert cache.sigma2.tolist() == [[1.0, 0.0]]
    assert y[:, 1].tolist() == [8.0, 18.0]  # (x - 0) / sqrt(0 + 0.25)


def test_parameters_of_several_axes_come_in_ascending_order(features):
    x = features((4, 2, 3), (1, 2), dtype="float64")
    beta = np.arange(6.0).reshape(2, 3)
    y, _ = reference.forward(x, gamma=np.zeros((2, 3)), beta=beta, axis=(2, 1))
    np.testing.assert_array_equal(y, np.broadcast_to(beta, x.shape))


@pytest.mark.parametrize("axis", [2, -3, (0, 5)])
def test_an_axis_out_of_range_is_refused(axis):
    with pytest.raises(ValueError, match=r"from -2 to 1 .* Received: axis"):
        reference.forward(np.ones((3, 4)), axis=axis)
