"""Steps to the target by the kind of statistics that inference uses."""

from __future__ import annotations


def first_steps(found, trials):
    """The first recorded step at the target, a row a kind of statistics, a column a seed.

    Args:
        found: What the recorder found: `trial_id`, `step`, `statistics`, `accuracy`.
        trials: The trials: `trial_id`, `seed`, `target_accuracy`.
    """
    import numpy as np

    found = found.merge(trials[["trial_id", "seed", "target_accuracy"]], on="trial_id")
    found["reached"] = found.step.where(found.accuracy >= found.target_accuracy, np.inf)
    first = found.groupby(["statistics", "seed"], sort=False).reached.min()
    return first.unstack()
