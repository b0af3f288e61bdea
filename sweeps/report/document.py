"""The text of the report: the claims with their verdicts, then each study's charts."""

from __future__ import annotations

from pathlib import Path

from sweeps.harness import claims
from sweeps.harness.cli import catalog

_PREFERRED = ("mnist", "fashion_mnist", "mnist_5k")  # data sets, the most informative first
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>What batch norm does: results</title>
<style>
  body {{ font: 15px/1.5 sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; }}
  table {{ border-collapse: collapse; }}
  th, td {{ border-bottom: 1px solid #ccc; padding: 0.3em 0.6em; text-align: left; }}
  td {{ vertical-align: top; }}
  img {{ max-width: 49%; }}
</style>
{body}
</html>
"""


def text(results: Path) -> str:
    """The report on a results folder, in Markdown."""
    folders = studies(results)
    parts = [
        "# Results",
        "`python -m sweeps.report` writes this page from the tables in these folders. Medians are "
        "over seeds. A run that misses its target counts as infinite, and (reached/total) is the "
        "number of runs that reached the target. The rule behind each verdict is in the study's "
        "`claims.py`.",
        "## Claims",
        claims_table(folders),
    ]
    for study, of_study in folders.items():
        parts.append(f"## {study}")
        parts.append(catalog.commands().get(study, ""))
        for folder in of_study:
            parts += _section(folder, results)
    return "\n\n".join(parts) + "\n"


def page(report: str) -> str:
    """The report as an HTML page."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(report)
    return _PAGE.format(body=body)


def studies(results: Path) -> dict[str, list[Path]]:
    """The folders of each study that has tables. The preferred data set comes first."""

    def rank(folder):
        name = folder.parent.name
        return (_PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED), name)

    found: dict[str, list[Path]] = {}
    for folder in sorted((path.parent for path in results.glob("*/*/*.csv")), key=str):
        if folder not in found.setdefault(folder.name, []):
            found[folder.name].append(folder)
    return {study: sorted(folders, key=rank) for study, folders in found.items()}


def claims_table(folders: dict[str, list[Path]]) -> str:
    """A Markdown table with one row per claim."""
    rows = ["| | Claim | Source | Study, data | Measured | Verdict |", "|---|---|---|---|---|---|"]
    for number, (study, claim) in catalog.claims().items():
        where, finding = study, claims.Finding("", claims.NOT_RUN)
        if study in folders:
            folder = folders[study][0]
            where = f"{study}, {folder.parent.name}"
            try:
                finding = claim.rule(claims.StudyTables(folder))
            except claims.NotRunError as error:
                finding = claims.Finding(f"missing: {error}", claims.NOT_RUN)
        cells = (claim.text, claim.source, where, finding.measured, f"**{finding.verdict}**")
        rows.append(f"| {number} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _section(folder, results):
    """The command and the charts of a study on one data set."""
    name = folder.parent.name
    dataset = "" if name == "parabola" else f" --dataset={name}"
    charts = sorted([*folder.glob("*.png"), *folder.glob("*.gif")])
    where = folder.relative_to(results)
    return [
        f"On {name}: `python -m sweeps.{folder.name}{dataset}` ([tables]({where}))",
        *[f"![{chart.stem.replace('_', ' ')}]({chart.relative_to(results)})" for chart in charts],
    ]
