"""Finds data sets in Keras's cache, and downloads them into it."""

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
    """The path of each array's file in Keras's cache. The files may not exist."""
    # This repeats Keras's rule, because importing Keras would start TensorFlow.
    homes = [os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras")]
    if not os.access(homes[0] if os.path.exists(homes[0]) else Path(homes[0]).parent, os.W_OK):
        homes.append("/tmp/.keras")  # Keras uses this if it cannot write to the first one
    for home in homes:
        files = {key: Path(home, "datasets", file) for key, file in _KERAS_FILES[name].items()}
        if all(map(os.path.isfile, files.values())):
            break
    return files


def download(name: str, files: dict[str, Path]) -> Dataset:
    """Downloads a data set into Keras's cache, where Keras's own loader finds it, too.

    Keras's loader would not do. It has no time limit, prints progress, writes under the final name,
    deletes the previous file if a download fails, and takes seconds to start TensorFlow.

    Args:
        name: Name of the data set.
        files: Path of each array's file in the cache.
    """
    folder = files["x_train"].parent
    try:
        fetched = {file: _fetch(_KERAS_URL + file) for file in {p.name for p in files.values()}}
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as staging:
            for file, contents in fetched.items():
                Path(staging, file).write_bytes(contents)
            dataset = read(name, {key: Path(staging, path.name) for key, path in files.items()})
            # Files enter the cache only after the check, because later runs trust the cache.
            for file in fetched:
                Path(staging, file).replace(folder / file)
    except (OSError, http.client.HTTPException, UserError) as error:
        reason = "the downloaded file is damaged" if isinstance(error, UserError) else error
        raise UserError(
            f"{TITLES[name]} is not in Keras's cache, {folder}, and its download from {_KERAS_URL} "
            f"failed ({reason}). Set --data_dir or {DATA_DIR_VARIABLE} to a folder that has it, or "
            "use --dataset=mnist_5k, which needs no download."
        ) from error
    return replace(dataset, source=f"downloaded from {_KERAS_URL} to {folder}")


def _fetch(url: str) -> bytes:
    """The contents at `url`. Raises an OSError if no answer comes within `_SECONDS_TO_ANSWER`."""
    answers: queue.SimpleQueue = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=_SECONDS_TO_ANSWER))
        except Exception as error:
            answers.put(error)

    # A thread makes the time limit hold. urlopen applies its limit to each address separately, and
    # not to the name lookup. Behind some firewalls, the lookup alone takes most of a minute.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_SECONDS_TO_ANSWER)
    except queue.Empty:
        raise TimeoutError(f"no answer within {_SECONDS_TO_ANSWER:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    with answer:
        return answer.read()
