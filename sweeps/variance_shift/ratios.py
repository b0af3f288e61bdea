"""The variance shift that dropout causes: predicted and measured."""

from __future__ import annotations


def predicted(mean, variance, keep_rate: float):
    """Variance in inference over variance in training, from Li et al. 2019.

    In training, dropout keeps a feature with probability p and then divides it by p. So the second
    moment of what batch norm sees is E[x^2] / p = (c^2 + v) / p, and its mean stays c. In
    inference, the variance is v.

    Args:
        mean: Mean c of the feature before dropout.
        variance: Variance v of the feature before dropout.
        keep_rate: Probability p.
    """
    return variance / ((mean**2 + variance) / keep_rate - mean**2)


def of_units(found, trials):
    """Predicted and measured ratios of each unit.

    A unit whose variance is 0, in training or in inference, has no ratio and is left out.

    Args:
        found: Recorded variances; see `sweeps.variance_shift.program.Variances`.
        trials: Trials, with the columns `trial_id`, `seed` and `keep_rate`.

    Returns:
        The rows of `found` with the columns `seed`, `keep_rate`, `predicted` and `measured`.
    """
    frame = found.merge(trials[["trial_id", "seed", "keep_rate"]], on="trial_id")
    alive = (frame.variance > 0) & (frame.moving_variance > 0) & (frame.test_variance > 0)
    frame = frame[alive]
    return frame.assign(
        predicted=predicted(frame["mean"], frame.variance, frame.keep_rate),
        measured=frame.test_variance / frame.moving_variance,
    )
