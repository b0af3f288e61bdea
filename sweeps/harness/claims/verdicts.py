"""What a rule returns: what was measured, and a verdict."""

from __future__ import annotations

from typing import NamedTuple

REPRODUCED, NOT_REPRODUCED, NOT_RUN = "reproduced", "not reproduced", "not run"


class Finding(NamedTuple):
    """What a study's tables say about a claim."""

    measured: str
    verdict: str


class NotRunError(Exception):
    """The tables lack the trials that a claim is about; says which."""


def all_or_some(holds, condition):
    """Reproduced if all hold, not if none does; else depends on which, and those are named."""
    if not holds:
        raise NotRunError("runs to compare")
    if all(holds.values()):
        return REPRODUCED
    if not any(holds.values()):
        return NOT_REPRODUCED
    yes = ", ".join(name for name, value in holds.items() if value)
    no = ", ".join(name for name, value in holds.items() if not value)
    return f"depends on {condition}: yes: {yes}; no: {no}"


def some_of(count, total, condition):
    """Reproduced if in all, not if in none."""
    if count in (0, total):
        return REPRODUCED if count else NOT_REPRODUCED
    return f"depends on {condition}: {count} of {total}"
