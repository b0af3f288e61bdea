"""The text of the report: the claims with their verdicts, then each study's charts."""

from __future__ import annotations

import collections
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sweeps import catalog
from sweeps.harness import claims
from sweeps.harness.claims.wording import chart, listed, spelled
from sweeps.harness.data import PARABOLA
from sweeps.harness.wording import counted

_SWEEPS = Path(__file__).parents[1]
_PREFERRED = ("mnist", "fashion_mnist", "mnist_5k")  # data sets, the most informative first

EVIDENCE = (
    "Numbers have a 95% interval over seeds: `16 [15, 18]` is a median of 16, and `>300 [210, "
    ">300]` one that lies beyond the budget of 300 steps. A rule decides on a number only if the "
    "whole interval is on one side of the threshold. Otherwise, and with fewer than six seeds, the "
    "claim is *undecided*. "
    "*Partly reproduced* means that a claim holds only under the condition that the verdict names. "
    "A verdict needs every trial of the command in its row, and is *undecided* without them. "
    "Trials with other settings never count, even if the tables hold some. The claims on cost use "
    "all rows of their tables."
)


def text(results: Path, folders: Mapping[str, Sequence[Path]], verdicts: Sequence[Decided]) -> str:
    """The report on a results folder, in Markdown.

    Args:
        results: The results folder.
        folders: Results folders by study, see `studies`.
        verdicts: The claims with their findings, see `decide`.
    """
    parts = [
        "# Results",
        "`python -m sweeps.report` writes this page from the tables in the folders next to it. The "
        "sections below link to the tables of each study. Training amplifies rounding, so on "
        "another processor a network may need a few steps more or less.",
        "A *trial*, or run, is one training run of one network with one seed. Most studies compare "
        "two *arms*: networks with batch norm, and *plain* networks without it. Medians are over "
        "seeds. (3/5) after a number of steps means that 3 of 5 runs reached the target. Runs that "
        "miss it count as infinitely many steps.",
        "## Claims",
        summary(verdicts),
        f"{EVIDENCE} {_rules(verdicts, results)}",
        claims_table(verdicts),
        "## Numbers behind the claims",
        *numbers(verdicts),
    ]
    for study, of_study in folders.items():
        parts.append(f"## {study}")
        parts.append(catalog.commands().get(study, ""))
        for folder in of_study:
            parts += _section(folder, results)
    return "\n\n".join(parts) + "\n"


class Decided(NamedTuple):
    """A claim with its finding.

    Attributes:
        number: Number of the claim.
        claim: The claim.
        study: Name of the command that has its numbers.
        folder: Results folder that the finding comes from, and with it the data set. None: the
            command was not run.
        finding: The finding.
    """

    number: int
    claim: claims.Claim
    study: str
    folder: Path | None
    finding: claims.Finding


def decide(folders: Mapping[str, Sequence[Path]]) -> list[Decided]:
    """Decides on every claim, once for each data set that its study has tables of.

    The preferred data set comes first. A claim whose study was not run has one finding, too.
    """
    decided = []
    for number, (study, claim) in catalog.claims().items():
        for folder in folders.get(study, []):
            finding = claims.decide(claim, claims.StudyTables(folder, catalog.grid))
            decided.append(Decided(number, claim, study, folder, finding))
        if not folders.get(study):
            finding = claims.Finding("", f"{claims.UNDECIDED}: the study was not run")
            decided.append(Decided(number, claim, study, None, finding))
    return decided


def summary(decided: Sequence[Decided]) -> str:
    """The number of claims with each verdict, with a sentence for each further data set."""
    first = {each.number: each for each in reversed(decided)}
    others: dict[str, list[Decided]] = {}
    for each in decided:
        if each.folder and each is not first[each.number]:
            others.setdefault(each.folder.parent.name, []).append(each)
    return " ".join(
        [
            _counts("", list(first.values())),
            *(_counts(f" on {name}", some) for name, some in others.items()),
        ]
    )


def _counts(where, decided):
    counts = collections.Counter(kind(each.finding.verdict) for each in decided)
    return (
        f"{counted(len(decided), 'claim')}{where}: {counts[claims.REPRODUCED]} reproduced, "
        f"{counts[claims.DEPENDS]} partly reproduced, {counts[claims.NOT_REPRODUCED]} not "
        f"reproduced, {counts[claims.UNDECIDED]} undecided."
    )


def claims_table(decided: Sequence[Decided]) -> str:
    """A Markdown table with one row per claim and data set."""
    rows = ["| | Claim | Source | Measured | Verdict | Command |", "|---|---|---|---|---|---|"]
    for each in decided:
        cells = (
            each.claim.text,
            each.claim.source,
            as_sentence(each.finding.measured),
            sentence(each.finding.verdict),
            f"`{command(each.study, each.folder)}`",
        )
        rows.append(f"| {each.number} | {' | '.join(cells)} |")
    return "\n".join(rows)


def numbers(decided: Sequence[Decided]) -> list[str]:
    """For each claim and data set with further numbers, a line that names it and a small table."""
    parts = []
    for each in decided:
        if each.folder and each.finding.rows:
            title = f"**Claim {each.number}** on {each.folder.parent.name}: {each.claim.text}"
            parts += [title, _table(each.finding.rows)]
    return parts


def _table(rows):
    """A Markdown table from rows by column. Rows may lack some of the columns."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[row.get(name, "") for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def sentence(verdict: str) -> str:
    """A verdict as a sentence, with its kind in bold."""
    found = kind(verdict)
    if found == claims.DEPENDS:
        return f"**Partly reproduced.** It {verdict}."
    rest = as_sentence(verdict.removeprefix(found).removeprefix(": "))
    return f"**{found.capitalize()}.** {rest}".rstrip()


def as_sentence(words: str) -> str:
    """Words as a sentence, with a capital letter and a period."""
    return f"{capital(words)}." if words else ""


def capital(words: str) -> str:
    """Words with a capital first letter."""
    return words[0].upper() + words[1:]


def _rules(decided, results):
    """Where the rules are, in a sentence."""
    folder = Path(os.path.relpath(_SWEEPS, results)).as_posix()
    names = sorted({each.study for each in decided})
    links = listed(f"[{name}]({folder}/{name}/claims.py)" for name in names)
    return (
        f"A rule with thresholds decides each claim. It is in the study's `claims.py`: {links}. "
        "The thresholds were fixed before the published runs, but not blindly. For claims 1 to 25, "
        "results of earlier versions were known. For tuned and exponential_rate, trial runs were "
        "known, and for noise, rank, residual and variance_shift, trial runs with one or two seeds."
    )


def kind(verdict: str) -> str:
    """The kind of a verdict: how it begins."""
    kinds = (claims.REPRODUCED, claims.NOT_REPRODUCED, claims.DEPENDS, claims.UNDECIDED)
    return next(kind for kind in kinds if verdict.startswith(kind))


def command(study: str, folder: Path | None) -> str:
    """The command that gives the evidence in a results folder."""
    dataset = folder.parent.name if folder else "mnist"
    return f"python -m sweeps.{study}" + ("" if dataset == PARABOLA else f" --dataset={dataset}")


def rank(dataset: str) -> tuple[int, str]:
    """Sort key of a data set's name that puts the preferred data sets first."""
    return (_PREFERRED.index(dataset) if dataset in _PREFERRED else len(_PREFERRED), dataset)


def studies(results: Path) -> dict[str, list[Path]]:
    """The folders of each study that has tables. The preferred data set comes first."""

    found: dict[str, list[Path]] = {}
    for folder in sorted((path.parent for path in results.glob("*/*/*.csv")), key=str):
        if folder not in found.setdefault(folder.name, []):
            found[folder.name].append(folder)
    return {
        study: sorted(folders, key=lambda folder: rank(folder.parent.name))
        for study, folders in found.items()
    }


def _section(folder, results):
    """The command and the charts of a study on one data set."""
    files = sorted([*folder.glob("*.png"), *folder.glob("*.gif")])
    captions = catalog.captions(folder.name)
    shown = []
    study = capital(spelled(folder.name.replace("_", " ")))
    for file in files:
        shown.append(f"![{study} study: {chart(file.stem)}]({file.relative_to(results)})")
        shown += [text for pattern, text in captions.items() if file.match(pattern)]
    return [
        f"On {folder.parent.name}: `{command(folder.name, folder)}` "
        f"([tables]({folder.relative_to(results)}))",
        *shown,
    ]
