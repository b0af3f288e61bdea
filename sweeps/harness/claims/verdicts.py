"""Findings and verdicts: the results of a claim's rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
DEPENDS, UNDECIDED = "depends on", "undecided"  # a condition or a reason follows


class Finding(NamedTuple):
    """A study's answer to a claim.

    Attributes:
        measured: The measured numbers, in words.
        verdict: "reproduced", "not reproduced", "depends on ..." with the condition, or
            "undecided: ..." with the reason.
    """

    measured: str
    verdict: str


class UndecidedError(Exception):
    """The tables do not hold the evidence that a claim needs. The message says what is missing."""


def all_or_some(holds: Mapping[str, bool], condition: str) -> str:
    """The verdict on a claim that was checked for several cases.

    Args:
        holds: Whether the claim holds, by the name of the case.
        condition: The quantity that differs between the cases, such as "the depth".

    Returns:
        "reproduced" if the claim holds in all cases, "not reproduced" if it holds in none.
        Otherwise "depends on ..." with the names of the cases.

    Raises:
        UndecidedError: If there are no cases.
    """
    if not holds:
        raise UndecidedError("there are no runs to compare")
    if all(holds.values()):
        return REPRODUCED
    if not any(holds.values()):
        return NOT_REPRODUCED
    yes = [name for name, value in holds.items() if value]
    no = [name for name, value in holds.items() if not value]
    return f"{DEPENDS} {condition}: it holds for {', '.join(yes)}, but not for {', '.join(no)}"


def all_parts(holds: Mapping[str, bool]) -> str:
    """Like `all_or_some`, for a claim of several parts.

    Args:
        holds: Whether each part is true. A part is a clause, such as "the gap is smaller".
    """
    verdict = all_or_some(holds, "the part")
    if not verdict.startswith(DEPENDS):
        return verdict
    true = " and ".join(part for part, value in holds.items() if value)
    false = " or that ".join(part for part, value in holds.items() if not value)
    return f"{DEPENDS} the part: it is true that {true}, but not that {false}"


def some_of(count: int, total: int, condition: str) -> str:
    """The verdict on a claim that holds in `count` of `total` cases."""
    if count in (0, total):
        return REPRODUCED if count else NOT_REPRODUCED
    return f"{DEPENDS} {condition}: it holds for {count} of {total}"
