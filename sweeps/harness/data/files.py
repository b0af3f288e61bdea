"""Image data from files: `.npz` archives and IDX files, found, read and checked.

MNIST and Fashion-MNIST have the same shapes and the same file names. Their names are therefore
not trusted: both are identified by the published MD5 sums of their four files.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from sweeps.harness.data.dataset import TITLES, Dataset
from sweeps.harness.errors import UserError

DATA_DIR_VARIABLE = "KERASBN_DATA_DIR"
IDX_NAMES = {
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


def find(name: str, data_dir: str | os.PathLike | None) -> dict[str, Path]:
    """The file of each array, in the folder that the user has named."""
    place = Path(os.path.expanduser(data_dir or os.environ[DATA_DIR_VARIABLE]))
    told = f"--data_dir={place}" if data_dir else f"{DATA_DIR_VARIABLE}={place}"
    if place.suffix == ".npz" and os.path.isfile(place):
        return dict.fromkeys(IDX_NAMES, place)
    if not (os.path.isdir(place) and os.access(place, os.R_OK | os.X_OK)):
        raise UserError(
            f"{told} is not a directory that exists and can be read: give one with {name}.npz or "
            "the four IDX files, or the path of an .npz file"
        )
    if os.path.isfile(place / f"{name}.npz"):
        return dict.fromkeys(IDX_NAMES, place / f"{name}.npz")
    files = {
        key: place / spelling
        for key, stem in IDX_NAMES.items()
        for dotted in (stem.replace("-idx", ".idx"), stem)
        for spelling in (f"{dotted}.gz", dotted)
        if os.path.isfile(place / spelling)
    }
    missing = [stem for key, stem in IDX_NAMES.items() if key not in files]
    if missing:
        raise UserError(
            f"{told} has no {name}.npz, and of the IDX files it lacks {', '.join(missing)} "
            "(plain or .gz): put them there, or give the path of an .npz file"
        )
    return files


def read(name: str, files: dict[str, Path]) -> Dataset:
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
    arrays = {key: _as_bytes(arrays[key], key, files[key]) for key in IDX_NAMES}
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
            arrays = {key: np.asarray(archive[key]) for key in IDX_NAMES if key in names}
    except OSError:
        raise
    except Exception as error:  # damage makes zipfile, zlib and NumPy raise ten unrelated types
        reason = " ".join(str(error).split())  # NumPy's can have several lines
        raise UserError(
            f"{path} is damaged or no archive of plain arrays ({reason}), expected "
            f"{', '.join(IDX_NAMES)} as numpy.savez writes them: replace or delete it"
        ) from error
    missing = [key for key in IDX_NAMES if key not in names]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}, it has {', '.join(names) or 'nothing'}: expected "
            f"{', '.join(IDX_NAMES)}: add what is missing"
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
        md5.update(np.ascontiguousarray(array).data)
        if md5.hexdigest() != _MD5[name][key]:
            owner = owners.get(md5.hexdigest(), "custom")
            count = 60_000 if key.endswith("train") else 10_000
            raise UserError(
                f"{files[key]}: {key} is not {TITLES[name]}'s: received {len(array):,} entries of "
                f"{TITLES.get(owner, 'unknown origin')} with MD5 {md5.hexdigest()}, expected "
                f"{count:,} with {_MD5[name][key]}: give the right files, or --dataset={owner}"
            )
