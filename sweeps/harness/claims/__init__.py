"""Claims about batch norm, and the rules that decide whether they hold.

Each study defines its claims in `claims.py`, in a dictionary `CLAIMS` from numbers to claims. A
rule is a function of the study's tables on disk. It returns the measured numbers with their
intervals and a verdict:

- "reproduced";
- "not reproduced";
- "depends on ..." with the condition. The report calls it "partly reproduced";
- "undecided: ..." with the missing evidence.

The thresholds are in the rule's docstring or in a constant of its module. A rule decides only if
the number's whole 95% interval is on one side of the threshold. A run that misses its target counts
as infinite. The number of runs that reached the target is always shown.
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
        text: Text of the claim.
        source: Paper or tutorial that makes the claim.
        rule: Function of the study's tables that returns a `Finding` or raises `UndecidedError`.
        needs: Function of a trial in the study's default grid. It returns whether the rule needs
            the trial. Default: the rule needs all trials.
        charts: Pattern of the charts that show the claim's numbers: file names of the study without
            ".png". Default: all charts of the study.
    """

    text: str
    source: str
    rule: Callable[[StudyTables], Finding]
    needs: Callable[[Trial], bool] = lambda trial: True
    charts: str = "*"


def decide(claim: Claim, tables: StudyTables) -> Finding:
    """Decides on a claim.

    Args:
        claim: The claim.
        tables: Tables of its study.

    Returns:
        The finding. If trials are missing, the verdict is "undecided", whatever the numbers say.
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
