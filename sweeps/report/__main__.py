"""Which of the claims about batch norm hold, according to the results?

The report gathers the results of all studies: every claim with the measured numbers and the
verdict, each study's charts, and the command that makes them. RESULTS_DIR/README.md has all of it
as text. RESULTS_DIR/index.html is a web page to explore, and also shows every trial. The page is
one file that needs no network and no server.

Nothing is trained, and no verdict is written by hand. If a study's trials are present, its tables
and charts are first rebuilt from them, except for animations. If they are absent, as in a fresh
clone, the report uses the existing tables and charts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from absl import flags as absl_flags

from sweeps import catalog
from sweeps.harness.cli import command
from sweeps.harness.errors import UserError
from sweeps.harness.wording import counted


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flag for the results folder."""
    absl_flags.DEFINE_string(
        "results_dir",
        "runs",
        "Folder that holds the studies' results as DATASET/STUDY. The report is written there as "
        "README.md and index.html.",
        flag_values=values,
    )


def run(values: absl_flags.FlagValues) -> int:
    """Rebuilds tables and charts, writes the report and lists the files."""
    from sweeps.harness.results.store import write_whole
    from sweeps.report import document, page

    results = Path(values.results_dir)
    _check_holds_studies(results)
    rebuild(results)
    folders = document.studies(results)
    decided = document.decide(folders)
    for name, content in (
        ("README.md", document.text(results, folders, decided)),
        ("index.html", page.render(results, folders, decided)),
    ):
        write_whole(results / name, content.encode())
        print(f"Wrote {os.path.relpath(results / name)}")
    return 0


def _check_holds_studies(results):
    """Raises a UserError unless the folder holds results as DATASET/STUDY."""
    from sweeps.harness.results import demonstrations

    setting = f"--results_dir={results}"
    if not results.is_dir():
        raise UserError(f"{setting} is not a folder. Give the folder with the studies' results.")
    if demonstrations.contains(results):
        raise UserError(
            f"{setting} holds demonstrations (--quick), and no verdicts follow from them. Run the "
            "studies without --quick, and give the folder with their results."
        )
    if _has_results(results, "*/*/"):
        return
    for pattern, whose, levels in (("", "one study", 2), ("*/", "one data set", 1)):
        if _has_results(results, pattern):
            above = os.path.relpath(results.resolve().parents[levels - 1])
            raise UserError(f"{setting} is the folder of {whose}. Give --results_dir={above}")
    raise UserError(
        f"{setting} has no results. Expected folders DATASET/STUDY with tables or trials. Run a "
        f"study first, for example: python -m sweeps.depth --results_dir={results}"
    )


def _has_results(folder, prefix):
    return any(
        next(folder.glob(prefix + pattern), None) is not None
        for pattern in ("*.csv", "*.csv.xz", "trials/*.json")
    )


def rebuild(results: Path) -> None:
    """Rebuilds the tables and charts of each study whose trials are present."""
    from sweeps.harness.cli import study
    from sweeps.harness.results import store, tables

    for folder in sorted({path.parents[1] for path in results.glob("*/*/trials/*.json")}):
        of_folder = catalog.study(folder.name)
        if of_folder is None:
            continue
        lost = len(tables.irreplaceable(folder))
        if lost:
            kept = f"its tables have {counted(lost, 'trial')} without records"
            print(f"Kept {os.path.relpath(folder)}: {kept}")
            continue
        records = store.Store(folder).read()
        study.rebuild(of_folder, records, folder, study.default_ids(of_folder, records))
        print(f"Rebuilt {os.path.relpath(folder)} from {counted(len(records), 'trial')}")


COMMAND = command.Command(
    name="report",
    question=__doc__.splitlines()[0],
    define_flags=define_flags,
    run=run,
    when_interrupted="Some files may be from before. Run the same command again.",
)

if __name__ == "__main__":
    sys.exit(command.main(COMMAND))
