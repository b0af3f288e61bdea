"""The place for results of demonstrations (--quick), apart from those of full runs.

    RESULTS_DIR/demonstrations/DATASET/STUDY

The report looks for RESULTS_DIR/DATASET/STUDY, so it finds no demonstrations.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = "demonstrations"


def contains(path: Path) -> bool:
    """Whether a file or folder belongs to a demonstration."""
    return FOLDER in path.parts
