"""Findings and verdicts: the results of a claim's rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

REPRODUCED, NOT_REPRODUCED, NOT_RUN = "reproduced", "not reproduced", "not run"


class Finding(NamedTuple):
    """A study's answer to a claim.

    Attributes:
        measured: The measured numbers, in words.
        verdict: "reproduced", "not reproduced", or "depends on ..." with the condition.
    """

    measured: str
    verdict: str


class NotRunError(Exception):
    """The tables lack the trials that a claim needs. The message names them."""


def all_or_some(holds: Mapping[str, bool], condition: str) -> str:
    """The verdict on a claim that was checked for several cases.

    Args:
        holds: Whether the claim holds, by the name of the case.
        condition: The quantity that differs between the cases, such as "the depth".

    Returns:
        "reproduced" if the claim holds in all cases, "not reproduced" if it holds in none.
        Otherwise "depends on ..." with the names of the cases.

    Raises:
        NotRunError: If there are no cases.
    """
    if not holds:
        raise NotRunError("runs to compare")
    if all(holds.values()):
        return REPRODUCED
    if not any(holds.values()):
        return NOT_REPRODUCED
    yes = ", ".join(name for name, value in holds.items() if value)
    no = ", ".join(name for name, value in holds.items() if not value)
    return f"depends on {condition}: yes: {yes}; no: {no}"


def some_of(count: int, total: int, condition: str) -> str:
    """The verdict on a claim that holds in `count` of `total` cases."""
    if count in (0, total):
        return REPRODUCED if count else NOT_REPRODUCED
    return f"depends on {condition}: {count} of {total}"
