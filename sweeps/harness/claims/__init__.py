"""Claims about batch norm, and the rules that decide whether they hold.

Each study has its claims in its own `claims.py`, as `CLAIMS`, by their number. A rule is a function
of the study's tables on the disk. It returns the measured numbers in words and a verdict:
"reproduced", "not reproduced", or "depends on ..." with the condition that the numbers show. The
thresholds stand in the rule's docstring, or in its module as constants. Medians are over seeds. A
run that misses its target counts as infinite, and the number of runs that reached it is shown, too.
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
    """A claim and the rule that decides on it.

    Attributes:
        text: The claim.
        source: The paper or tutorial that makes it.
        rule: Function of the tables of the claim's study. Returns the `Finding`.
    """

    text: str
    source: str
    rule: Callable[[StudyTables], Finding]
