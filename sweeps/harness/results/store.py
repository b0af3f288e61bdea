"""Stores one JSON file per finished trial. A file is written whole or not at all.

    FOLDER/trials/<trial id>.json

A killed run therefore loses no finished trial. A record holds the trial's configuration, its result
and curve, and its provenance (see `sweeps.harness.results.provenance`). All other files of a study
are made from these records and can be rebuilt.
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
from sweeps.harness.results import provenance

FORMAT = 1  # format of a record, increased when an older reader would misread a new record


class Store:
    """The finished trials of one study on one data set.

    Args:
        folder: The study's results folder, RESULTS_DIR/DATASET/STUDY. It is created if missing.

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
        """Reads all records, in the order of their ids. Renames damaged files, with a message.

        Raises:
            UserError: If a record was written by a newer version of the format.
        """
        return [r for path in sorted(self._trials.glob("*.json")) if (r := _read(path)) is not None]

    def write(self, record: dict[str, Any]) -> None:
        """Adds a record, or replaces the record of the same trial."""
        record = {"format": FORMAT, **record}
        text = json.dumps(_finite(record), allow_nan=False)
        write_whole(self._trials / f"{record['trial_id']}.json", text.encode())

    def model_path(self, trial_id: str) -> Path:
        """Path of a trial's trained network. The file may not exist."""
        return self.folder / "models" / f"{trial_id}.keras"

    def write_model(self, trial_id: str, content: bytes) -> None:
        """Saves a trained network, given as the bytes of a `.keras` file."""
        path = self.model_path(trial_id)
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise _unwritable(path.parent, error) from error
        write_whole(path, content)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that readers see all of it or nothing, and two writers never mix.

    Args:
        path: Path of the file.
        content: New content of the file.

    Raises:
        UserError: If the file cannot be written. An existing file then stays as it was.
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
        os.chmod(temporary, 0o644)  # by default, only the owner may read a temporary file
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def conflicts(records: Iterable[dict[str, Any]], data: str) -> str | None:
    """Describes how finished trials differ from a new run. `None` if they do not.

    Args:
        records: All stored records.
        data: Fingerprint of the new run's data set.
    """
    finished = [r for r in records if r["status"] != "failed"]
    other_code = sum(not _has_present_code(r) for r in finished)
    other_data = sum(r["data"] != data for r in finished)
    differences = [
        f"{count} of {len(finished)} with other {name}"
        for count, name in ((other_code, "code"), (other_data, "data"))
        if count
    ]
    return " and ".join(differences) or None


def _has_present_code(record):
    """Whether this version of the code made the record."""
    environment, program = record["environment"], record["trial"].get("program")
    return environment["code"] == provenance.code_fingerprint() and environment.get(
        "program_code"
    ) == provenance.program_fingerprint(program)


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
            raise ValueError("not a record of this trial")
        return record
    except FileNotFoundError:  # another run has just renamed it
        return None
    except (ValueError, KeyError, TypeError) as error:
        aside = path.with_name(path.name + ".damaged")
        os.replace(path, aside)
        print(
            f"{path} is damaged ({error}). It is renamed to {aside.name}, and the trial will run "
            "again.",
            file=sys.stderr,
        )
        return None


def _finite(value):
    """The value with NaN and infinities replaced by `None`, because JSON has neither."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _unwritable(path, error):
    return UserError(
        f"cannot write {path}: {error.strerror or error}. Finished trials are kept. Free some "
        "space, get write permission, or choose another --results_dir. Then run the command again."
    )
