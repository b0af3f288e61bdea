"""Times of contenders that take turns, so that what slows the machine slows all of them alike.

Only ratios mean anything on a machine that is shared: compare what was taken in one run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np


def in_turn(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = 3,
    calls_a_sample: int = 1,
) -> dict[str, np.ndarray]:
    """Calls each once a round, every round beginning with another one.

    Args:
        calls: What to time, by name; each returns when its work is done.
        rounds: Samples of each.
        warm_up: Calls of each beforehand, which are not timed.
        calls_a_sample: How often a sample calls it, where one call is too short for the clock.

    Returns:
        Seconds a call, (rounds,) for each name.
    """
    for call in calls.values():
        for _ in range(warm_up):
            call()
    names = list(calls)
    seconds = {name: np.empty(rounds) for name in names}
    for n in range(rounds):
        first = n % len(names)
        for name in names[first:] + names[:first]:
            call = calls[name]
            start = time.perf_counter()
            for _ in range(calls_a_sample):
                call()
            seconds[name][n] = (time.perf_counter() - start) / calls_a_sample
    return seconds


def ratio(seconds: np.ndarray, other: np.ndarray) -> float:
    """The median over rounds of one's time divided by the other's in the same round."""
    return float(np.median(seconds / other))
