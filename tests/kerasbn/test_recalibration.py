"""`recalibrate` accepts every kind of batches, and rejects bad input."""

from __future__ import annotations

import doctest

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasbn
from kerasbn.tools import recalibration

from .recalibrated_models import BATCHES, X, one_norm, population, state, value

pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return len(BATCHES)

    def __getitem__(self, i):
        return BATCHES[i], np.zeros(len(BATCHES[i]))


class Endless(keras.utils.PyDataset):
    @property
    def num_batches(self):
        return None

    def __getitem__(self, i):
        return BATCHES[i % 3]


def dataset(**options):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((X, X[:, 0])).batch(30, **options)


def loader():
    if keras.backend.backend() != "torch":
        pytest.skip("seconds to import PyTorch")
    import torch

    data = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(X[:, 0]))
    return torch.utils.data.DataLoader(data, batch_size=30)


class TestBatches:
    @pytest.mark.parametrize(
        "batches",
        [
            lambda: BATCHES,
            lambda: iter(BATCHES),
            lambda: ((batch, batch[:, 0]) for batch in BATCHES),
            lambda: [(batch, batch[:, 0], batch[:, 0]) for batch in BATCHES],
            lambda: [ops.convert_to_tensor(batch) for batch in BATCHES],
            Batches,
            dataset,
            loader,
        ],
        ids=[
            "list",
            "generator",
            "pairs",
            "triples",
            "tensors",
            "PyDataset",
            "tf.data",
            "DataLoader",
        ],
    )
    def test_of_every_kind(self, batches, assert_statistics):
        model = one_norm()
        kerasbn.recalibrate(model, batches())
        assert_statistics(model.layers[0], population(BATCHES))

    @pytest.mark.parametrize(
        "arrays",
        [lambda: X, lambda: (X, X[:, 0]), lambda: (X,), lambda: ops.convert_to_tensor(X)],
        ids=["array", "pair", "single", "tensor"],
    )
    def test_arrays_are_cut(self, arrays, assert_statistics):
        model = one_norm()
        kerasbn.recalibrate(model, arrays(), batch_size=30)
        assert_statistics(model.layers[0], population(BATCHES))

    def test_arrays_are_cut_into_batches_of_32_by_default(self, assert_statistics):
        model = one_norm()
        kerasbn.recalibrate(model, X)
        assert_statistics(model.layers[0], population([X[:32], X[32:64], X[64:]]))

    @pytest.mark.parametrize(
        "form", ["list", "dict", "pair", "list batches", "pair batches", "dict batches"]
    )
    def test_of_several_inputs(self, form, assert_statistics):
        a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
        norms = kerasbn.BatchNorm(), kerasbn.BatchNorm()
        model = keras.Model([a, b], [norms[0](a), norms[1](b)])
        y = X + 5
        batches = {
            "list": [X, y],
            "dict": {"b": y, "a": X},
            "pair": ([X, y], X),
            "list batches": [[X, y]],
            "pair batches": [([X, y], X)],
            "dict batches": [{"a": X, "b": y}],
        }[form]
        size = None if "batches" in form else 70
        kerasbn.recalibrate(model, batches, batch_size=size)
        assert_statistics(norms[0], population([X]))
        assert_statistics(norms[1], population([y]))

    def test_steps_take_the_first_and_no_more(self, assert_statistics):
        model, batches = one_norm(), iter(BATCHES)
        kerasbn.recalibrate(model, batches, steps=2)
        assert_statistics(model.layers[0], population(BATCHES[:2]))
        assert next(batches) is BATCHES[2]

    def test_steps_end_what_has_no_end(self, assert_statistics):
        model = one_norm()
        kerasbn.recalibrate(model, Endless(), steps=3)
        assert_statistics(model.layers[0], population(BATCHES))

    def test_a_missing_last_axis_of_one_is_added_as_in_keras(self, assert_statistics):
        model = one_norm(shape=(4, 1))
        kerasbn.recalibrate(model, [X])
        assert_statistics(model.layers[0], population([X.reshape(-1, 1)]))


def broken_off():
    yield BATCHES[0]
    raise KeyboardInterrupt


def broken():
    yield BATCHES[0]
    raise OSError("disk on fire")


class TestBadInput:
    """An error or an interruption leaves the model unchanged."""

    @pytest.fixture
    def model(self):
        model = one_norm()
        model(X, training=True)
        before = state(model)
        yield model
        for old, new in zip(before, state(model), strict=True):
            np.testing.assert_array_equal(old, new)
        assert "call" not in vars(model.layers[0])

    @pytest.mark.parametrize(
        ("batches", "error"), [(broken_off, KeyboardInterrupt), (broken, OSError)]
    )
    def test_an_interruption(self, model, batches, error):
        with pytest.raises(error):
            kerasbn.recalibrate(model, batches())

    def test_an_interruption_while_the_statistics_are_set(self, model, monkeypatch):
        variable = model.layers[0].moving_variance
        assign, calls = variable.assign, []

        def interrupted(array):
            calls.append(array)
            if len(calls) == 1:
                raise KeyboardInterrupt
            assign(array)

        with monkeypatch.context() as patch:
            patch.setattr(variable, "assign", interrupted)
            with pytest.raises(KeyboardInterrupt):
                kerasbn.recalibrate(model, BATCHES)

    def test_a_generator_that_ends_early(self, model):
        with pytest.raises(ValueError, match=r"Expected 5 batches. Received: 3, and then no more"):
            kerasbn.recalibrate(model, iter(BATCHES), steps=5)

    @pytest.mark.parametrize("batches", [[], X[:0], (X[:0], X[:0, 0]), iter([])])
    def test_no_batches(self, model, batches):
        with pytest.raises(ValueError, match=r"Expected at least 1 batch. Received: none"):
            kerasbn.recalibrate(model, batches)

    def test_an_empty_batch(self, model):
        with pytest.raises(ValueError, match=r"Batch 1 is empty.*\[\(0, 4\)\]"):
            kerasbn.recalibrate(model, [X, X[:0]])

    @pytest.mark.parametrize("batch", [X[:, :3], X[:, None], X[0]])
    def test_a_wrong_shape(self, model, batch):
        with pytest.raises(
            ValueError, match=r"Batch 1 does not fit.*\[\(None, 4\)\].*Received: arrays"
        ):
            kerasbn.recalibrate(model, [X, batch])

    def test_other_inputs_than_the_model_has(self, model):
        with pytest.raises(ValueError, match="Batch 0 does not fit"):
            kerasbn.recalibrate(model, [{"a": X, "b": X}])

    def test_arrays_of_different_length(self, model):
        with pytest.raises(ValueError, match=r"equally many examples.*\[\(70, 4\), \(3, 4\)\]"):
            kerasbn.recalibrate(model, {"a": X, "b": X[:3]})

    def test_what_is_no_batches_at_all(self, model):
        with pytest.raises(ValueError, match="Received: batches of type int"):
            kerasbn.recalibrate(model, 3)
        with pytest.raises(ValueError, match=r"Expected arrays. Received in batch 0: 'text'"):
            kerasbn.recalibrate(model, ["text"])

    @pytest.mark.parametrize("batches", [Endless, lambda: dataset().repeat()])
    def test_batches_without_end(self, model, batches):
        with pytest.raises(ValueError, match=r"batches without end, of type .*, and steps=None"):
            kerasbn.recalibrate(model, batches())

    @pytest.mark.parametrize("steps", [0, -1, 2.5, True])
    def test_steps_that_are_no_positive_integer(self, model, steps):
        with pytest.raises(ValueError, match=f"Expected steps .* Received: {steps}"):
            kerasbn.recalibrate(model, BATCHES, steps=steps)

    def test_a_batch_size_for_batches(self, model):
        with pytest.raises(ValueError, match="Received: batch_size=10 and batches of type list"):
            kerasbn.recalibrate(model, BATCHES, batch_size=10)

    def test_batches_of_one_value(self, model):
        with pytest.raises(
            ValueError, match="Received: a single value in every batch of batch norm 'bn'"
        ):
            kerasbn.recalibrate(model, X, batch_size=1)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_values_that_are_not_finite(self, model, bad):
        batch = np.where(X > 100, bad, X)
        with pytest.raises(ValueError, match=r"in batch 1: inputs of batch norm 'bn'.* contain"):
            kerasbn.recalibrate(model, [X, batch, X])

    def test_weights_that_are_not_finite(self):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(2), kerasbn.BatchNorm()])
        model.layers[0].bias.assign([0.0, np.nan])
        with pytest.raises(ValueError, match=r"in batch 0: .*data of this batch are finite. Look"):
            kerasbn.recalibrate(model, X)

    def test_a_model_that_is_not_built(self):
        model = keras.Sequential([layers.Dense(3), kerasbn.BatchNorm()], name="raw")
        with pytest.raises(ValueError, match="Received: model 'raw', which has no weights yet"):
            kerasbn.recalibrate(model, X)

    def test_a_model_without_batch_norm(self):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3)], name="plain")
        with pytest.warns(
            UserWarning, match="Model 'plain' has no BatchNorm or BatchNormalization"
        ):
            kerasbn.recalibrate(model, X)

    def test_a_layer_that_gets_no_values(self):
        class Idle(keras.Model):
            def __init__(self):
                super().__init__()
                self.used, self.idle = kerasbn.BatchNorm(), kerasbn.BatchNorm(name="idle")
                self.idle.build((None, 4))

            def call(self, x):
                return self.used(x)

        model = Idle()
        model(X)
        with pytest.warns(UserWarning, match="Batch norm 'idle' got no value"):
            kerasbn.recalibrate(model, X)
        assert value(model.idle.moving_variance).tolist() == [1, 1, 1, 1]

    def test_a_subclass_with_a_call_of_its_own(self):
        class Doubled(kerasbn.BatchNorm):
            def call(self, inputs, **kwargs):
                return 2 * super().call(inputs, **kwargs)

        model = one_norm(Doubled)
        with pytest.raises(ValueError, match="Batch norm 'bn' of the class Doubled has a `call`"):
            kerasbn.recalibrate(model, X)

    def test_an_error_of_the_model_says_at_which_batch(self):
        class Picky(layers.Layer):
            def call(self, x):
                if x.shape[0] == 10:
                    raise RuntimeError("ten")
                return x

        model = keras.Sequential([keras.Input((4,)), Picky(), kerasbn.BatchNorm()])
        with pytest.raises(RuntimeError) as caught:
            kerasbn.recalibrate(model, BATCHES[-1:])
        assert caught.value.__notes__[-1] == "In recalibrate, at batch 0 with the shapes [(10, 4)]."


def test_the_examples_of_the_docstrings():
    results = doctest.testmod(recalibration)
    assert results.attempted > 3
    assert results.failed == 0
