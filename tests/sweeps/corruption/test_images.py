"""The corruptions against arrays worked out by hand and by NumPy."""

import numpy as np
import pytest

from sweeps.corruption import measures
from sweeps.corruption.program import images, recorders

PIXELS = np.array([[[0, 100], [200, 20]]], np.uint8)  # mean 80
DIGITS = np.random.default_rng(1).integers(0, 256, (3, 28, 28), np.uint8)


def test_contrast_shrinks_the_distance_from_the_mean_of_each_image():
    # Strength 1 has the factor 0.4: 80 + 0.4 (x - 80).
    two = np.concatenate([PIXELS, 2 * (PIXELS // 4)])
    expected = [[[48, 88], [128, 56]], [[24, 44], [64, 28]]]
    assert images.corrupted(two, "contrast", 1).tolist() == expected


def test_brightness_adds_a_share_of_255_and_clips():
    # Strength 4 adds 0.4, or 102 of 255.
    assert images.corrupted(PIXELS, "brightness", 4).tolist() == [[[102, 202], [255, 122]]]


def test_noise_is_that_of_numpys_generator_and_clips():
    draws = np.random.default_rng(2).normal(0, 0.3, DIGITS.shape)
    expected = np.rint(np.clip(DIGITS / 255 + draws, 0, 1) * 255)
    found = images.corrupted(DIGITS, "noise", 2)
    np.testing.assert_array_equal(found, expected)
    assert {0, 255} <= set(found.ravel())


def test_blur_is_a_convolution_with_a_gaussian_on_black_ground():
    offsets = np.arange(-4, 5)
    kernel = np.exp(-(offsets**2) / 2.0)  # strength 1: one pixel
    kernel /= kernel.sum()
    rows = np.stack([np.convolve(row, kernel, "same") for row in DIGITS[0] / 255.0])
    both = np.stack([np.convolve(column, kernel, "same") for column in rows.T]).T
    found = images.corrupted(DIGITS, "blur", 1)[0].astype(float)
    np.testing.assert_allclose(found, 255 * both, atol=0.51)


@pytest.mark.parametrize("kind", images.KINDS)
def test_a_corruption_is_the_same_every_time_and_for_a_part_of_the_images(kind):
    before = DIGITS.copy()
    for strength in images.STRENGTHS:
        found = images.corrupted(DIGITS, kind, strength)
        assert (found.shape, found.dtype) == (DIGITS.shape, np.uint8)
        np.testing.assert_array_equal(images.corrupted(DIGITS, kind, strength), found)
        np.testing.assert_array_equal(images.corrupted(DIGITS[:1], kind, strength), found[:1])
    np.testing.assert_array_equal(DIGITS, before)


@pytest.mark.parametrize("kind", images.KINDS)
def test_images_differ_more_from_the_clean_ones_at_each_strength(kind):
    clean = DIGITS.astype(float)
    distances = [
        np.abs(images.corrupted(DIGITS, kind, strength) - clean).mean()
        for strength in images.STRENGTHS
    ]
    assert distances == sorted(distances)
    assert len(set(distances)) == 5


def test_claims_and_charts_read_the_corruptions_that_are_recorded():
    assert measures.KINDS == images.KINDS
    assert measures.MIDDLE == recorders._MIDDLE
