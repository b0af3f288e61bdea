"""Errors of the tools about their arguments: short, and with the next step."""

from __future__ import annotations

import logging
import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasbn
from kerasbn.tools import _wording

X = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
Y = X[:, :1]
pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


@pytest.fixture(scope="module")
def one():
    return keras.Sequential([keras.Input((4,)), kerasbn.BatchNorm(name="bn")], name="one")


@pytest.fixture(scope="module")
def two():
    inputs = {"a": keras.Input((4,), name="first"), "b": keras.Input((4,), name="second")}
    y = kerasbn.BatchNorm()(layers.Concatenate()(list(inputs.values())))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras wants the same names, but accepts the keys
        return keras.Model(inputs, y, name="two")


def message_of(call):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert len(message) < 400  # no message prints data
    return message


class TestSteps:
    TARGETS = "Targets are not needed. To pass them anyway: recalibrate(model, (x, y))."

    @pytest.mark.parametrize("convert", [np.asarray, ops.convert_to_tensor])
    def test_labels_in_place_of_steps(self, one, convert):
        assert message_of(lambda: kerasbn.recalibrate(one, X, convert(Y))) == (
            "Expected steps to be a positive integer or None. Received: an array of the shape "
            f"(64, 1) and the dtype float32. {self.TARGETS}"
        )

    def test_labels_in_a_list(self, one):
        assert message_of(lambda: kerasbn.recalibrate(one, X, [0, 1, 1])) == (
            "Expected steps to be a positive integer or None. Received: a list of 3 items, the "
            f"first of the type int. {self.TARGETS}"
        )

    def test_labels_in_a_tuple_are_ignored(self, one):
        kerasbn.recalibrate(one, (X, Y), batch_size=64)
        mean = ops.convert_to_numpy(one.layers[0].moving_mean)
        np.testing.assert_allclose(mean, X.mean(0), atol=1e-6)

    def test_integers_of_numpy_are_numbers(self, one):
        kerasbn.recalibrate(one, X, np.int64(1), batch_size=np.int32(16))
        mean = ops.convert_to_numpy(one.layers[0].moving_mean)
        np.testing.assert_allclose(mean, X[:16].mean(0), atol=1e-6)

    @pytest.mark.parametrize("size", [Y, 0, 2.5, "32"])
    def test_a_batch_size_that_is_no_number(self, one, size):
        message = message_of(lambda: kerasbn.recalibrate(one, X, batch_size=size))
        assert message.startswith("Expected batch_size to be a positive integer or None. Received")


def used_up():
    batches = iter([X])
    next(batches)
    return batches


class TestNumberOfBatches:
    @pytest.mark.parametrize(
        ("batches", "steps", "message"),
        [
            ([], None, "Expected at least 1 batch. Received: none. Pass more data"),
            ([], 1, "Expected 1 batch. Received: none."),
            ([X], 2, "Expected 2 batches. Received: 1, and then no more. Pass more data. Lower"),
            (X, 5, "Expected 5 batches. Received: 2, and then no more. Pass more data. Lower"),
        ],
    )
    def test_singular_and_plural(self, one, batches, steps, message):
        assert message_of(lambda: kerasbn.recalibrate(one, batches, steps)).startswith(message)

    def test_a_generator_that_has_ended(self, one):
        assert message_of(lambda: kerasbn.recalibrate(one, used_up())).endswith(
            "Received: none. A generator can be used only once, so create it again."
        )

    @pytest.mark.parametrize(
        ("number", "text"), [(0, "0 batches"), (1, "1 batch"), (2, "2 batches")]
    )
    def test_counted(self, number, text):
        assert _wording.counted(number, "batch", "batches") == text

    @pytest.mark.parametrize(
        ("units", "last"),
        [((3,), "1 of 1 batch norm layer folded."), ((3, 2), "2 of 2 batch norm layers folded.")],
    )
    def test_of_folded_layers(self, units, last, capsys):
        stack = [layer for n in units for layer in (layers.Dense(n), kerasbn.BatchNorm())]
        kerasbn.fold(keras.Sequential([keras.Input((4,)), *stack]), verbose=True)
        assert last in capsys.readouterr().out.splitlines()


class TestBatches:
    @pytest.mark.parametrize(
        ("batches", "message"),
        [
            (None, "Received: batches of type NoneType."),
            ("data.npy", "Received: batches of type str. Load the data first"),
            (lambda: [X], "Received: batches of type function. Call the function"),
            (X.tolist(), "in batch 0: a list of 4 items, the first of the type float. Convert num"),
            ([[1.0, 2.0]], "in batch 0: a list of 2 items, the first of the type float. Convert"),
            ([3.0], "Expected arrays. Received in batch 0: 3.0. Convert numbers to an array"),
            (["text"], "Expected arrays. Received in batch 0: 'text' of the type str."),
            (
                (X, X, X, X),
                "Received: a tuple of 4 items, the first of the type ndarray. Put batch",
            ),
            ([(X, X, X, X)], "Received in batch 0: a tuple of 4 items"),
            ((), "Received: an empty tuple."),
            ({}, "Received: no arrays."),
            (np.float32(3), "examples along their first axis. Received: 3.0."),
            ({"a": X, "b": "x"}, "Received: 'x' of the type str."),
            ({"a": X}, "Expected: one array. Received: a dictionary with the keys ['a']. Pass its"),
        ],
    )
    def test_what_is_no_batches(self, one, batches, message):
        assert message in message_of(lambda: kerasbn.recalibrate(one, batches))

    @pytest.mark.parametrize(
        ("dtype", "advice"),
        [(str, "array.astype(float)"), (object, "array.astype(float)"), (complex, "array.real")],
    )
    def test_a_dtype_without_real_numbers(self, one, dtype, advice):
        array = X.astype(dtype)
        assert message_of(lambda: kerasbn.recalibrate(one, [X, array])) == (
            "Batch 1 does not fit model 'one'. Expected: real numbers (float32). Received: an "
            f"array of the shape (64, 4) and the dtype {array.dtype}. Convert it, for example with "
            f"{advice}."
        ).replace(f"the dtype {array.dtype}", f"the dtype {_wording.dtype_name(array)}")

    @pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "uint8", "bool"])
    def test_a_dtype_of_numbers(self, one, dtype):
        x = (10 * np.abs(X)).astype(dtype)
        kerasbn.recalibrate(one, x, batch_size=64)
        mean = ops.convert_to_numpy(one.layers[0].moving_mean)
        np.testing.assert_allclose(mean, x.mean(0, "float64"), rtol=1e-5)

    @pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: (x, Y)])
    @pytest.mark.parametrize("keys", [["a"], ["a", "c"]])
    def test_a_dictionary_without_a_key(self, two, keys, wrap):
        batches = wrap(dict.fromkeys(keys, X))
        assert message_of(lambda: kerasbn.recalibrate(two, batches)) == (
            "Batch 0 does not fit model 'two'. Expected: a dictionary with the keys ['a', 'b']. "
            f"Received: a dictionary with the keys {keys}. Add 'b'."
        )

    def test_a_dictionary_by_the_keys_of_the_model(self, two):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            kerasbn.recalibrate(two, {"b": X + 7, "a": X}, batch_size=64)
        mean = ops.convert_to_numpy(two.layers[-1].moving_mean)
        np.testing.assert_allclose(mean, np.r_[X.mean(0), X.mean(0) + 7], atol=1e-5)


@pytest.mark.parametrize(
    "tool",
    [kerasbn.fold, kerasbn.from_keras, kerasbn.to_keras, lambda m: kerasbn.recalibrate(m, X)],
    ids=["fold", "from_keras", "to_keras", "recalibrate"],
)
class TestModels:
    @pytest.mark.parametrize(
        ("model", "received"),
        [
            ("model.keras", "'model.keras' of the type str. Load the model from the file first"),
            (keras.Sequential, "the class Sequential. Create a model of this class"),
            (None, "None. Pass the model as the first argument."),
            (X, "an array of the shape (64, 4) and the dtype float32. Pass the model as the first"),
            ([1, 2], "a list of 2 items, the first of the type int. Pass one model at a time."),
            (lambda: None, "of the type function. Call the function, and pass the model"),
            (layers.Dense(2), "of the type Dense. Put a single layer into keras.Sequential"),
        ],
    )
    def test_what_is_no_model(self, tool, model, received):
        message = message_of(lambda: tool(model))
        assert message.startswith("Expected a built keras.Model. Received: ")
        assert received in message

    def test_a_sequential_model_that_is_empty(self, tool):
        message = message_of(lambda: tool(keras.Sequential(name="empty")))
        assert re.search("model 'empty', which has no (weights yet|graph)", message)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a warning of TensorFlow")
@pytest.mark.parametrize("tool", [kerasbn.recalibrate, kerasbn.diagnose])
def test_one_model_after_another_causes_no_warning_of_retracing(tool):
    import tensorflow as tf

    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    tf.get_logger().addHandler(handler)
    try:
        for _ in range(7):  # TensorFlow warns at the fifth
            model = keras.Sequential([keras.Input((4,)), kerasbn.BatchNorm()])
            tool(model, np.random.default_rng(0).normal(size=(20, 4)).astype("float32"))
    finally:
        tf.get_logger().removeHandler(handler)
    assert [record.getMessage() for record in records] == []


def test_data_without_batches_is_told_to_make_some():
    model = keras.Sequential([keras.Input((1,)), kerasbn.BatchNorm()])
    with pytest.raises(ValueError, match=r"no axis for the examples.*\.batch\(32\)"):
        kerasbn.recalibrate(model, iter([np.float32(1.0), np.float32(2.0)]))
