"""The shapes at which a layer is measured, and the random numbers that every contender starts from.

Nothing here needs TensorFlow: the layer is measured on Keras's other backends, too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

CHAIN = 8  # layers a call
MOMENTUM, EPSILON = 0.99, 1e-3
TUNED = (
    *[(500, 500), (500, 100), (500, 25), (256, 28, 28, 6)],
    *[(256, 10, 10, 16), (32, 56, 56, 64), (64, 14, 14, 256)],
)  # for which kerasbn's kernels were chosen
HELD_OUT = (
    *[(500, 300), (500, 50), (128, 1024), (64, 100, 128), (64, 32, 32, 32)],
    *[(128, 7, 7, 512), (32, 28, 28, 96), (256, 14, 14, 24)],
)  # and for which not


class Weights(NamedTuple):
    """Of one layer, (features,) each."""

    gamma: np.ndarray
    beta: np.ndarray
    moving_mean: np.ndarray
    moving_variance: np.ndarray


def inputs(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """x and the gradient of its output: float32, features with means and spreads of their own."""
    generator = np.random.default_rng(0)
    mean, spread = generator.normal(0, 3, shape[-1]), generator.uniform(0.5, 2, shape[-1])
    x = mean + spread * generator.standard_normal(shape)
    return x.astype("float32"), generator.standard_normal(shape).astype("float32")


def weights(features: int, position: int) -> Weights:
    """Of the layer at a position of the chain."""
    generator = np.random.default_rng(position)
    drawn = (
        generator.uniform(0.5, 1.5, features),
        generator.normal(0, 1, features),
        generator.normal(0, 1, features),
        generator.uniform(0.5, 2, features),
    )
    return Weights(*(array.astype("float32") for array in drawn))
