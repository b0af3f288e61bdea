"""Timing of contenders in turn."""

import time

import numpy as np
import pytest

from sweeps.harness.timing import in_turn, in_turn_within, ratio


def test_every_round_begins_with_another():
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    seconds = in_turn(calls, rounds=3, warm_up=1)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert {name: s.shape for name, s in seconds.items()} == {"a": (3,), "b": (3,), "c": (3,)}


def test_seconds_are_those_of_one_call():
    seconds = in_turn({"sleep": lambda: time.sleep(0.01)}, rounds=5, warm_up=0, calls_per_sample=3)
    assert (seconds["sleep"] >= 0.01).all()
    assert np.median(seconds["sleep"]) < 0.03


def test_ratio_is_taken_within_rounds():
    # Twice the other's time in every round, while the machine slows down threefold.
    assert ratio(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)


def test_rounds_fill_the_time_and_short_calls_are_timed_several_at_once():
    counts = {"short": 0, "long": 0}

    def call(name, seconds):
        counts[name] += 1
        time.sleep(seconds)

    calls = {"short": lambda: call("short", 0.0005), "long": lambda: call("long", 0.006)}
    seconds = in_turn_within(calls, 0.3, most=50, warm_up=2)
    rounds = len(seconds["long"])
    assert 8 <= rounds < 50  # the time ends them, at some 12 ms a round, and not their number
    assert counts["long"] == 2 + rounds
    a_sample = (counts["short"] - 2) / rounds
    assert a_sample == int(a_sample)
    assert 3 <= a_sample <= 11
    assert 0.0005 <= np.median(seconds["short"]) < 0.003


@pytest.mark.parametrize(("seconds", "most", "rounds"), [(0.0, 50, 5), (0.0, 2, 2), (9.0, 7, 7)])
def test_rounds_have_bounds(seconds, most, rounds):
    taken = in_turn_within({"a": lambda: time.sleep(0.005)}, seconds, most=most)
    assert taken["a"].shape == (rounds,)
