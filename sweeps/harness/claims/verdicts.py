"""Findings and verdicts, the results of a claim's rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sweeps.harness.claims.checks import Check, conjunction, disjunction
from sweeps.harness.claims.wording import listed
from sweeps.harness.results.intervals import SEEDS_NEEDED
from sweeps.harness.wording import counted

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
DEPENDS, UNDECIDED = "depends on", "undecided"  # a condition or a reason follows


class Finding(NamedTuple):
    """A study's answer to a claim.

    Attributes:
        measured: Deciding numbers with their intervals, in a few words. The report adds the first
            capital letter and the final period.
        verdict: "reproduced", "not reproduced", "not reproduced: ..." with the reason, "depends on
            ..." with the condition, or "undecided: ..." with the missing evidence.
        rows: Rows of the table below the claim, each with its cells by column. They show the other
            numbers.
    """

    measured: str
    verdict: str
    rows: Sequence[Mapping[str, str]] = ()


class UndecidedError(Exception):
    """The tables do not hold the evidence that a claim needs. The message says what is missing."""


def undecided(checks: Mapping[str, Check]) -> str:
    """The verdict on a claim that some checks leave undecided, with the reason.

    Args:
        checks: Checks by name. Some of them may have an answer.
    """
    fewest = min(each.seeds for each in checks.values())
    if fewest < SEEDS_NEEDED:
        return _too_few(fewest)
    names = [name for name, each in checks.items() if each.holds is None]
    return f"{UNDECIDED}: the 95% interval contains the threshold for {listed(names)}"


def all_or_some(
    checks: Mapping[str, Check], condition: str, preposition: str = "for", reason: str = ""
) -> str:
    """The verdict on a claim that was checked for several cases.

    Args:
        checks: Checks by the names of the cases.
        condition: Quantity that differs between the cases, such as "the depth".
        preposition: Word between "it holds" and the cases. Default: "for".
        reason: Clause that explains "not reproduced". Default: none.

    Returns:
        "reproduced" if the claim holds in all cases, "not reproduced" if it holds in none. If it
        holds in one case and fails in another, "depends on ..." with the names of the cases.
        Otherwise "undecided: ...".

    Raises:
        UndecidedError: If there are no cases.
    """
    if not checks:
        raise UndecidedError("there are no runs to compare")
    answers = [each.holds for each in checks.values()]
    if conjunction(answers):
        return REPRODUCED
    if disjunction(answers) is False:
        return f"{NOT_REPRODUCED}: {reason}" if reason else NOT_REPRODUCED
    yes, no, open_ = (_named(checks, answer) for answer in (True, False, None))
    if not (yes and no):
        return undecided(checks)
    rest = f", and is undecided {preposition} {listed(open_)}" if open_ else ""
    return (
        f"{DEPENDS} {condition}: it holds {preposition} {listed(yes)}, but not {preposition} "
        f"{listed(no)}{rest}"
    )


def all_parts(checks: Mapping[str, Check]) -> str:
    """The verdict on a claim with several parts.

    Args:
        checks: Checks by part. A part is a clause, such as "the gap is smaller".

    Returns:
        "reproduced" if all parts are true, "not reproduced" if none is. If one is true and another
        is not, "depends on the part: ..." with the parts. Otherwise "undecided: ...".
    """
    yes, no, open_ = (_named(checks, answer) for answer in (True, False, None))
    if not (yes and no):
        return all_or_some({f'"{part}"': each for part, each in checks.items()}, "the part")
    rest = f", and it is undecided whether {' and '.join(open_)}" if open_ else ""
    return (
        f"{DEPENDS} the part: it is true that {' and '.join(yes)}, but not that "
        f"{' or that '.join(no)}{rest}"
    )


def some_of(count: int, total: int, condition: str) -> str:
    """The verdict on a claim that holds in `count` of `total` runs.

    If some runs agree with the claim and some do not, it depends on the seed, and no interval is
    needed. If all runs agree, six are enough to show that most runs do.
    """
    if 0 < count < total:
        return f"{DEPENDS} {condition}: it holds for {count} of {total} runs"
    if total < SEEDS_NEEDED:
        return _too_few(total)
    return REPRODUCED if count else NOT_REPRODUCED


def _too_few(seeds):
    return (
        f"{UNDECIDED}: {counted(seeds, 'seed')} cannot give a 95% interval for a median; six are "
        "needed"
    )


def _named(checks, answer):
    return [name for name, each in checks.items() if each.holds is answer]
