"""Small results folders for tests of the report."""

import shutil
from pathlib import Path

TRACKED = Path(__file__).parents[2] / "results"


def copy_of_depth(results, dataset="mnist"):
    """Copies the published depth study, without its trials' own files."""
    folder = results / dataset / "depth"
    shutil.copytree(TRACKED / "mnist" / "depth", folder, ignore=shutil.ignore_patterns("trials"))
    return folder
