"""Claims about batch norm, and the rules that decide whether they hold.

Each study defines its claims in its own `claims.py`, in a dictionary `CLAIMS` from numbers to
claims. A rule is a function of the study's tables on disk. It returns the measured numbers with
their intervals and a verdict: "reproduced", "not reproduced", "depends on ..." with the condition
that the numbers show, or "undecided: ..." with the missing evidence. The report calls "depends on"
"partly reproduced". The rule's docstring, or a constant in its module, gives the thresholds. A rule
decides on a number only if the number's whole 95% interval is on one side of the threshold. A run
that misses its target counts as infinite, and the number of runs that reached the target is always
shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sweeps.harness.claims.evidence import StudyTables
from sweeps.harness.claims.verdicts import (
    DEPENDS,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    Finding,
    UndecidedError,
)
from sweeps.harness.trial import Trial

__all__ = [
    "DEPENDS",
    "NOT_REPRODUCED",
    "REPRODUCED",
    "UNDECIDED",
    "Claim",
    "Finding",
    "StudyTables",
    "UndecidedError",
    "decide",
]


class Claim(NamedTuple):
    """A claim and the rule that checks it.

    Attributes:
        text: The claim.
        source: The paper or tutorial that makes it.
        rule: Function of (the study's tables). Returns the `Finding`, or raises `UndecidedError`.
        needs: Whether the rule needs a trial of the study's default grid. Default: it needs all.
    """

    text: str
    source: str
    rule: Callable[[StudyTables], Finding]
    needs: Callable[[Trial], bool] = lambda trial: True


def decide(claim: Claim, tables: StudyTables) -> Finding:
    """Decides on a claim.

    Args:
        claim: The claim.
        tables: Tables of its study.

    Returns:
        The finding. With too little evidence the verdict is "undecided", whatever the numbers say.
    """
    try:
        finding = claim.rule(tables)
    except UndecidedError as error:
        finding = Finding("", f"{UNDECIDED}: {error}")
    try:
        tables.require(claim.needs)
    except UndecidedError as error:
        return finding._replace(verdict=f"{UNDECIDED}: {error}")
    return finding
