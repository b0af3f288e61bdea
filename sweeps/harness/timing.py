"""Times of contenders that take turns, so that what slows the machine slows all of them alike.

Only ratios mean anything on a machine that is shared: compare what was taken in one run.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np

Name = TypeVar("Name", bound=Hashable)

_SAMPLE_SECONDS = 0.005  # many times what the clock and the waking of threads take


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
    more = range(rounds).__contains__
    return _rounds(calls, more, dict.fromkeys(calls, calls_a_sample), dict.fromkeys(calls, 0))


def in_turn_within(
    calls: Mapping[Name, Callable[[], object]],
    seconds: float,
    *,
    most: int,
    fewest: int = 5,
    warm_up: int = 2,
) -> dict[Name, np.ndarray]:
    """As `in_turn`, with as many rounds as a time allows.

    A sample of a short call is several of them, after one that is not timed: by then the caches
    hold its own data again, and threads of the contender before it have gone to sleep.

    Args:
        calls: What to time, by name; each returns when its work is done.
        seconds: For the rounds; the first calls, which compile, come on top.
        most: Rounds at most.
        fewest: Rounds at least, whatever they take.
        warm_up: Calls of each beforehand, 2 or more; the last says how long it takes.

    Returns:
        Seconds a call, (rounds,) for each name.
    """
    expected = {name: _warm(call, warm_up) for name, call in calls.items()}
    calls_a_sample = {name: math.ceil(_SAMPLE_SECONDS / t) for name, t in expected.items()}
    untimed = {name: int(count > 1) for name, count in calls_a_sample.items()}
    end = time.perf_counter() + seconds

    def more(n):
        return n < most and (n < fewest or time.perf_counter() < end)

    return _rounds(calls, more, calls_a_sample, untimed)


def ratio(seconds: np.ndarray, other: np.ndarray) -> float:
    """The median over rounds of one's time divided by the other's in the same round."""
    return float(np.median(seconds / other))


def _warm(call, times):
    for _ in range(times):
        start = time.perf_counter()
        call()
        elapsed = time.perf_counter() - start
    return elapsed


def _rounds(calls, more, calls_a_sample, untimed):
    """Rounds, as long as `more` says so of the number of those done."""
    names = list(calls)
    seconds = {name: [] for name in names}
    for n in itertools.takewhile(more, itertools.count()):
        first = n % len(names)
        for name in names[first:] + names[:first]:
            call = calls[name]
            for _ in range(untimed[name]):
                call()
            start = time.perf_counter()
            for _ in range(calls_a_sample[name]):
                call()
            seconds[name].append((time.perf_counter() - start) / calls_a_sample[name])
    return {name: np.array(taken) for name, taken in seconds.items()}
