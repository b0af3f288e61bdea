"""One JSON file a finished trial, written whole or not at all, so that a killed run loses nothing.

    FOLDER/trials/<trial id>.json

A record holds the trial's configuration, its result and curve, and what it was made with (see
`sweeps.harness.results.provenance`). Every other file of a study is made from these records and
can be made again.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sweeps.harness.errors import UserError

FORMAT = 1  # of a record; raised when an older reader would misread it


class Store:
    """The finished trials of one study on one data set.

    Args:
        folder: The study's folder, RESULTS_DIR/DATASET/STUDY; made if it is not there.

    Raises:
        UserError: If the folder cannot be written to.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._trials = folder / "trials"
        try:
            self._trials.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._trials):
                pass
        except OSError as error:
            raise _unwritable(folder, error) from error

    def read(self) -> list[dict[str, Any]]:
        """All records, in the order of their ids; damaged files are set aside with a message.

        Raises:
            UserError: If a record was written by a newer version of the format.
        """
        return [r for path in sorted(self._trials.glob("*.json")) if (r := _read(path)) is not None]

    def write(self, record: dict[str, Any]) -> None:
        """Adds a record, or replaces that of the same trial."""
        record = {"format": FORMAT, **record}
        text = json.dumps(_finite(record), allow_nan=False)
        write_whole(self._trials / f"{record['trial_id']}.json", text.encode())

    def model_path(self, trial_id: str) -> Path:
        """Where a trial's trained network is kept."""
        return self.folder / "models" / f"{trial_id}.keras"

    def write_model(self, trial_id: str, content: bytes) -> None:
        """Keeps a trained network, as the bytes of a `.keras` file."""
        path = self.model_path(trial_id)
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise _unwritable(path.parent, error) from error
        write_whole(path, content)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that readers see all of it or nothing, and two writers never mix.

    Raises:
        UserError: If it cannot be written; the file that was there before stays.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # temporary files are made for their owner alone
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def conflicts(records: Iterable[dict[str, Any]], code: str, data: str) -> str | None:
    """In words, how finished trials differ in code or data from what would run now; `None`: not."""
    finished = [r for r in records if r["status"] != "failed"]
    other_code = sum(r["environment"]["code"] != code for r in finished)
    other_data = sum(r["data"] != data for r in finished)
    differences = [
        f"{count} of {len(finished)} with other {what}"
        for count, what in ((other_code, "code"), (other_data, "data"))
        if count
    ]
    return " and ".join(differences) or None


def _read(path):
    try:
        record = json.loads(path.read_bytes())
        if record["format"] > FORMAT:
            raise UserError(
                f"{path} was written by a newer version (format {record['format']}; this version "
                f"reads up to {FORMAT}). Update kerasbn, or choose another --results_dir."
            )
        if record["trial_id"] != path.stem or record["status"] not in (
            "done",
            "diverged",
            "failed",
        ):
            raise ValueError("not a trial's record")
        return record
    except FileNotFoundError:  # another run has just set it aside
        return None
    except (ValueError, KeyError, TypeError) as error:
        aside = path.with_name(path.name + ".damaged")
        os.replace(path, aside)
        print(
            f"{path} is damaged ({error}): set aside as {aside.name}; its trial will run again.",
            file=sys.stderr,
        )
        return None


def _finite(value):
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _unwritable(path, error):
    return UserError(
        f"cannot write {path}: {error.strerror or error}. Finished trials are kept. Make room or "
        "get permission there, or choose another --results_dir, and start again."
    )
