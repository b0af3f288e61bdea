"""Steps to the target with each kind of inference statistics."""

from __future__ import annotations


def first_steps(found, trials):
    """The first recorded step at which the target is reached, or infinity.

    Args:
        found: Recorded accuracies, with the columns `trial_id`, `step`, `statistics`, `accuracy`.
        trials: Trials, with the columns `trial_id`, `seed`, `target_accuracy`.

    Returns:
        A table with one row per kind of statistics and one column per seed.
    """
    import numpy as np

    found = found.merge(trials[["trial_id", "seed", "target_accuracy"]], on="trial_id")
    found["reached"] = found.step.where(found.accuracy >= found.target_accuracy, np.inf)
    first = found.groupby(["statistics", "seed"], sort=False).reached.min()
    return first.unstack()
