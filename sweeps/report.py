"""Which claims hold? Gathers all studies' tables and charts into RESULTS_DIR/README.md.

Nothing is trained, and nothing is written by hand. Where a study's trials are there, its tables and
charts are first made anew from them (but no animations); where they are not, as in a fresh clone,
the tables and charts that are there are taken. For each claim a row with what was measured and the
verdict, then each study's charts with its command; index.html is the same as a page.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from absl import flags as absl_flags

from sweeps.__main__ import commands
from sweeps.harness import command
from sweeps.harness.errors import UserError

QUESTION = "Which of the claims about batch norm hold, by the results there are?"
_PREFERRED = ("mnist", "fashion_mnist", "mnist_5k")  # data sets, the most telling first
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


def define_flags(values: absl_flags.FlagValues) -> None:
    """Where the results are."""
    absl_flags.DEFINE_string(
        "results_dir",
        "results",
        "Where the studies' folders DATASET/STUDY are; README.md and index.html are written there.",
        flag_values=values,
    )


def run(values: absl_flags.FlagValues) -> int:
    """Makes tables and charts anew, writes the report, and says where."""
    from sweeps.harness.store import write_whole

    results = Path(values.results_dir)
    if not results.is_dir():
        raise UserError(
            f"--results_dir={results} is no folder: give the one that the studies wrote to."
        )
    rebuild(results)
    report = text(results)
    for name, content in (("README.md", report), ("index.html", page(report))):
        write_whole(results / name, content.encode())
        print(f"Wrote {os.path.relpath(results / name)}")
    return 0


def rebuild(results: Path) -> None:
    """Makes tables and charts of each study whose trials are there, and says of which."""
    from sweeps.harness import store, study

    for folder in sorted({path.parents[1] for path in results.glob("*/*/trials/*.json")}):
        if folder.name in commands():
            of_folder = importlib.import_module(f"sweeps.{folder.name}").STUDY
            records = store.Store(folder).read()
            study.rebuild(of_folder, records, folder)
            print(f"Rebuilt {os.path.relpath(folder)} from {len(records)} trials")


def text(results: Path) -> str:
    """The report on a results folder, in Markdown."""
    folders = studies(results)
    parts = [
        "# Results",
        "Written by `python -m sweeps.report` from the tables in these folders. Medians are over "
        "seeds; a run that does not reach its target counts as infinite, and (reached/total) "
        "stands beside. What decides on a verdict is in `sweeps/claims/`.",
        "## Claims",
        claims_table(folders),
    ]
    for study, of_study in folders.items():
        parts.append(f"## {study}")
        parts.append(commands().get(study, ""))
        for folder in of_study:
            parts += _section(folder, results)
    return "\n\n".join(parts) + "\n"


def page(report: str) -> str:
    """The report as an HTML page."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(report)
    return _PAGE.format(body=body)


def studies(results: Path) -> dict[str, list[Path]]:
    """The folders of each study that has tables, the preferred data set's first."""

    def rank(folder):
        name = folder.parent.name
        return (_PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED), name)

    found: dict[str, list[Path]] = {}
    for folder in sorted((path.parent for path in results.glob("*/*/*.csv")), key=str):
        if folder not in found.setdefault(folder.name, []):
            found[folder.name].append(folder)
    return {study: sorted(folders, key=rank) for study, folders in found.items()}


def claims_table(folders: dict[str, list[Path]]) -> str:
    """A row a claim."""
    from sweeps import claims

    rows = ["| | Claim | Source | Study, data | Measured | Verdict |", "|---|---|---|---|---|---|"]
    for number, claim in sorted(claims.CLAIMS.items()):
        where, finding = claim.study, claims.Finding("", claims.NOT_RUN)
        if claim.study in folders:
            folder = folders[claim.study][0]
            where = f"{claim.study}, {folder.parent.name}"
            try:
                finding = claim.rule(claims.StudyTables(folder))
            except claims.NotRunError as error:
                finding = claims.Finding(f"missing: {error}", claims.NOT_RUN)
        cells = (claim.text, claim.source, where, finding.measured, f"**{finding.verdict}**")
        rows.append(f"| {number} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _section(folder, results):
    """A study's command and charts on one data set."""
    name = folder.parent.name
    dataset = "" if name == "parabola" else f" --dataset={name}"
    charts = sorted([*folder.glob("*.png"), *folder.glob("*.gif")])
    where = folder.relative_to(results)
    return [
        f"On {name}: `python -m sweeps.{folder.name}{dataset}` ([tables]({where}))",
        *[f"![{chart.stem.replace('_', ' ')}]({chart.relative_to(results)})" for chart in charts],
    ]


if __name__ == "__main__":
    sys.exit(command.main("report", QUESTION, define_flags, run, "Nothing was written."))
