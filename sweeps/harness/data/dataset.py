"""A data set in memory, and the names of all data sets."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np

DATASETS = ("auto", "mnist", "mnist_5k", "fashion_mnist", "custom")
PARABOLA = "parabola"
TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their labels, to train with and to test with.

    The parabola's are points: x (n, 1) and y (n, 1), float32.

    Attributes:
        name: What the data are: mnist, fashion_mnist, mnist_5k, custom or parabola.
        x_train: (n, 28, 28) uint8, pixels 0 to 255.
        y_train: (n,) uint8, classes 0 to 9.
        x_test: (m, 28, 28) uint8.
        y_test: (m,) uint8.
        source: Where they came from, for a person to read.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    source: str

    def __post_init__(self):
        for key in ARRAYS:  # so that the data always match their fingerprint
            getattr(self, key).setflags(write=False)

    @property
    def unit(self) -> str:
        """What one of them is, in the plural."""
        return "points" if self.name == PARABOLA else "images"

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the arrays' shapes and bytes, whatever the name and the source."""
        digest = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()
