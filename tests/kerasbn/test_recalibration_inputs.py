"""`recalibrate` takes every kind of array and data set that `predict` takes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasbn

from .recalibrated_models import BATCHES, X, one_norm, population, value

BACKEND = keras.backend.backend()
SPARSE = X * (np.random.default_rng(1).random(X.shape) < 0.4)
TOKENS = [[int(t) for t in row if t] for row in np.random.default_rng(2).integers(0, 9, (70, 4))]
TOKENS = [row or [1] for row in TOKENS]
pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


def cut(x):
    return [x[:30], x[30:60], x[60:]]


def dense(**options):
    """A model whose first layer takes sparse inputs. A batch norm itself takes dense ones."""
    return keras.Sequential(
        [keras.Input((4,), **options), layers.Dense(3, name="dense"), kerasbn.BatchNorm(name="bn")]
    )


def after_dense(model):
    kernel, bias = (np.float64(value(weight)) for weight in model.get_layer("dense").weights)
    return population([np.float64(x) @ kernel + bias for x in cut(SPARSE)])


def scipy_sparse(kind):
    return getattr(pytest.importorskip("scipy.sparse"), kind)(SPARSE)


def tf_sparse(x=SPARSE):
    return pytest.importorskip("tensorflow").sparse.from_dense(x)


def bcoo():
    pytest.importorskip("jax")
    from jax.experimental import sparse

    return sparse.BCOO.fromdense(SPARSE)


def of_tf_data(x):
    return pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices(x).batch(30)


class Batches(keras.utils.PyDataset):
    def __init__(self, batches, **options):
        super().__init__(**options)
        self.batches = batches
        self.calls = []

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, i):
        return self.batches[i], np.zeros(len(BATCHES[i]))

    def on_epoch_begin(self):
        self.calls.append("begin")

    def on_epoch_end(self):
        self.calls.append("end")


class TestSparse:
    @pytest.mark.parametrize(
        "data",
        [
            lambda: scipy_sparse("csr_matrix"),
            lambda: scipy_sparse("coo_array"),
            lambda: (scipy_sparse("csr_matrix"), SPARSE[:, 0]),
            tf_sparse,
            bcoo,
        ],
        ids=["csr", "coo", "pair", "tf", "jax"],
    )
    def test_arrays(self, data, assert_statistics):
        model = dense()
        kerasbn.recalibrate(model, data(), batch_size=30)
        assert_statistics(model.get_layer("bn"), after_dense(model))

    @pytest.mark.parametrize(
        "data",
        [
            lambda: ((each,) for each in cut(scipy_sparse("csr_matrix"))),
            lambda: [(tf_sparse(each), each) for each in cut(SPARSE)],
            lambda: Batches(cut(scipy_sparse("csr_matrix"))),
            lambda: of_tf_data(tf_sparse()),
        ],
        ids=["generator", "list", "PyDataset", "tf.data"],
    )
    def test_batches(self, data, assert_statistics):
        model = dense()
        kerasbn.recalibrate(model, data())
        assert_statistics(model.get_layer("bn"), after_dense(model))

    @pytest.mark.skipif(BACKEND == "torch", reason="Keras has no sparse inputs on PyTorch")
    def test_a_sparse_input(self, assert_statistics):
        model = dense(sparse=True)
        kerasbn.recalibrate(model, scipy_sparse("csr_matrix"), batch_size=30)
        assert_statistics(model.get_layer("bn"), after_dense(model))


class TestRagged:
    """The mean of each row's embeddings. TensorFlow leaves rows as they are; Keras pads others."""

    @staticmethod
    def model(**options):
        return keras.Sequential(
            [
                keras.Input((None,), dtype="int32", **options),
                layers.Embedding(9, 4, embeddings_initializer="normal", name="embedding"),
                layers.GlobalAveragePooling1D(),
                kerasbn.BatchNorm(name="bn"),
            ]
        )

    @staticmethod
    def expected(model):
        table = np.float64(value(model.get_layer("embedding").embeddings))
        length = 0 if BACKEND == "tensorflow" else 4
        rows = [table[row + [0] * (length - len(row))].mean(0) for row in TOKENS]
        return population(cut(np.array(rows)))

    @pytest.mark.parametrize("options", [{}, {"ragged": True}], ids=["dense Input", "ragged Input"])
    @pytest.mark.parametrize("kind", ["array", "tf.data", "generator"])
    def test_tokens(self, kind, options, assert_statistics):
        if options and BACKEND != "tensorflow":
            pytest.skip("only TensorFlow has ragged inputs")
        ragged = pytest.importorskip("tensorflow").ragged.constant(TOKENS)
        data = {
            "array": lambda: ragged,
            "tf.data": lambda: of_tf_data(ragged),
            "generator": lambda: ((each,) for each in cut(ragged)),
        }[kind]()
        model = self.model(**options)
        kerasbn.recalibrate(model, data, batch_size=30 if kind == "array" else None)
        assert_statistics(model.get_layer("bn"), self.expected(model))


class TestPandas:
    @pytest.mark.parametrize("kind", ["frame", "mixed frame", "frames"])
    def test_frames(self, kind, assert_statistics):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(X, index=range(100, 170))  # the index is no row number
        data = {
            "frame": frame,
            "mixed frame": frame.astype({0: "float64"}),
            "frames": ((each,) for each in cut(frame)),
        }[kind]
        model = one_norm()
        kerasbn.recalibrate(model, data, batch_size=None if kind == "frames" else 30)
        assert_statistics(model.layers[0], population(BATCHES))

    def test_a_series_has_an_axis_of_one_feature(self, assert_statistics):
        class Subclass(keras.Model):
            def __init__(self):
                super().__init__()
                self.norm = kerasbn.BatchNorm()

            def call(self, inputs):
                return self.norm(inputs["a"])

        pandas = pytest.importorskip("pandas")
        model = Subclass()
        model({"a": X[:, :1]})
        series = pandas.Series(X[:, 1], index=range(100, 170))
        kerasbn.recalibrate(model, {"a": series}, batch_size=30)
        assert_statistics(model.norm, population(cut(X[:, 1:2])))


class TestDataSets:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_py_dataset_begins_and_ends_an_epoch(self, workers, assert_statistics):
        model, data = one_norm(), Batches(BATCHES, workers=workers)
        kerasbn.recalibrate(model, data)
        assert_statistics(model.layers[0], population(BATCHES))
        assert data.calls == ["begin", "end"]

    def test_a_py_dataset_ends_its_epoch_after_an_error(self):
        data = Batches([X, X[:, :2]])
        with pytest.raises(ValueError, match="Batch 1 does not fit"):
            kerasbn.recalibrate(one_norm(), data)
        assert data.calls == ["begin", "end"]

    def test_endless_tf_data(self, assert_statistics):
        model = one_norm()
        kerasbn.recalibrate(model, of_tf_data(X).repeat(), steps=3)
        assert_statistics(model.layers[0], population(BATCHES))

    @pytest.mark.parametrize("kind", ["map", "iterator", "loader"])
    def test_grain(self, kind, assert_statistics):
        grain = pytest.importorskip("grain")
        batched = grain.MapDataset.source([(x, x) for x in X]).batch(30)
        sampler = grain.samplers.IndexSampler(
            70, shard_options=grain.sharding.NoSharding(), num_epochs=1
        )
        loader = grain.DataLoader(
            data_source=list(X), sampler=sampler, operations=[grain.transforms.Batch(30)]
        )
        data = {"map": batched, "iterator": batched.to_iter_dataset(), "loader": loader}[kind]
        model = one_norm()
        kerasbn.recalibrate(model, data)
        assert_statistics(model.layers[0], population(BATCHES))


class TestValues:
    def test_images_of_bytes(self, assert_statistics):
        images = np.random.default_rng(3).integers(0, 255, (70, 2, 2, 3)).astype("uint8")
        model = keras.Sequential(
            [
                keras.Input((2, 2, 3), dtype="uint8"),
                *(layers.Rescaling(1 / 255), kerasbn.BatchNorm(name="bn")),
            ]
        )
        kerasbn.recalibrate(model, images, batch_size=30)
        assert_statistics(model.get_layer("bn"), population(cut(images / 255)))

    @pytest.mark.parametrize("kind", ["object", "U1", "generator", "tf.data"])
    def test_text(self, kind, assert_statistics):
        words = np.array(["a", "b", "c"])[np.random.default_rng(4).integers(0, 3, (70, 1))]
        data = {
            "object": lambda: words.astype(object),
            "U1": lambda: words,
            "generator": lambda: ((each,) for each in cut(words)),
            "tf.data": lambda: of_tf_data(words),
        }[kind]()
        size = 30 if kind in ("object", "U1") else None
        if BACKEND != "tensorflow":
            with pytest.raises(ValueError, match=r"Expected: real numbers.*Received.* dtype "):
                kerasbn.recalibrate(one_norm(shape=(1,)), data, batch_size=size)
            return
        lookup = layers.StringLookup(vocabulary=["a", "b", "c"], output_mode="one_hot")
        x = keras.Input((1,), dtype="string")
        model = keras.Model(x, kerasbn.BatchNorm(name="bn")(lookup(x)))
        kerasbn.recalibrate(model, data, batch_size=size)
        mean, variance = population(cut(words == ["", "a", "b", "c"]))
        norm = model.get_layer("bn")
        np.testing.assert_allclose(value(norm.moving_mean), mean, rtol=1e-6)
        np.testing.assert_allclose(value(norm.moving_variance), variance, rtol=1e-5)

    @pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution is for JAX")
    def test_a_sharded_array(self, assert_statistics):
        import jax
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        mesh = Mesh(np.array(jax.devices()), ("batch",))
        sharded = jax.device_put(X, NamedSharding(mesh, PartitionSpec("batch")))
        model = one_norm()
        kerasbn.recalibrate(model, sharded, batch_size=30)
        assert_statistics(model.layers[0], population(BATCHES))


class TestStructures:
    """A list holds one array for each input, or batches: the number of inputs decides."""

    @pytest.fixture
    def norm(self):
        return kerasbn.BatchNorm()

    def functional(self, norm, structure):
        inputs = keras.tree.map_structure(lambda name: keras.Input((4,), name=name), structure)
        return keras.Model(inputs, norm(sum(keras.tree.flatten(inputs))))

    def subclass(self, norm, inputs):
        class Sum(keras.Model):
            def __init__(self):
                super().__init__()
                self.norm = norm

            def call(self, inputs):
                return self.norm(sum(keras.tree.flatten(inputs)))

        model = Sum()
        model(inputs)
        return model

    @pytest.mark.parametrize("kind", ["functional", "subclass"])
    @pytest.mark.parametrize(
        "structure",
        [["a", "b"], ("a", "b"), {"a": "a", "b": "b"}, ({"a": "a", "b": "b"}, "c"), [["a"], "b"]],
        ids=["list", "tuple", "dict", "tuple with dict", "list in list"],
    )
    @pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x, X), lambda x: (x, X, X[:, 0])])
    def test_of_several_inputs(self, kind, structure, wrap, norm, assert_statistics):
        x = keras.tree.map_structure(lambda name: X, structure)
        model = getattr(self, kind)(norm, structure if kind == "functional" else x)
        kerasbn.recalibrate(model, wrap(x), batch_size=30)
        expected = population([len(keras.tree.flatten(x)) * batch for batch in BATCHES])
        assert_statistics(norm, expected)

    @pytest.mark.parametrize("kind", ["functional", "subclass"])
    @pytest.mark.parametrize("make", [list, iter])
    def test_batches_of_several_inputs(self, kind, make, norm, assert_statistics):
        model = getattr(self, kind)(norm, ["a", "b"] if kind == "functional" else [X, X])
        kerasbn.recalibrate(model, make([[batch, batch] for batch in BATCHES]))
        assert_statistics(norm, population([2 * batch for batch in BATCHES]))

    def test_a_list_of_two_arrays_is_two_batches_for_one_input(self, norm, assert_statistics):
        kerasbn.recalibrate(self.subclass(norm, X), BATCHES[:2])
        assert_statistics(norm, population(BATCHES[:2]))

    def test_a_list_of_one_array_is_a_batch_or_with_a_size_cut(self, norm, assert_statistics):
        model = self.functional(norm, "a")
        kerasbn.recalibrate(model, [X])
        assert_statistics(norm, population([X]))
        kerasbn.recalibrate(model, [X], batch_size=30)
        assert_statistics(norm, population(BATCHES))

    def test_an_optional_input(self, norm, assert_statistics):
        a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b", optional=True)

        class First(layers.Layer):
            def call(self, a, b=None):
                return a

            def compute_output_shape(self, a_shape, b_shape=None):
                return a_shape

        model = keras.Model([a, b], norm(First()(a, b)))
        kerasbn.recalibrate(model, [X, None], batch_size=30)
        assert_statistics(norm, population(BATCHES))


def test_tensors_of_the_backend_are_cut(assert_statistics):
    model = one_norm()
    kerasbn.recalibrate(model, ops.convert_to_tensor(X), batch_size=30)
    assert_statistics(model.layers[0], population(BATCHES))
