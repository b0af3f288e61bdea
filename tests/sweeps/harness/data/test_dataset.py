"""The data set in memory: its fingerprint and its names."""

import hashlib

import numpy as np
import pytest
from image_files import KEYS, small_arrays

from sweeps.harness import data


class TestFingerprint:
    def dataset(self, name="custom", source="here", **changed):
        return data.Dataset(name=name, source=source, **(small_arrays() | changed))

    def test_is_the_documented_hash(self):
        digest = hashlib.sha256()
        for key in KEYS:
            array = small_arrays()[key]
            digest.update(str(tuple(array.shape)).encode() + array.tobytes())
        assert self.dataset().fingerprint == digest.hexdigest()

    def test_depends_on_neither_name_nor_source(self):
        assert self.dataset().fingerprint == self.dataset(name="x", source="y").fingerprint

    @pytest.mark.parametrize("key", KEYS)
    def test_changes_with_one_entry(self, key):
        array = small_arrays()[key]
        array.flat[-1] ^= 1
        assert self.dataset(**{key: array}).fingerprint != self.dataset().fingerprint

    def test_changes_with_the_split(self):
        def zeros(train, test):
            return {
                "x_train": np.zeros((train, 28, 28), np.uint8),
                "y_train": np.zeros(train, np.uint8),
                "x_test": np.zeros((test, 28, 28), np.uint8),
                "y_test": np.zeros(test, np.uint8),
            }

        # The same bytes in all, cut elsewhere.
        assert self.dataset(**zeros(3, 2)).fingerprint != self.dataset(**zeros(2, 3)).fingerprint


def test_names():
    assert data.DATASETS == ("auto", "mnist", "mnist_5k", "fashion_mnist", "custom")
