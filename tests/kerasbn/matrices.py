"""Grids of cases, of which half run by default and all with --full."""

import itertools

import pytest


def half_by_default(*values):
    """Every combination of the values, as `pytest.param`s; every other one is marked `full`.

    The default half still has every combination of all parameters but one, whichever one that is:
    of three parameters, any two values of different parameters meet.
    """
    return [
        pytest.param(
            *(value for _, value in combination),
            marks=[pytest.mark.full] if sum(index for index, _ in combination) % 2 else [],
        )
        for combination in itertools.product(*map(enumerate, values))
    ]
