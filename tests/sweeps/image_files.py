"""Small image files for tests of data sets, and how the tests look at what was loaded."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from sweeps.harness import data
from sweeps.harness.errors import UserError

WHOLE_MNIST = os.environ.get("KERASBN_DATA_DIR")
needs_whole_mnist = pytest.mark.skipif(not WHOLE_MNIST, reason="KERASBN_DATA_DIR is not set")

KEYS = ("x_train", "y_train", "x_test", "y_test")
IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
IMAGES_FILE, LABELS_FILE = IDX["x_train"], IDX["y_train"]
TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}


def small_arrays() -> dict[str, np.ndarray]:
    random = np.random.RandomState(7)
    arrays = {}
    for part, count in (("train", 30), ("test", 20)):
        arrays[f"x_{part}"] = random.randint(0, 256, (count, 28, 28)).astype(np.uint8)
        arrays[f"y_{part}"] = (np.arange(count) % 10).astype(np.uint8)
    return arrays


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX file of a uint8 array, by the format's definition."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def write_idx(folder: Path, arrays=None, ending="", dotted=False) -> Path:
    for key, array in (arrays or small_arrays()).items():
        name = (IDX[key].replace("-idx", ".idx") if dotted else IDX[key]) + ending
        contents = idx_bytes(array)
        (folder / name).write_bytes(gzip.compress(contents) if ending else contents)
    return folder


def refusal(name: str, place) -> str:
    """The message with which the data are refused: always one line."""
    with pytest.raises(UserError) as caught:
        data.load(name, place)
    message = str(caught.value)
    assert "\n" not in message
    return message


def assert_equal_arrays(dataset, arrays):
    for key in KEYS:
        array = getattr(dataset, key)
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(array, arrays[key])
