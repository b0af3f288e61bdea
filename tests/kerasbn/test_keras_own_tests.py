"""Runs Keras's tests of `BatchNormalization`, shipped in the Keras wheel, on `BatchNorm`."""

import numpy as np
import pytest

import kerasbn

keras_tests = pytest.importorskip(
    "keras.src.layers.normalization.batch_normalization_test",
    reason="the installed Keras wheel contains no tests",
)


class TestKerasOwnTests(keras_tests.BatchNormalizationTest):
    @pytest.fixture(autouse=True)
    def batch_norm_in_place_of_keras_layer(self, monkeypatch):
        monkeypatch.setattr(keras_tests.layers, "BatchNormalization", kerasbn.BatchNorm)
        np.random.seed(0)


def test_the_tests_run_are_kerass():
    names = [name for name in dir(TestKerasOwnTests) if name.startswith("test_")]
    assert len(names) >= 20
