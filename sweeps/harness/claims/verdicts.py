"""Findings and verdicts: the results of a claim's rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sweeps.harness.claims.wording import listed

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
DEPENDS, UNDECIDED = "depends on", "undecided"  # a condition or a reason follows


class Finding(NamedTuple):
    """A study's answer to a claim.

    Attributes:
        measured: The measured numbers in plain sentences, with the thresholds that they must meet.
            The report adds the first capital letter and the final period.
        verdict: "reproduced", "not reproduced", "not reproduced: ..." with the reason, "depends on
            ..." with the condition, or "undecided: ..." with the missing evidence.
    """

    measured: str
    verdict: str


class UndecidedError(Exception):
    """The tables do not hold the evidence that a claim needs. The message says what is missing."""


def all_or_some(
    holds: Mapping[str, bool], condition: str, preposition: str = "for", reason: str = ""
) -> str:
    """The verdict on a claim that was checked for several cases.

    Args:
        holds: Whether the claim holds, by the name of the case.
        condition: The quantity that differs between the cases, such as "the depth".
        preposition: Word between "it holds" and the cases. Default: "for".
        reason: Clause that explains "not reproduced". Default: none.

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
        return f"{NOT_REPRODUCED}: {reason}" if reason else NOT_REPRODUCED
    yes = listed(name for name, value in holds.items() if value)
    no = listed(name for name, value in holds.items() if not value)
    return f"{DEPENDS} {condition}: it holds {preposition} {yes}, but not {preposition} {no}"


def all_parts(holds: Mapping[str, bool]) -> str:
    """The verdict on a claim of several parts.

    Args:
        holds: Whether each part is true. A part is a clause, such as "the gap is smaller".

    Returns:
        "reproduced" if all parts are true, "not reproduced" if none is. Otherwise "depends on the
        part: ..." with the parts.
    """
    verdict = all_or_some(holds, "the part")
    if not verdict.startswith(DEPENDS):
        return verdict
    true = " and ".join(part for part, value in holds.items() if value)
    false = " or that ".join(part for part, value in holds.items() if not value)
    return f"{DEPENDS} the part: it is true that {true}, but not that {false}"


def some_of(count: int, total: int, condition: str) -> str:
    """The verdict on a claim that holds in `count` of `total` runs."""
    if count in (0, total):
        return REPRODUCED if count else NOT_REPRODUCED
    return f"{DEPENDS} {condition}: it holds for {count} of {total} runs"
