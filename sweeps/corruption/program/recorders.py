"""Records a network's accuracy on corrupted images, and examples of these images."""

from __future__ import annotations

import itertools

import numpy as np
import tensorflow as tf

import kerasbn
from sweeps.corruption.program.images import KINDS, STRENGTHS, corrupted
from sweeps.harness.training.recorders.base import Run, Stateless, parts

EVALUATED = 5000  # test images, always the first ones, that accuracies refer to
ALL = 10_000  # largest number of images to recalibrate on
FEWER = (10, 30, 100, 300, 1000, 3000)  # further numbers, at the middle strength only
_MIDDLE = 3
_ORDER = ("none", *KINDS)


class Corruption(Stateless):
    """Accuracy on corrupted test images, before and after recalibration on such images.

    Recalibration uses corrupted test images without their labels, in an order that differs from
    corruption to corruption and is the same for every network. It is followed by an evaluation on
    the first 5,000 test images with the same corruption. Afterwards the network gets its own
    statistics back. A network without batch norm is only evaluated.

    Columns:
        corruption: "noise", "blur", "contrast", "brightness", or "none" for the clean images.
        strength: 1 to 5. 0 for the clean images.
        images: Number of images that the network was recalibrated on. 0 means that it was not.
        accuracy: Share of the evaluated images that are classified correctly.
    """

    columns = ("corruption", "strength", "images", "accuracy")

    def __init__(self, run: Run):
        self._run = run
        norms = [each for each in run.estimator.model.layers if hasattr(each, "moving_mean")]
        self._statistics = [v for norm in norms for v in (norm.moving_mean, norm.moving_variance)]

    def rows(self, step: int) -> list[tuple]:
        """One row per corruption, strength and number of images."""
        images = self._run.test[0]
        rows = self._evaluate(images, "none", 0)
        for kind, strength in itertools.product(KINDS, STRENGTHS):
            rows += self._evaluate(corrupted(images, kind, strength), kind, strength)
        return rows

    def _evaluate(self, images, kind, strength):
        """Rows of one corruption, and the network's own statistics again at the end."""
        rows = [(kind, strength, 0, self._accuracy(images))]
        if not self._statistics:
            return rows
        own = [tf.identity(v) for v in self._statistics]
        order = np.random.default_rng([_ORDER.index(kind), strength]).permutation(len(images))
        for count in _counts(len(images), strength):
            chosen = images[order[:count]]
            size = self._run.trial.batch_size
            kerasbn.recalibrate(self._run.estimator.model, chosen, batch_size=size)
            rows.append((kind, strength, count, self._accuracy(images)))
            for variable, value in zip(self._statistics, own, strict=True):
                variable.assign(value)
        return rows

    def _accuracy(self, images):
        labels = self._run.test[1][:EVALUATED]
        evaluated = parts(images[:EVALUATED], labels)
        right = [self._run.estimator.classify(*part)[0] for part in evaluated]
        return float(np.concatenate(right).mean())


class Examples(Stateless):
    """One test image, clean and with each corruption.

    Columns:
        corruption: Name of the corruption, or "none" for the clean image.
        strength: 1 to 5. 0 for the clean image.
        pixels: The image row by row, with two hexadecimal digits per pixel.
    """

    columns = ("corruption", "strength", "pixels")

    def __init__(self, run: Run):
        image = run.test[0][:1]
        made = [("none", 0, image)]
        made += [(kind, s, corrupted(image, kind, s)) for kind in KINDS for s in STRENGTHS]
        self._rows = [(kind, strength, each.tobytes().hex()) for kind, strength, each in made]

    def rows(self, step: int) -> list[tuple]:
        """One row per corruption and strength."""
        return self._rows


def _counts(available, strength):
    """Numbers of images to recalibrate on: all of them, and fewer at the middle strength."""
    most = min(available, ALL)
    fewer = FEWER if strength == _MIDDLE else ()
    return [*(count for count in fewer if count < most), most]
