"""Statistics of all data from those of its batches, as running sums in float64."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from kerasbn.moments import Moments


class PopulationSums:
    """Sums over the batches of one batch norm, in float64, with one value per feature."""

    def __init__(self):
        self.m = self.m_mean = self.m_variance = self.freedom = 0.0

    def add(self, statistics: Moments, shape: tuple[int, ...]) -> bool:
        """Adds the statistics of one call. With ghost batches, they have one more axis in front.

        Returns:
            Whether all statistics are finite.
        """
        mean, variance, m = as_groups(statistics, shape)
        self.m = self.m + m.sum(0)
        self.m_mean = self.m_mean + (m * mean).sum(0)
        self.m_variance = self.m_variance + (m * variance).sum(0)
        self.freedom = self.freedom + np.maximum(m - 1, 0).sum(0)
        return bool(np.isfinite(mean + variance)[m > 0].all())

    @property
    def mean(self) -> np.ndarray:
        """Population mean. Zero for features without values."""
        return self.m_mean / np.maximum(self.m, 1)

    @property
    def variance(self) -> np.ndarray:
        """Population variance, the unbiased estimate. Zero for features without values."""
        return self.m_variance / np.maximum(self.freedom, 1)


class RunningMoments:
    """Count, mean and variance of everything so far, in float64, with one value per feature.

    Unlike `PopulationSums`, the variance includes the differences between the batches' means. Two
    parts with the counts a and b are merged by the formula of Chan, Golub & LeVeque (1983):

        sum of squares = that of a + that of b + (mean of b - mean of a)^2 a b / (a + b)

    No digits cancel, even if the mean is large compared with the standard deviation.
    """

    def __init__(self):
        self.count = self.mean = self.squares = 0.0

    def add(self, mean: np.ndarray, variance: np.ndarray, count: np.ndarray | float) -> None:
        """Adds a part with this mean, (biased) variance and count."""
        total = self.count + count
        share = count / np.maximum(total, 1)
        delta = mean - self.mean
        self.mean = self.mean + delta * share
        self.squares = self.squares + variance * count + np.square(delta) * self.count * share
        self.count = total

    @property
    def variance(self) -> np.ndarray:
        """Biased variance. Zero for features without values."""
        return self.squares / np.maximum(self.count, 1)


def as_groups(statistics: Moments, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Mean, variance and count of one call in float64, as (groups, *shape)."""
    arrays = (np.asarray(each, np.float64) for each in statistics)
    return [each.reshape(-1, *shape) for each in np.broadcast_arrays(*arrays)]


def new_statistics(
    norm: keras.Layer, sums: PopulationSums
) -> list[tuple[keras.Variable, np.ndarray]]:
    """The variables of a batch norm that hold its inference statistics, and their new values.

    Features that are masked in every batch keep their values.

    Raises:
        ValueError: If every batch has a single value of a feature.
    """
    seen = sums.m > 0  # false for features that are masked in every batch
    if np.any(seen & (sums.freedom == 0)):
        raise ValueError(
            f"Expected batches with several values per feature. Received: a single value in every "
            f"batch of batch norm '{norm.name}'. One value has no variance. Use larger batches."
        )
    values = {"moving_mean": sums.mean, "moving_variance": sums.variance}
    if norm.renorm:
        values["moving_stddev"] = np.sqrt(sums.variance + norm.epsilon)
    variables = [(getattr(norm, name), value) for name, value in values.items()]
    return [(v, np.where(seen, value, ops.convert_to_numpy(v))) for v, value in variables]
