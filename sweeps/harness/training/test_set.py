"""Measures accuracy on the test set, or stops early when a target is certainly missed.

Steps to target are exact without classifying the whole test set after every step. An evaluation
ends as soon as more images are wrong than the target allows. The images most likely to be wrong
come first: those whose class recently got the lowest probability, and those of classes that the
network confuses. Two thousand images then settle what would otherwise take ten thousand.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

# Limits on the images of one call: enough to be worth the call, and few enough for their
# activations to stay in the cache.
_FEWEST, _MOST = 250, 2000
_MEMORY = 0.8  # weight of the old value in an image's difficulty
_PRIOR = 3.0  # weight of a class's expected difficulty, as a number of images

# (images, labels) -> whether each is classified correctly, and the probability of its class.
Classify = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class TestSet:
    """The test set, which evaluates the images most likely to be wrong first.

    It remembers which images were hard, from one evaluation to the next and from one run to the
    next. This affects the time of an evaluation, but never its result.

    Args:
        images: All test images.
        labels: Their classes.
    """

    __test__ = False  # pytest would take the class for a test because of its name

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self._images, self._labels = images, labels
        # Running mean, per image, of the probability that the network gave to the wrong classes.
        self._difficulty = np.ones(len(labels))

    def accuracy(self, classify: Classify, at_least: float = 0.0) -> float | None:
        """The share of all images that is classified correctly.

        Args:
            classify: Classifies images with the network.
            at_least: Target accuracy.

        Returns:
            The accuracy. `None` if it is below `at_least`.
        """
        total = len(self._labels)
        allowed = total - required_right(at_least, total)
        wrong = self._count_wrong(classify, allowed)
        return None if wrong > allowed else (total - wrong) / total

    def _count_wrong(self, classify, allowed):
        """Number of wrong images. Counting stops when it exceeds `allowed`."""
        left = np.arange(len(self._labels))
        wrong = 0
        # The sums, by class, of the difficulties found now and of those expected for the same
        # images. A network that mistakes some fives for threes will mistake more of them.
        found = np.full(int(self._labels.max()) + 1, _PRIOR)
        expected = found.copy()
        while len(left) and wrong <= allowed:
            # The smallest number that can exceed `allowed`, within the limits of a useful call.
            size = min(max(allowed + 1 - wrong, _FEWEST), _MOST, len(left))
            hardness = self._difficulty[left] * (found / expected)[self._labels[left]]
            order = np.argpartition(-hardness, size - 1)
            chosen, left = left[order[:size]], left[order[size:]]
            right, probability = classify(self._images[chosen], self._labels[chosen])
            wrong += size - int(right.sum())
            np.add.at(found, self._labels[chosen], 1 - probability)
            np.add.at(expected, self._labels[chosen], self._difficulty[chosen])
            self._difficulty[chosen] *= _MEMORY
            self._difficulty[chosen] += (1 - _MEMORY) * (1 - probability)
        return wrong


def required_right(target: float, total: int) -> int:
    """The least k with k / total >= target in floating point, the arithmetic of accuracies."""
    k = min(math.ceil(target * total), total)
    while k > 0 and (k - 1) / total >= target:
        k -= 1
    while k < total and k / total < target:
        k += 1
    return k
