"""Properties of the kernels that the layer's results do not show."""

import keras
import numpy as np
import pytest

from kerasbn import kernels, reference
from kerasbn.kernels import generic

from .matrices import half_by_default


class Normalization(keras.layers.Layer):
    """Wraps a kernel as a layer for `run`, with one gamma and beta for each index of `axis`."""

    def __init__(self, kernel, axis, **kwargs):
        super().__init__(**kwargs)
        self.kernel = kernel
        self.axis = axis
        self.supports_masking = True

    def build(self, shape):
        self.axes = tuple(a for a in range(len(shape)) if a not in self.axis)
        sizes = [n if a in self.axis else 1 for a, n in enumerate(shape)]
        self.gamma = self.add_weight(sizes, keras.initializers.RandomUniform(1, 2, 1), name="gamma")
        self.beta = self.add_weight(sizes, keras.initializers.RandomUniform(1, 2, 2), name="beta")

    def call(self, x, training, mask=None):
        y, self.moments = self.kernel(
            x, self.gamma + 0.0, self.beta + 0.0, axes=self.axes, epsilon=1e-3, mask=mask
        )
        return y


@pytest.mark.parametrize(
    ("dtype", "shape", "masked"),
    half_by_default(["float32", "float64"], [(7, 3), (4, 3, 2, 5)], [False, True]),
    ids=str,
)
def test_generic_kernel_is_the_reference(features, run, assert_close, double, dtype, shape, masked):
    axis = {2: (1,), 4: (1, 3)}[len(shape)]
    tolerance = {"float32": 1e-5, "float64": 1e-10}[dtype]
    x = features(shape, axis, means=(-1e4, 1e4), scales=(0.1, 10), dtype=dtype)
    dy = features(shape, axis, seed=1, dtype=dtype)
    mask = np.random.default_rng(2).random((*shape[:-1], 1)) < 0.6 if masked else None
    with double():
        layer = Normalization(generic.batch_normalize, axis, dtype=dtype)
        result = run(layer, x, dy, mask=mask)
        gamma, beta = (keras.ops.convert_to_numpy(w.value) for w in layer.weights)
    y, cache = reference.forward(x, gamma, beta, axis=axis, mask=mask)
    dx, dgamma, dbeta = reference.backward(dy, cache)
    assert_close(result.y, y, tolerance, axes=cache.axes)
    assert_close(result.dx, dx, tolerance, axes=cache.axes)
    assert_close(result.dgamma.reshape(dgamma.shape), dgamma, tolerance)
    assert_close(result.dbeta.reshape(dbeta.shape), dbeta, tolerance)


@pytest.mark.parametrize("kernel", [kernels, generic], ids=["backend", "generic"])
def test_moments_carry_no_gradient(features, kernel, run):
    class Mean(Normalization):
        def call(self, x, training, mask=None):
            y = super().call(x, training, mask)
            return 0.0 * y + self.moments.mean + self.moments.variance

    x = features((6, 3))
    result = run(Mean(kernel.batch_normalize, (1,)), x, np.ones_like(x))
    np.testing.assert_array_equal(result.dx, np.zeros_like(x))


@pytest.mark.parametrize("kernel", [kernels, generic], ids=["backend", "generic"])
def test_count_is_a_python_number_where_the_shape_says_it(features, kernel):
    x = keras.ops.convert_to_tensor(features((6, 2, 3)))
    _, moments = kernel.batch_normalize(x, None, None, axes=(0, 1), epsilon=1e-3)
    assert moments.count == 12.0
    assert isinstance(moments.count, float)


@pytest.mark.parametrize("means", [(-2, 2), (1e4, 2e4)])
def test_normalize_is_as_exact_as_its_inputs(features, means):
    """The error is that of an x and a mean which are off by one rounding each."""
    x = features((200, 3), means=means, scales=(0.5, 2))
    mean, variance, gamma, beta = x.mean(0), x.var(0), np.float32([1, 2, 3]), np.float32([4, 0, -5])
    arrays = (keras.ops.convert_to_tensor(a) for a in (x, mean, variance, gamma, beta))
    y = keras.ops.convert_to_numpy(kernels.normalize(*arrays, epsilon=1e-5))
    x, mean, variance = (a.astype("float64") for a in (x, mean, variance))
    a = gamma / np.sqrt(variance + 1e-5)
    rounding = np.finfo("float32").eps * (np.abs(x).max(0) + np.abs(mean)) * a
    error = np.abs(y - ((x - mean) * a + beta)).max(0)
    assert np.all(error <= rounding + np.finfo("float32").eps * np.abs(y).max(0))
