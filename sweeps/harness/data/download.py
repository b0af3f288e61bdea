"""Keras's cache of data sets, and the download that fills it."""

from __future__ import annotations

import http.client
import os
import queue
import tempfile
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path

from sweeps.harness.data.dataset import TITLES, Dataset
from sweeps.harness.data.files import DATA_DIR_VARIABLE, IDX_NAMES, read
from sweeps.harness.errors import UserError

_KERAS_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_KERAS_FILES = {
    "mnist": dict.fromkeys(IDX_NAMES, "mnist.npz"),
    "fashion_mnist": {key: f"fashion-mnist/{file}.gz" for key, file in IDX_NAMES.items()},
}
_SECONDS_TO_ANSWER = 5.0


def keras_files(name: str) -> dict[str, Path]:
    """The file of each array in Keras's cache, there or not."""
    # Found by Keras's rule, but without Keras: importing it starts TensorFlow.
    homes = [os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras")]
    if not os.access(homes[0] if os.path.exists(homes[0]) else Path(homes[0]).parent, os.W_OK):
        homes.append("/tmp/.keras")  # Keras's choice where it cannot write
    for home in homes:
        files = {key: Path(home, "datasets", file) for key, file in _KERAS_FILES[name].items()}
        if all(map(os.path.isfile, files.values())):
            break
    return files


def download(name: str, files: dict[str, Path]) -> Dataset:
    """Fetches what Keras's own loader fetches, to where it keeps it: each finds the other's.

    Not by that loader, which has no time limit, prints, writes under the final name, deletes what
    had that name when a download fails, and needs seconds to start TensorFlow.
    """
    folder = files["x_train"].parent
    try:
        fetched = {file: _fetch(_KERAS_URL + file) for file in {p.name for p in files.values()}}
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as staging:
            for file, contents in fetched.items():
                Path(staging, file).write_bytes(contents)
            dataset = read(name, {key: Path(staging, path.name) for key, path in files.items()})
            # Only now: a file in the cache is taken for good by whoever comes next.
            for file in fetched:
                Path(staging, file).replace(folder / file)
    except (OSError, http.client.HTTPException, UserError) as error:
        reason = "what came is damaged" if isinstance(error, UserError) else error
        raise UserError(
            f"{TITLES[name]} is not in Keras's cache, {folder}, and no network brings it from "
            f"{_KERAS_URL} ({reason}): give its folder by --data_dir or {DATA_DIR_VARIABLE}, or "
            "take --dataset=mnist_5k, which needs none"
        ) from error
    return replace(dataset, source=f"downloaded from {_KERAS_URL} to {folder}")


def _fetch(url: str) -> bytes:
    """The contents at `url`; an OSError where no answer comes within `_SECONDS_TO_ANSWER`."""
    answers: queue.SimpleQueue = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=_SECONDS_TO_ANSWER))
        except Exception as error:
            answers.put(error)

    # In a thread: urlopen's own limit is one for each address that it tries, and none for looking
    # up the name, which alone takes most of a minute where a firewall drops the question.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_SECONDS_TO_ANSWER)
    except queue.Empty:
        raise TimeoutError(f"no answer within {_SECONDS_TO_ANSWER:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    with answer:
        return answer.read()
