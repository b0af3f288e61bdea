"""Timing of contenders in turn."""

import time

import numpy as np
import pytest

from sweeps.harness.timing import in_turn, ratio


def test_every_round_begins_with_another():
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    seconds = in_turn(calls, rounds=3, warm_up=1)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert {name: s.shape for name, s in seconds.items()} == {"a": (3,), "b": (3,), "c": (3,)}


def test_seconds_are_those_of_one_call():
    seconds = in_turn({"sleep": lambda: time.sleep(0.01)}, rounds=5, warm_up=0, calls_a_sample=3)
    assert (seconds["sleep"] >= 0.01).all()
    assert np.median(seconds["sleep"]) < 0.03


def test_ratio_is_taken_within_rounds():
    # Twice the other's time in every round, while the machine slows down threefold.
    assert ratio(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)
