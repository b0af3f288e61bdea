"""Eager training with changing batch sizes: flat memory and no warning, as with Keras's layer."""

import gc
import logging
import os
import sys
import warnings

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow retraces functions for new shapes", allow_module_level=True)

import tensorflow as tf

from kerasbn import BatchNorm

MEBIBYTE = 2**20


def resident_memory():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def train(layer, batch_sizes):
    for n in batch_sizes:
        x = tf.ones((n, 32)) * np.float32(n)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        tape.gradient(y, [x, layer.gamma.value], tf.ones_like(y))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", [BatchNorm, keras.layers.BatchNormalization])
def test_memory_stays_flat(kind, caplog):
    layer = kind()
    layer.build((None, 32))
    growth = []
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        train(layer, range(1000, 1030))  # the largest tensors come first
        for first in (601, 701, 801):
            before = resident_memory()
            train(layer, range(first, first + 100))
            growth.append(resident_memory() - before)
    # Memory kept for each batch size grows in every round, and a fragmented heap in some.
    assert min(growth) < MEBIBYTE, growth
    assert not [r.message for r in caplog.records if r.levelno >= logging.WARNING]
