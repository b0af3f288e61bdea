"""Common mistakes in a user's arrays: each message names a step that corrects the array."""

import re

import numpy as np
import pytest
from image_files import assert_equal_arrays, refusal, small_arrays

from sweeps.harness import data

CLASSES = np.array(["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibex", "jay"])


def save(folder, images=None, labels=None):
    """Saves the small arrays, changed by functions of images and of labels; returns the arrays."""
    arrays = small_arrays()
    for key, array in arrays.items():
        change = images if key[0] == "x" else labels
        arrays[key] = array if change is None else change(array)
    np.savez(folder / "custom.npz", **arrays)
    return arrays


def follow(message, arrays):
    """Does what the message says, with all arrays of its kind."""
    step = re.sub(r"^(Save |[^:]*: )", "", message.rsplit(". ", 1)[1])
    names = {"np": np, **arrays}
    if " = " in step:
        exec(step, names)
        return {key: names[key] for key in arrays}
    (key,) = set(re.findall("[xy]_train", step))
    done = {
        each: eval(step.replace(key, each), names) if each[0] == key[0] else array
        for each, array in arrays.items()
    }
    return done


def as_floats(low, high):
    """Pixels from 0 to 255 as floats from `low` to `high`."""
    return lambda x: (low + x.astype(np.float32) / 255 * (high - low)).astype(np.float32)


IMAGES = {
    "0 to 1": (as_floats(0, 1), ["float32 with values 0 to 1", "Multiply by 255"]),
    "-1 to 1": (as_floats(-1, 1), ["values -1 to 1", "127.5 * (x_train + 1)"]),
    "0 to 255": (as_floats(0, 255), ["values 0 to 255", "Round and convert: np.round(x_train)"]),
    "standardized": (as_floats(-0.5, 2.5), ["values -0.5 to 2.5", "Rescale"]),
    "float64": (lambda x: x / 255, ["float64", "np.round(255 * x_train)"]),
    "16 bits": (lambda x: x.astype(np.uint16) * np.uint16(257), ["uint16", "0 to 65535"]),
    "flat": (lambda x: x.reshape(-1, 784), ["(30, 784)", "Reshape"]),
}
LABELS = {
    "text": (lambda y: CLASSES[y], ["has text labels ('ant', 'bee', 'cat', ...)"]),
    "bytes": (lambda y: CLASSES[y].astype("S"), ["has text labels (b'ant'"]),
    "float": (lambda y: y.astype(np.float64), ["y_train is float64", "integers from 0 to 9"]),
    "one-hot": (lambda y: np.eye(10)[y], ["one-hot labels of shape (30, 10)", "np.argmax"]),
    "column": (lambda y: y[:, None], ["shape (30, 1)"]),
    "from 1": (lambda y: y + 1, ["has labels 1 to 10"]),
    "floats from 1": (lambda y: y + 1.0, ["has labels 1 to 10"]),
}


@pytest.mark.parametrize("mistake", IMAGES)
def test_the_step_in_the_message_corrects_images(tmp_path, mistake):
    change, expected = IMAGES[mistake]
    arrays = save(tmp_path, images=change)
    message = refusal("custom", tmp_path)
    assert all(text in message for text in expected), message
    np.savez(tmp_path / "custom.npz", **follow(message, arrays))
    assert_equal_arrays(data.load("custom", tmp_path), small_arrays())


@pytest.mark.parametrize("mistake", LABELS)
def test_the_step_in_the_message_corrects_labels(tmp_path, mistake):
    change, expected = LABELS[mistake]
    arrays = save(tmp_path, labels=change)
    message = refusal("custom", tmp_path)
    assert all(text in message for text in expected), message
    np.savez(tmp_path / "custom.npz", **follow(message, arrays))
    assert_equal_arrays(data.load("custom", tmp_path), small_arrays())


def test_classes_get_the_same_numbers_in_both_arrays(tmp_path):
    # A class that the test labels lack must not shift the numbers of the others.
    arrays = small_arrays() | {"y_test": small_arrays()["y_test"] % 9 + 1}
    text = {key: CLASSES[arrays[key]] for key in ("y_train", "y_test")}
    np.savez(tmp_path / "custom.npz", **(arrays | text))
    corrected = follow(refusal("custom", tmp_path), arrays | text)
    np.testing.assert_array_equal(corrected["y_test"], arrays["y_test"])


def test_text_labels_from_a_column_of_pandas(tmp_path):
    save(tmp_path, labels=lambda y: CLASSES[y].astype(object))
    message = refusal("custom", tmp_path)
    assert "y_train holds Python objects, such as strings or lists" in message
    assert "np.unique" in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: x / 0.0, "Replace NaN and infinite values first"),
        (lambda x: x * 1j, "Save the pixels as uint8"),
        (lambda x: np.stack([x] * 3, axis=-1), "x_train.mean(axis=-1)"),
        (lambda x: np.full(x.shape, 3e3), "all its pixels are equal"),
        (lambda x: x > 127, 'Save 255 * x_train.astype("uint8")'),
        (lambda x: as_floats(-0.02, 1.03)(x), "np.clip(x_train, 0, 1)"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*divide:RuntimeWarning")
def test_other_images_get_an_apt_message(tmp_path, change, expected):
    save(tmp_path, images=change)
    assert expected in refusal("custom", tmp_path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda y: y / 10, "is float64 with fractions"),
        (lambda y: y * np.nan, "is float64 with fractions"),
        (lambda y: y > 4, 'Save y_train.astype("uint8")'),
        (lambda y: np.arange(len(y)), "keep ten of the 30 classes"),
    ],
)
def test_other_labels_get_an_apt_message(tmp_path, change, expected):
    save(tmp_path, labels=change)
    assert expected in refusal("custom", tmp_path)


@pytest.mark.parametrize("highest", [0, 1])
def test_black_images_are_refused(tmp_path, highest):
    # As .astype("uint8") leaves images from 0 to 1; and images of zeros and ones.
    save(tmp_path, images=lambda x: (x > 127).astype(np.uint8) * np.uint8(highest))
    message = refusal("custom", tmp_path)
    assert f"x_train has no pixel above {highest}, so its images are black" in message
    assert 'np.round(255 * x_train).astype("uint8")' in message
    assert "zeros and ones, save 255 * x_train" in message


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        (lambda x: x // 16, "the brightest pixel of x_train is 15 of 255"),
        (lambda x: np.where(np.arange(x.size).reshape(x.shape) % 300, 0, 200), "only 0.34% of the"),
    ],
)
def test_nearly_black_images_are_questioned_in_one_line(tmp_path, capsys, change, doubt):
    save(tmp_path, images=lambda x: change(x).astype(np.uint8))
    data.load("custom", tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path / 'custom.npz'}: {doubt}")
    assert "and" in line
    assert "x_test" in line


def test_usual_images_are_not_questioned(tmp_path, capsys, mnist_5k):
    save(tmp_path)
    data.load("custom", tmp_path)
    arrays = {key: getattr(mnist_5k, key) for key in small_arrays()}
    np.savez(tmp_path / "custom.npz", **arrays)
    data.load("custom", tmp_path)
    assert capsys.readouterr().err == ""
