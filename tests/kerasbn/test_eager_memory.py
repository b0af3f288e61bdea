"""Eager training with changing batch sizes: flat memory and no warning, as with Keras's layer."""

import ctypes
import gc
import logging
import sys
import warnings

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow retraces functions for new shapes", allow_module_level=True)

import tensorflow as tf

from kerasbn import BatchNorm

SIZES_PER_ROUND = 100
MOST_BYTES_PER_SIZE = 1000
MOST_OBJECTS_PER_SIZE = 10


class Mallinfo2(ctypes.Structure):
    """What glibc knows of its heap (`man mallinfo2`), in bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def bytes_in_use():
    """The allocated memory.

    The resident memory would be no measure, because free gaps in the heap belong to it.
    """
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):  # TypeError on Windows
        pytest.skip("the C library has no `mallinfo2` (glibc 2.33 and later have it)")
    mallinfo2.restype = Mallinfo2
    heap = mallinfo2()
    return heap.uordblks + heap.hblkhd


def train(layer, batch_sizes):
    for n in batch_sizes:
        x = tf.ones((n, 32)) * np.float32(n)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        tape.gradient(y, [x, layer.gamma.value], tf.ones_like(y))


@pytest.mark.parametrize("kind", [BatchNorm, keras.layers.BatchNormalization])
def test_memory_stays_flat(kind, caplog):
    layer = kind()
    layer.build((None, 32))
    more_bytes = []
    more_objects = []
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        train(layer, range(1000, 1030))
        for first in (601, 701, 801):
            gc.collect()
            before = bytes_in_use(), sys.getallocatedblocks()
            train(layer, range(first, first + SIZES_PER_ROUND))
            gc.collect()
            more_bytes.append(bytes_in_use() - before[0])
            more_objects.append(sys.getallocatedblocks() - before[1])
    # Memory kept for each batch size grows in every round. Caches that fill once do not.
    assert min(more_bytes) < MOST_BYTES_PER_SIZE * SIZES_PER_ROUND, more_bytes
    assert min(more_objects) < MOST_OBJECTS_PER_SIZE * SIZES_PER_ROUND, more_objects
    assert not [r.message for r in caplog.records if r.levelno >= logging.WARNING]
