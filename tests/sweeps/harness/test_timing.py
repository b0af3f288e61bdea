"""Timing of contenders in turn."""

import time
import types

import numpy as np
import pytest

from sweeps.harness import timing
from sweeps.harness.timing import in_turn, in_turn_within, ratio


def test_every_round_begins_with_another():
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    seconds = in_turn(calls, rounds=3, warm_up=1)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert {name: s.shape for name, s in seconds.items()} == {"a": (3,), "b": (3,), "c": (3,)}


@pytest.fixture
def sleep(monkeypatch):
    """Passes time on a clock that the timing reads, however busy the machine is."""
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    clock = types.SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(timing, "time", clock)
    return sleep


def test_seconds_are_those_of_one_call(sleep):
    seconds = in_turn({"a": lambda: sleep(0.25)}, rounds=5, warm_up=0, calls_per_sample=3)
    assert seconds["a"].tolist() == [0.25] * 5


def test_the_clock_is_the_real_one():
    assert timing.time.perf_counter is time.perf_counter
    taken = in_turn({"a": lambda: time.sleep(0.01)}, rounds=2, warm_up=0)
    assert (taken["a"] >= 0.01).all()


def test_ratio_is_taken_within_rounds():
    # Twice the other's time in every round, while the machine slows down threefold.
    assert ratio(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)


def test_rounds_fill_the_time_and_short_calls_are_timed_several_at_once(sleep):
    counts = {"short": 0, "long": 0}

    def call(name, seconds):
        counts[name] += 1
        sleep(seconds)

    # Powers of two, of which a sum is exact.
    calls = {"short": lambda: call("short", 2.0**-11), "long": lambda: call("long", 2.0**-7)}
    seconds = in_turn_within(calls, 0.3, most=50, warm_up=2)
    # A sample of at least 5 ms is 11 short calls, after an untimed one. So a round takes 13.7 ms,
    # and the 22nd is the last that begins within 0.3 s.
    assert counts == {"short": 2 + 22 * 12, "long": 2 + 22}
    assert seconds["short"].tolist() == [2.0**-11] * 22
    assert seconds["long"].tolist() == [2.0**-7] * 22


@pytest.mark.parametrize(("seconds", "most", "rounds"), [(0.0, 50, 5), (0.0, 2, 2), (9.0, 7, 7)])
def test_rounds_have_bounds(sleep, seconds, most, rounds):
    taken = in_turn_within({"a": lambda: sleep(0.005)}, seconds, most=most)
    assert taken["a"].shape == (rounds,)
