"""Fixtures for tests of data sets: no network, no cache, and small files that pass for large."""

import hashlib
import os
from pathlib import Path

import pytest
from image_files import KEYS, WHOLE_MNIST, idx_bytes, small_arrays, write_idx

from sweeps.harness import data
from sweeps.harness.data import files


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path_factory):
    """No data folder by environment, no system package, an empty Keras cache, and a proxy that
    refuses at once.
    """
    monkeypatch.setattr(files, "_SYSTEM_FOLDERS", {})
    monkeypatch.delenv("KERASBN_DATA_DIR", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def mnist_5k():
    return data.load("mnist_5k")


@pytest.fixture(scope="session")
def whole_mnist():
    return data.load("mnist", WHOLE_MNIST)


@pytest.fixture(scope="session")
def whole_idx(whole_mnist, tmp_path_factory):
    """A folder with whole MNIST in IDX files, not gzipped."""
    arrays = {key: getattr(whole_mnist, key) for key in KEYS}
    return write_idx(tmp_path_factory.mktemp("whole"), arrays)


@pytest.fixture
def cache():
    return Path(os.environ["KERAS_HOME"], "datasets")


@pytest.fixture
def published(monkeypatch):
    """Makes the small arrays pass for a data set: their checksums replace the published ones."""

    def stand_in(name):
        sums = {key: hashlib.md5(idx_bytes(a)).hexdigest() for key, a in small_arrays().items()}
        monkeypatch.setitem(files._MD5, name, sums)

    return stand_in
