"""What tests of training have in common: images that are quickly learned, and a small trial."""

from __future__ import annotations

from typing import Any

import numpy as np

from sweeps.harness.trial import Trial


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of ten classes, each with a bright bar at another place, and their labels.

    They are quickly learned, but not in one step.
    """
    labels = np.arange(count, dtype=np.uint8) % 10
    made = np.random.default_rng(0).integers(0, 120, (count, 28, 28), dtype=np.uint8)
    made[np.arange(count), 2 * labels + 3] += 100
    return made, labels


def trial(**changes: Any) -> Trial:
    """A trial of two narrow layers with batch norm."""
    fields = {
        "dataset": "custom",
        "seed": 3,
        "hidden_units": (20, 10),
        "batch_norm": True,
        "learning_rate": 0.01,
        "batch_size": 50,
        "max_steps": 40,
        "target_accuracy": 0.9,
    }
    return Trial(**fields | changes)
