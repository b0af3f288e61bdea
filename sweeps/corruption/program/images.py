"""Corrupts images: noise, blur, contrast and brightness, each in five strengths.

Every function takes and returns images with values from 0 to 1. Brightness and contrast have the
strengths of ImageNet-C (Hendrycks & Dietterich 2019). Digits on a black ground survive its noise
and its blur, so these two are stronger here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy import ndimage

STRENGTHS = (1, 2, 3, 4, 5)
# The parameter of each corruption, by strength.
_PARAMETERS = {
    "noise": (0.2, 0.3, 0.4, 0.5, 0.6),
    "blur": (1.0, 1.5, 2.0, 2.5, 3.0),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
}


def noise(images: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    """Adds Gaussian noise of this standard deviation to every pixel."""
    generator = np.random.default_rng(seed)
    return images + generator.normal(0.0, deviation, images.shape)


def blur(images: np.ndarray, width: float) -> np.ndarray:
    """Blurs with a Gaussian of this standard deviation in pixels. It is black around the image."""
    return ndimage.gaussian_filter(images, (0, width, width), mode="constant")


def contrast(images: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies the difference between each pixel and the mean of its image by this factor."""
    means = images.mean((1, 2), keepdims=True)
    return means + factor * (images - means)


def brightness(images: np.ndarray, shift: float) -> np.ndarray:
    """Adds this number to every pixel."""
    return images + shift


_FUNCTIONS: Mapping[str, Callable[..., np.ndarray]] = {
    "noise": noise,
    "blur": blur,
    "contrast": contrast,
    "brightness": brightness,
}
KINDS = tuple(_FUNCTIONS)


def corrupted(images: np.ndarray, kind: str, strength: int) -> np.ndarray:
    """Corrupts images. The result is always the same for the same arguments.

    Args:
        images: Images of shape (count, height, width), uint8.
        kind: "noise", "blur", "contrast" or "brightness".
        strength: 1 to 5.

    Returns:
        The corrupted images. Values outside 0 to 255 become 0 or 255. Shape and dtype are those of
        `images`.
    """
    own = {"seed": strength} if kind == "noise" else {}
    parameter = _PARAMETERS[kind][STRENGTHS.index(strength)]
    made = _FUNCTIONS[kind](images / 255.0, parameter, **own)
    return np.round(255.0 * np.clip(made, 0.0, 1.0)).astype(np.uint8)
