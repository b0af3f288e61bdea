"""A data set in memory, and the names of all data sets."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

DATASETS = ("auto", "mnist", "mnist_5k", "fashion_mnist", "custom")
PARABOLA = "parabola"
TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# Number of training examples, by the name of the data set. Custom data have any number.
_TRAIN_SIZES = {"mnist": 60_000, "fashion_mnist": 60_000, "mnist_5k": 4_000, PARABOLA: 1_800}


class DataSize(NamedTuple):
    """A data set's name and size. A study's grid of trials depends on nothing else of the data.

    Attributes:
        name: Name of the data set.
        train_size: Number of training examples.
    """

    name: str
    train_size: int

    @classmethod
    def of(cls, name: str) -> DataSize | None:
        """The size of a data set by its name. `None` for custom data."""
        return cls(name, _TRAIN_SIZES[name]) if name in _TRAIN_SIZES else None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their labels, for training and for testing.

    The parabola has points instead of images: x and y are float32 of shape (n, 1).

    Attributes:
        name: Name of the data set: mnist, fashion_mnist, mnist_5k, custom or parabola.
        x_train: Training images, uint8 of shape (n, 28, 28) with pixels from 0 to 255.
        y_train: Training labels, uint8 of shape (n,) with classes from 0 to 9.
        x_test: Test images, uint8 of shape (m, 28, 28).
        y_test: Test labels, uint8 of shape (m,).
        source: Origin of the data, in words for the user.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    source: str

    def __post_init__(self):
        for key in ARRAYS:  # read-only data always match their fingerprint
            getattr(self, key).setflags(write=False)

    @property
    def size(self) -> DataSize:
        """The data set's name and number of training examples."""
        return DataSize(self.name, len(self.y_train))

    @property
    def unit(self) -> str:
        """The word for an example: "image" or "point"."""
        return "point" if self.name == PARABOLA else "image"

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the arrays' shapes and bytes, in hexadecimal. Name and source do not count."""
        digest = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()
