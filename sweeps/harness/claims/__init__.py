"""Claims about batch norm, and the rules that decide whether they hold.

Each study defines its claims in its own `claims.py`, in a dictionary `CLAIMS` from numbers to
claims. A rule is a function of the study's tables on disk. It returns the measured numbers in words
and a verdict: "reproduced", "not reproduced", or "depends on ..." with the condition that the
numbers show. The rule's docstring, or a constant in its module, gives the thresholds. Medians are
over seeds. A run that misses its target counts as infinite, and the number of runs that reached the
target is always shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sweeps.harness.claims.evidence import StudyTables
from sweeps.harness.claims.verdicts import (
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    Finding,
    NotRunError,
)

__all__ = [
    "NOT_REPRODUCED",
    "NOT_RUN",
    "REPRODUCED",
    "Claim",
    "Finding",
    "NotRunError",
    "StudyTables",
]


class Claim(NamedTuple):
    """A claim and the rule that checks it.

    Attributes:
        text: The claim.
        source: The paper or tutorial that makes it.
        rule: Function of (the study's tables). Returns the `Finding`.
    """

    text: str
    source: str
    rule: Callable[[StudyTables], Finding]
