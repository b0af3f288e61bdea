"""Accuracy on the test set, or an early answer that a target is certainly missed.

Steps to target are exact without classifying the whole test set after every step. An evaluation
ends as soon as more images are wrong than the target allows. The images most likely to be wrong
come first: those whose class recently got the lowest probability, and those of classes that the
network confuses. Two thousand images then settle what would otherwise take ten thousand.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_FEWEST, _MOST = 250, 2000  # images to classify in one call
_MEMORY = 0.8  # weight of the old value in an image's difficulty
_PRIOR = 3.0  # images of each class assumed to be as hard as expected

# (images, labels) -> whether each is classified correctly, and the probability of its class.
Classify = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class TestSet:
    """The test set, in the order that soonest settles whether a target is reached.

    It remembers which images were hard, from one evaluation and one run to the next. The answers do
    not depend on that, only the time that they take.

    Args:
        images: All test images.
        labels: Their classes.
    """

    __test__ = False  # no test case, whatever pytest thinks of its name

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self._images, self._labels = images, labels
        # Running mean of 1 - the probability of its class that each image was given.
        self._difficulty = np.ones(len(labels))

    def accuracy(self, classify: Classify, at_least: float = 0.0) -> float | None:
        """The share of all images that is right; `None` once it is certain to miss `at_least`."""
        allowed = len(self._labels) - required_right(at_least, len(self._labels))
        left = np.arange(len(self._labels))
        wrong = 0
        # By class, what this net finds hard, and what was expected of the same images: a net that
        # takes fives for threes will do so with more of them.
        found = np.full(int(self._labels.max()) + 1, _PRIOR)
        expected = found.copy()
        while len(left):
            # As many as could settle it at the soonest, but enough to be worth a call, and not more
            # than keep their activations in the cache.
            size = min(max(allowed + 1 - wrong, _FEWEST), _MOST, len(left))
            hardness = self._difficulty[left] * (found / expected)[self._labels[left]]
            order = np.argpartition(-hardness, size - 1)
            chosen, left = left[order[:size]], left[order[size:]]
            right, probability = classify(self._images[chosen], self._labels[chosen])
            wrong += size - int(right.sum())
            if wrong > allowed:
                left = left[:0]
            np.add.at(found, self._labels[chosen], 1 - probability)
            np.add.at(expected, self._labels[chosen], self._difficulty[chosen])
            self._difficulty[chosen] *= _MEMORY
            self._difficulty[chosen] += (1 - _MEMORY) * (1 - probability)
        return None if wrong > allowed else (len(self._labels) - wrong) / len(self._labels)


def required_right(target: float, total: int) -> int:
    """The least k with k / total >= target, in the floating point that accuracies have."""
    k = min(math.ceil(target * total), total)
    while k > 0 and (k - 1) / total >= target:
        k -= 1
    while k < total and k / total < target:
        k += 1
    return k
