"""Times functions that take turns, so that a slow moment of the machine affects all of them.

On a shared machine only ratios mean something. Compare times from the same run.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np

Name = TypeVar("Name", bound=Hashable)

_SAMPLE_SECONDS = 0.005  # much longer than the clock and the waking of threads take


def in_turn(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = 3,
    calls_per_sample: int = 1,
) -> dict[str, np.ndarray]:
    """Times each function once per round. Every round starts with a different one.

    Args:
        calls: Functions to time, by name. Each returns when its work is done.
        rounds: Number of samples per function.
        warm_up: Number of untimed calls of each function before the first round.
        calls_per_sample: Number of calls that share one sample. Increase it if one call is too
            short for the clock.

    Returns:
        Seconds per call, an array of shape (rounds,) for each name.
    """
    for call in calls.values():
        for _ in range(warm_up):
            call()
    more = range(rounds).__contains__
    return _rounds(calls, more, dict.fromkeys(calls, calls_per_sample), dict.fromkeys(calls, 0))


def in_turn_within(
    calls: Mapping[Name, Callable[[], object]],
    seconds: float,
    *,
    most: int,
    fewest: int = 5,
    warm_up: int = 2,
) -> dict[Name, np.ndarray]:
    """Like `in_turn`, with as many rounds as fit into a time limit.

    A sample of a short call consists of several calls. An untimed call precedes it, so that the
    function's own data are back in the caches and the previous function's threads are asleep.

    Args:
        calls: Functions to time, by name. Each returns when its work is done.
        seconds: Time limit for the rounds. The warm-up, which compiles, is not included.
        most: Largest number of rounds.
        fewest: Smallest number of rounds. It takes precedence over the time limit.
        warm_up: Number of untimed calls of each function before the first round, at least 2. The
            last of them shows how long a call takes.

    Returns:
        Seconds per call, an array of shape (rounds,) for each name.
    """
    expected = {name: _warm(call, warm_up) for name, call in calls.items()}
    calls_per_sample = {name: math.ceil(_SAMPLE_SECONDS / t) for name, t in expected.items()}
    untimed = {name: int(count > 1) for name, count in calls_per_sample.items()}
    end = time.perf_counter() + seconds

    def more(n):
        return n < most and (n < fewest or time.perf_counter() < end)

    return _rounds(calls, more, calls_per_sample, untimed)


def ratio(seconds: np.ndarray, other: np.ndarray) -> float:
    """The median, over rounds, of `seconds` divided by `other` in the same round."""
    return float(np.median(seconds / other))


def _warm(call, times):
    """Calls a function several times; returns the seconds of the last call."""
    for _ in range(times):
        start = time.perf_counter()
        call()
        elapsed = time.perf_counter() - start
    return elapsed


def _rounds(calls, more, calls_per_sample, untimed):
    """Runs rounds as long as more(number of rounds done) is true."""
    names = list(calls)
    seconds = {name: [] for name in names}
    for n in itertools.takewhile(more, itertools.count()):
        first = n % len(names)
        for name in names[first:] + names[:first]:
            call = calls[name]
            for _ in range(untimed[name]):
                call()
            start = time.perf_counter()
            for _ in range(calls_per_sample[name]):
                call()
            seconds[name].append((time.perf_counter() - start) / calls_per_sample[name])
    return {name: np.array(samples) for name, samples in seconds.items()}
