"""Inputs of the layer: ragged and sparse tensors, arrays of any dtype, and errors."""

import re

import keras
import numpy as np
import pytest

import kerasbn
from kerasbn import BatchNorm, kernels, reference

BACKEND = keras.backend.backend()


def refuses(*parts):
    """Expects a ValueError whose message contains the parts in this order."""
    return pytest.raises(ValueError, match="(?s)" + ".*".join(re.escape(part) for part in parts))


def numpy_of(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has ragged tensors")
class TestRagged:
    LENGTHS = (2, 0, 5, 3)

    @pytest.fixture
    def ragged(self, features):
        """Makes a ragged tensor of sequences, with large values where its padding would be."""
        import tensorflow as tf

        def make(inner=(), seed=0):
            padded = features((4, 5, *inner, 3), seed=seed)
            real = np.arange(5) < np.array(self.LENGTHS)[:, None]
            padded[~real] = 1e6
            return tf.RaggedTensor.from_tensor(padded, lengths=self.LENGTHS)

        return make

    @pytest.mark.parametrize("inner", [(), (2,)], ids=str)
    @pytest.mark.parametrize("training", [True, False])
    def test_is_kerass_and_numpys(self, ragged, assert_close, inner, training):
        x = ragged(inner)
        ours, theirs = BatchNorm(momentum=0.0), keras.layers.BatchNormalization(momentum=0.0)
        y, expected = (layer(x, training=training) for layer in (ours, theirs))
        assert type(y) is type(x)
        assert y.shape.as_list() == expected.shape.as_list() == [4, None, *inner, 3]
        np.testing.assert_array_equal(y.row_splits, x.row_splits)
        values = x.flat_values.numpy()
        axes = tuple(range(values.ndim - 1))
        if training:
            right = reference.forward(values, None, None, 1e-3)[0]
            assert_close(ours.moving_mean, values.mean(axes, "float64"))
            assert_close(ours.moving_variance, values.var(axes, "float64"))
            assert_close(ours.moving_mean, theirs.moving_mean)
            # Keras subtracts large squares, so only a few digits agree.
            assert_close(ours.moving_variance, theirs.moving_variance, 1e-2)
        else:
            right = values / np.sqrt(1 + 1e-3)
            assert_close(y.flat_values, expected.flat_values, axes=axes)
        assert_close(y.flat_values, right, axes=axes)

    def test_two_ragged_axes(self, assert_close):
        import tensorflow as tf

        rows = [[[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]], [[[9.0, 9.0]]]]
        x = tf.ragged.constant(rows, ragged_rank=2)
        layer = BatchNorm(momentum=0.0)
        y = layer(x, training=True)
        assert_close(layer.moving_mean, [4.5, 5.25])
        for splits, expected in zip(y.nested_row_splits, x.nested_row_splits, strict=True):
            np.testing.assert_array_equal(splits, expected)
        assert_close(
            layer(x).flat_values,
            reference.forward(x.flat_values.numpy(), None, None, 1e-3)[0],
            1e-4,
            axes=0,
        )

    def test_ghost_batches_are_runs_of_examples(self, ragged, assert_close):
        x = ragged()
        layer = BatchNorm(momentum=0.0, virtual_batch_size=2)
        y = layer(x, training=True)
        np.testing.assert_array_equal(y.row_splits, x.row_splits)
        groups = [x[:2].flat_values.numpy(), x[2:].flat_values.numpy()]
        expected = [reference.forward(g, None, None, 1e-3)[0] for g in groups]
        assert_close(y.flat_values, np.concatenate(expected), axes=0)
        means = np.array([g.mean(0, "float64") for g in groups])
        weights = np.array([[len(g)] for g in groups])
        assert_close(layer.moving_mean, (means * weights).sum(0) / weights.sum())

    @pytest.mark.parametrize("form", ["ragged", "dense"])
    def test_mask(self, ragged, assert_close, form):
        import tensorflow as tf

        x = ragged()
        chosen = np.random.default_rng(1).random((4, 5)) < 0.6
        kept = chosen[np.arange(5) < np.array(self.LENGTHS)[:, None]]
        mask = tf.constant(chosen)
        if form == "ragged":
            mask = tf.RaggedTensor.from_tensor(mask, lengths=self.LENGTHS)
        layer = BatchNorm(momentum=0.0)
        y = layer(x, training=True, mask=mask)
        values = x.flat_values.numpy()
        assert_close(layer.moving_mean, values[kept].mean(0, "float64"))
        assert_close(layer.moving_variance, values[kept].var(0, "float64"))
        right = reference.forward(values[kept], None, None, 1e-3)[0]
        assert_close(y.flat_values.numpy()[kept], right, axes=0)

    def test_gradients(self, ragged, assert_close):
        import tensorflow as tf

        layer = BatchNorm()
        x = ragged()
        layer(x)
        values, dy = x.flat_values, ragged(seed=1).flat_values

        def gradients(values):
            with tf.GradientTape() as tape:
                tape.watch(values)
                y = layer(x.with_flat_values(values), training=True)
            weights = [w.value for w in layer.trainable_weights]
            return tape.gradient(y.flat_values, [values, *weights], dy)

        expected = reference.backward(
            dy.numpy(), reference.forward(values.numpy(), np.ones(3), np.zeros(3), 1e-3)[1]
        )
        for function in (gradients, tf.function(gradients)):
            for actual, desired in zip(function(values), expected, strict=True):
                assert_close(actual, desired, 1e-4, axes=0)

    def test_in_a_functional_model(self, ragged, assert_close):
        import tensorflow as tf

        inputs = keras.Input((None, 3), ragged=True)
        layer = BatchNorm(momentum=0.0)
        model = keras.Model(inputs, layer(inputs))
        x = ragged()
        tf.function(lambda x: model(x, training=True))(x)
        assert_close(layer.moving_mean, x.flat_values.numpy().mean(0, "float64"))
        right = reference.forward(x.flat_values.numpy(), None, None, 1e-3)[0]
        y = tf.function(model)(x)
        np.testing.assert_array_equal(y.row_splits, x.row_splits)
        assert_close(y.flat_values, right, 1e-4, axes=0)

    def test_recalibrate(self, features, assert_statistics):
        import tensorflow as tf

        class WithoutPadding(keras.Model):
            def __init__(self):
                super().__init__()
                self.norm = BatchNorm()

            def call(self, x):
                return self.norm(tf.RaggedTensor.from_tensor(x, padding=np.zeros(3, "float32")))

        x = features((4, 5, 3))
        real = np.arange(5) < np.array(self.LENGTHS)[:, None]
        x[~real] = 0
        model = WithoutPadding()
        model(x)
        kerasbn.recalibrate(model, x)
        values = x[real].astype("float64")
        assert_statistics(model.norm, (values.mean(0), values.var(0, ddof=1)))

    def test_ragged_features(self):
        import tensorflow as tf

        with refuses("size of axis -1 must be defined", "input shape (2, None)"):
            BatchNorm()(tf.ragged.constant([[1.0, 2.0], [3.0]]))


def sparse_from(dense):
    """The same values as each kind of sparse tensor that the backend has."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return [tf.sparse.from_dense(dense)]
    if BACKEND == "jax":
        from jax.experimental import sparse

        return [sparse.BCOO.fromdense(dense)]
    import torch

    return [torch.tensor(dense).to_sparse(), torch.tensor(dense).to_sparse_csr()]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("training", [True, False])
def test_sparse(features, assert_close, training):
    dense = np.where(np.random.default_rng(0).random((9, 4)) < 0.3, features((9, 4)), 0)
    dense = dense.astype("float32")
    for x in sparse_from(dense):
        layer = BatchNorm(momentum=0.0)
        y = layer(x, training=training)
        x_hat = reference.forward(dense, None, None, 1e-3)[0]
        assert_close(y, x_hat if training else dense / np.sqrt(1 + 1e-3), axes=0)
        assert_close(layer.moving_mean, dense.mean(0, "float64") if training else np.zeros(4))


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no sparse inputs on PyTorch")
def test_fit_on_a_scipy_matrix(features, assert_close):
    import scipy.sparse

    dense = np.maximum(features((12, 4), means=(-2, 2), scales=(0.5, 2)), 0)
    layer = BatchNorm(momentum=0.0)
    model = keras.Sequential([keras.Input((4,), sparse=True), layer])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(scipy.sparse.csr_matrix(dense), dense, batch_size=12, verbose=0)
    assert_close(layer.moving_mean, dense.mean(0, "float64"))
    assert_close(layer.moving_variance, dense.var(0, "float64"))


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint8", "bool", "float16", "float64"])
def test_dtypes(features, assert_close, dtype):
    x = np.abs(features((9, 4), means=(0, 3), scales=(1, 9))).astype(dtype)
    ours, theirs = BatchNorm(momentum=0.0), keras.layers.BatchNormalization(momentum=0.0)
    for training in (True, False):
        y, expected = (layer(x, training=training) for layer in (ours, theirs))
        assert keras.backend.standardize_dtype(y.dtype) == "float32"
        right = reference.forward(x.astype("float64"), None, None, 1e-3)[0]
        assert_close(y, right, 1e-4, axes=0)
        assert_close(y, expected, 1e-4, axes=0)


@pytest.mark.parametrize("wrap", [np.asfortranarray, keras.Variable, keras.ops.convert_to_tensor])
@pytest.mark.parametrize("native", [True, False])
def test_arrays_tensors_and_variables(features, assert_close, wrap, native):
    x = features((6, 4))
    kernels.use_native(native)
    try:
        y = BatchNorm()(wrap(x), training=True)
    finally:
        kernels.use_native(True)
    assert_close(y, reference.forward(x, None, None, 1e-3)[0], axes=0)


def test_an_empty_batch_leaves_the_averages_where_kerass_are_nan(features):
    x = features((0, 4))
    ours, theirs = BatchNorm(), keras.layers.BatchNormalization()
    for layer in (ours, theirs):
        assert layer(x, training=True).shape == (0, 4)
    np.testing.assert_array_equal(numpy_of(ours.moving_mean), np.zeros(4))
    assert np.isnan(numpy_of(theirs.moving_mean)).all()


class TestErrors:
    @pytest.mark.parametrize(
        ("inputs", "shown"),
        [(None, "None"), ([np.ones((2, 3)), np.ones((2, 3))], "[(2, 3), (2, 3)]")],
        ids=["None", "list"],
    )
    def test_no_single_tensor(self, inputs, shown):
        with refuses("takes one array or tensor", f"shape {shown}", "Call one layer for each"):
            BatchNorm()(inputs)

    def test_dictionary(self):
        with refuses("takes one array or tensor", "{'a': (2, 3)}"):
            BatchNorm()({"a": np.ones((2, 3))})

    def test_single_number(self):
        with refuses("at least one axis", "a single number, of the shape ()"):
            BatchNorm()(np.float32(2.0))

    @pytest.mark.parametrize("training", [True, False])
    def test_complex_numbers_lose_nothing_silently(self, training):
        with refuses("real numbers", "dtype complex64", "imaginary"):
            BatchNorm()(np.ones((3, 2), "complex64"), training=training)

    @pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has tensors of strings")
    def test_strings(self):
        with refuses("real numbers", "dtype string"):
            BatchNorm()(np.array([["a", "b"]]))
