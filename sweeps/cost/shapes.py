"""The shapes at which a layer is measured, and the random numbers that every contender starts from.

This module does not need TensorFlow, so Keras's other backends can use it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

CHAIN = 8  # layers per call
MOMENTUM, EPSILON = 0.99, 1e-3
# Shapes for which kerasbn's kernels were chosen.
TUNED = (
    *[(500, 500), (500, 100), (500, 25), (256, 28, 28, 6)],
    *[(256, 10, 10, 16), (32, 56, 56, 64), (64, 14, 14, 256)],
)
# Other shapes, which show how well the choice generalizes. Among them are shapes with few and with
# many channels, with odd sizes, and with the batch sizes 1 and 4096.
HELD_OUT = (
    *[(500, 300), (500, 50), (128, 1024), (64, 100, 128), (64, 32, 32, 32)],
    *[(128, 7, 7, 512), (32, 28, 28, 96), (256, 14, 14, 24)],
    *[(800, 1), (200, 3), (4096, 10), (100, 2000), (33, 127), (37, 13, 11, 7), (1, 64, 64, 16)],
)
# Shapes at which known, unknown and changing batch sizes are compared: small and large inputs.
BY_BATCH_SIZE = ((33, 127), (500, 100), (128, 1024), (37, 13, 11, 7), (32, 28, 28, 96))


class Weights(NamedTuple):
    """Weights of one layer, each of shape (features,)."""

    gamma: np.ndarray
    beta: np.ndarray
    moving_mean: np.ndarray
    moving_variance: np.ndarray


def inputs(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A float32 input, whose features differ in mean and spread, and an output gradient."""
    generator = np.random.default_rng(0)
    mean, spread = generator.normal(0, 3, shape[-1]), generator.uniform(0.5, 2, shape[-1])
    x = mean + spread * generator.standard_normal(shape)
    return x.astype("float32"), generator.standard_normal(shape).astype("float32")


def weights(features: int, position: int) -> Weights:
    """Weights of the layer at a position in the chain."""
    generator = np.random.default_rng(position)
    drawn = (
        generator.uniform(0.5, 1.5, features),
        generator.normal(0, 1, features),
        generator.normal(0, 1, features),
        generator.uniform(0.5, 2, features),
    )
    return Weights(*(array.astype("float32") for array in drawn))
