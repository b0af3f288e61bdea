"""`recalibrate`: statistics against NumPy's, for all kinds of batches, layers and models."""

from __future__ import annotations

import doctest

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasbn
from kerasbn.tools import recalibration

KINDS = [keras.layers.BatchNormalization, kerasbn.BatchNorm]
RNG = np.random.default_rng(0)
# Features of different means and scales; sizes that do not divide.
X = (RNG.normal(size=(70, 4)) * [0.5, 1, 10, 50] + [3, -40, 0, 100]).astype("float32")
BATCHES = [X[:30], X[30:60], X[60:]]


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def population(batches):
    """The formula of the docstring, step by step; float64, features last."""
    batches = [np.float64(batch).reshape(-1, batch.shape[-1]) for batch in batches]
    m = [len(batch) for batch in batches]
    mean = sum(n * batch.mean(0) for n, batch in zip(m, batches, strict=True)) / sum(m)
    biased = sum(n * batch.var(0) for n, batch in zip(m, batches, strict=True)) / sum(m)
    mean_m = sum(m) / len(m)
    return mean, mean_m / (mean_m - 1) * biased


def one_norm(kind=kerasbn.BatchNorm, shape=(4,), **options):
    return keras.Sequential([keras.Input(shape), kind(name="bn", **options)])


def value(weight):
    return ops.convert_to_numpy(weight)


def state(model):
    return [np.array(value(variable)) for variable in model.variables]


@pytest.fixture
def assert_statistics(assert_close):
    def check(layer, expected, tolerance=1e-5):
        mean, variance = expected
        stddev = np.sqrt(np.max(variance))
        assert_close(layer.moving_mean, mean, tolerance, at_least=stddev)
        assert_close(
            np.float64(value(layer.moving_variance)) / variance, np.ones_like(variance), tolerance
        )

    return check


class TestStatistics:
    @pytest.mark.parametrize("kind", KINDS)
    def test_of_two_layers_with_dropout_between(self, kind, assert_statistics):
        model = keras.Sequential(
            [
                *(keras.Input((4,)), layers.Dense(5, name="a"), kind(epsilon=0.01, name="first")),
                *(
                    layers.ReLU(),
                    layers.Dropout(0.5),
                    layers.Dense(3, name="b"),
                    kind(name="second"),
                ),
            ]
        )
        gamma, beta = RNG.uniform(0.5, 2, 5), RNG.normal(size=5)
        model.get_layer("first").gamma.assign(gamma)
        model.get_layer("first").beta.assign(beta)
        kerasbn.recalibrate(model, BATCHES)

        (w, b), (v, c) = (map(np.float64, model.get_layer(name).get_weights()) for name in "ab")
        first = [np.float64(x) @ w + b for x in BATCHES]
        normalized = [gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + 0.01) + beta for x in first]
        second = [np.maximum(x, 0) @ v + c for x in normalized]
        assert_statistics(model.get_layer("first"), population(first))
        assert_statistics(model.get_layer("second"), population(second))

    def test_of_one_batch_are_the_sample_mean_and_variance(self, assert_statistics):
        model = one_norm()
        kerasbn.recalibrate(model, [X])
        assert_statistics(model.layers[0], (X.mean(0, "float64"), X.var(0, "float64", ddof=1)))

    def test_of_equal_batches_are_those_of_the_paper(self, assert_statistics):
        model, batches = one_norm(), np.float64(X[:60]).reshape(3, 20, 4)
        kerasbn.recalibrate(model, list(batches))
        assert_statistics(model.layers[0], (batches.mean((0, 1)), 20 / 19 * batches.var(1).mean(0)))

    @pytest.mark.parametrize("kind", KINDS)
    def test_of_images_count_every_position(self, kind, assert_statistics):
        x = X[:64].reshape(8, 2, 4, 4)
        model = one_norm(kind, (4, 2, 4), axis=1)
        kerasbn.recalibrate(model, x.transpose(0, 3, 1, 2), batch_size=5)
        assert_statistics(model.layers[0], population([x[:5], x[5:]]))

    def test_of_several_axes(self, assert_close):
        x = X[:60].reshape(15, 4, 4)
        model = one_norm(shape=(4, 4), axis=(1, 2))
        kerasbn.recalibrate(model, [x])
        assert_close(model.layers[0].moving_mean, x.mean(0, "float64"))
        assert_close(model.layers[0].moving_variance, x.var(0, "float64", ddof=1))

    @pytest.mark.parametrize("kind", KINDS)
    def test_leave_out_what_is_masked(self, kind, assert_statistics):
        x = X[:60].reshape(10, 6, 4).copy()
        x[3:, 4:] = x[:2, 1:] = 0.0
        model = keras.Sequential([keras.Input((6, 4)), layers.Masking(), kind()])
        kerasbn.recalibrate(model, [x[:6], x[6:]])
        seen = [batch[batch.any(-1)] for batch in (x[:6], x[6:])]
        assert_statistics(model.layers[-1], population(seen))

    def test_of_ghost_batches_treat_each_as_a_batch(self, assert_statistics):
        model = one_norm(virtual_batch_size=16)
        kerasbn.recalibrate(model, [X[:40], X[40:]])
        ghosts = [X[:16], X[16:32], X[32:40], X[40:56], X[56:]]
        assert_statistics(model.layers[0], population(ghosts))

    def test_of_a_layer_that_is_called_twice_count_both_calls(self, assert_statistics):
        x, norm = keras.Input((4,)), kerasbn.BatchNorm()
        model = keras.Model(x, [norm(x), norm(3.0 * x)])
        kerasbn.recalibrate(model, [X[:50], X[50:]])
        assert_statistics(norm, population([X[:50], 3.0 * X[:50], X[50:], 3.0 * X[50:]]))

    @pytest.mark.parametrize("kind", KINDS)
    def test_of_renorm_agree_among_each_other(self, kind, assert_statistics, assert_close):
        model = one_norm(kind, renorm=True)
        before = {weight.name: value(weight).copy() for weight in model.weights}
        kerasbn.recalibrate(model, BATCHES)
        norm = model.layers[0]
        assert_statistics(norm, population(BATCHES))
        assert_close(norm.moving_stddev, np.sqrt(value(norm.moving_variance) + 1e-3))
        for name in ("renorm_mean", "renorm_stddev"):
            np.testing.assert_array_equal(value(getattr(norm, name)), before[name])

    @pytest.mark.parametrize("options", [{"momentum": None}, {"debias": True}])
    def test_with_a_count_of_updates_leave_the_count(self, options, assert_statistics):
        model = one_norm(**options)
        model(X, training=True)
        kerasbn.recalibrate(model, BATCHES)
        assert_statistics(model.layers[0], population(BATCHES))
        assert value(model.layers[0].update_count).tolist() == [1, 1, 1, 1]

    def test_are_exact_at_large_offsets(self, assert_statistics):
        x = (RNG.normal(size=(500, 4)) + 1e4).astype("float32")
        model = one_norm()
        kerasbn.recalibrate(model, x, batch_size=50)
        assert_statistics(model.layers[0], population(np.split(x, 10)))

    def test_in_half_precision(self, assert_statistics):
        model = one_norm(dtype="mixed_bfloat16")
        kerasbn.recalibrate(model, BATCHES)
        assert_statistics(model.layers[0], population(BATCHES))


class Subclassed(keras.Model):
    """Batch norms in a list, in a block and in a wrapper; `call` in plain Python."""

    def __init__(self):
        super().__init__()
        self.blocks = [keras.Sequential([layers.Dense(4), kerasbn.BatchNorm()]) for _ in range(2)]
        self.each = layers.TimeDistributed(keras.layers.BatchNormalization())
        self.drop = layers.Dropout(0.5, seed=3)

    def call(self, x, training=None):
        for block in self.blocks:
            x = self.drop(block(x, training=training), training=training)
        return self.each(ops.reshape(x, (-1, 2, 2)), training=training)


class TestModels:
    def test_subclassed_ones_at_any_depth(self, assert_statistics):
        model = Subclassed()
        model(X)
        kerasbn.recalibrate(model, BATCHES)
        first = model.blocks[0]
        w, b = map(np.float64, first.layers[0].get_weights())
        assert_statistics(first.layers[1], population([x @ w + b for x in BATCHES]))
        for norm in (model.blocks[1].layers[1], model.each.layer):
            assert np.all(value(norm.moving_variance) != 1)

    def test_nested_ones_and_frozen_layers(self, assert_statistics):
        norm = kerasbn.BatchNorm(trainable=False)
        inner = keras.Sequential([keras.Input((4,)), norm])
        x = keras.Input((4,))
        model = keras.Model(x, keras.Sequential([inner])(x, training=False))
        kerasbn.recalibrate(model, BATCHES)
        assert_statistics(norm, population(BATCHES))
        assert not norm.trainable

    def test_inference_then_uses_the_statistics(self, assert_close):
        model = one_norm()
        kerasbn.recalibrate(model, BATCHES)
        mean, variance = population(BATCHES)
        assert_close(model(X), (X - mean) / np.sqrt(variance + 1e-3))
        assert_close(model.predict(X, verbose=0), (X - mean) / np.sqrt(variance + 1e-3))

    def test_nothing_else_changes(self):
        model = keras.Sequential(
            [
                *(keras.Input((4,)), layers.Dense(4), layers.Dropout(0.5, seed=1)),
                *(kerasbn.BatchNorm(), layers.GaussianNoise(1.0, seed=2)),
            ]
        )
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
        model(X, training=True)
        config, before = model.get_config(), state(model)
        of_optimizer = [value(variable).copy() for variable in model.optimizer.variables]
        kerasbn.recalibrate(model, X)
        changed = [
            variable.name
            for variable, old, new in zip(model.variables, before, state(model), strict=True)
            if not np.array_equal(old, new)
        ]
        assert changed == ["moving_mean", "moving_variance"]
        assert model.get_config() == config
        assert all("call" not in vars(layer) for layer in model.layers)
        for variable, old in zip(model.optimizer.variables, of_optimizer, strict=True):
            np.testing.assert_array_equal(value(variable), old)

    def test_what_other_layers_count_in_inference_stays(self):
        class Counter(layers.Layer):
            def build(self, shape):
                self.calls = self.add_weight(initializer="zeros", trainable=False)

            def call(self, x):
                self.calls.assign(self.calls + 1)
                return x

        model = keras.Sequential([keras.Input((4,)), Counter(name="counter"), kerasbn.BatchNorm()])
        model(X)
        kerasbn.recalibrate(model, BATCHES)
        assert value(model.get_layer("counter").calls) == 1

    @pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch's loops are Python's")
    def test_a_batch_norm_inside_a_loop_is_an_error(self):
        class Cell(layers.Layer):
            state_size = output_size = 4

            def __init__(self):
                super().__init__()
                self.norm = kerasbn.BatchNorm()

            def build(self, shape):
                self.norm.build((None, 4))

            def call(self, x, states, training=None):
                y = self.norm(x + states[0], training=training)
                return y, [y]

        model = keras.Sequential([keras.Input((3, 4)), layers.RNN(Cell(), name="rnn")], name="loop")
        with pytest.raises(
            ValueError, match=r"Model 'loop' has a batch norm inside a loop.*unroll"
        ):
            kerasbn.recalibrate(model, X[:60].reshape(-1, 3, 4))


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
    """Whatever ends a run leaves everything as it was."""

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
        with pytest.raises(ValueError, match=r"Expected at least 1 batches. Received: 0"):
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
        with pytest.raises(ValueError, match="Batch norm 'bn' got batches of a single value"):
            kerasbn.recalibrate(model, X, batch_size=1)

    def test_values_that_are_not_finite(self, model):
        with pytest.raises(ValueError, match="Batch norm 'bn' got inputs that are not finite"):
            kerasbn.recalibrate(model, [np.where(X > 100, np.nan, X)])

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
