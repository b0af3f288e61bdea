"""Finds, reads and checks image data in `.npz` archives and IDX files.

MNIST and Fashion-MNIST have the same shapes and file names. The published MD5 sums of their four
files therefore identify them, not the names.
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

from sweeps.harness.data import checks
from sweeps.harness.data.dataset import TITLES, Dataset
from sweeps.harness.errors import UserError
from sweeps.harness.wording import counted

DATA_DIR_VARIABLE = "KERASBN_DATA_DIR"
# Folders of system packages, by data set: dataset-fashion-mnist of Debian and Ubuntu.
_SYSTEM_FOLDERS = {"fashion_mnist": Path("/usr/share/datasets/fashion-mnist")}
IDX_NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
# MD5 sums of the unzipped IDX files, including headers. They do not depend on the compression.
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
    """Finds the file of each array.

    Args:
        name: Name of the data set.
        data_dir: Folder of the data, or path of an `.npz` file. Default: the environment variable
            KERASBN_DATA_DIR.
    """
    place = Path(os.path.expanduser(data_dir or os.environ[DATA_DIR_VARIABLE]))
    setting = f"--data_dir={place}" if data_dir else f"{DATA_DIR_VARIABLE}={place}"
    if place.suffix == ".npz" and os.path.isfile(place):
        return dict.fromkeys(IDX_NAMES, place)
    fault = _fault_of_place(place)
    if fault:
        raise UserError(
            f"{setting} {fault}. Set it to a folder that has {name}.npz or the four IDX files, or "
            "to the path of an .npz file."
        )
    if os.path.isfile(place / f"{name}.npz"):
        return dict.fromkeys(IDX_NAMES, place / f"{name}.npz")
    files = _idx_files(place)
    missing = [stem for key, stem in IDX_NAMES.items() if key not in files]
    if missing:
        others = sorted(path.name for path in place.glob("*.npz"))
        instead = (
            f" It has {', '.join(others[:3])}, whose path you can give instead." if others else ""
        )
        raise UserError(
            f"{setting} has no {name}.npz, and it lacks the IDX files {', '.join(missing)} "
            f"(plain or .gz).{instead} Put them there, or give the path of an .npz file."
        )
    return files


def installed(name: str) -> dict[str, Path] | None:
    """The file of each array in the folder of a system package. `None` if it is not installed."""
    files = _idx_files(_SYSTEM_FOLDERS[name]) if name in _SYSTEM_FOLDERS else {}
    return files if len(files) == len(IDX_NAMES) else None


def _idx_files(folder: Path) -> dict[str, Path]:
    """The IDX files that a folder has."""
    return {
        key: folder / spelling
        for key, stem in IDX_NAMES.items()
        for dotted in (stem.replace("-idx", ".idx"), stem)
        for spelling in (f"{dotted}.gz", dotted)
        if os.path.isfile(folder / spelling)
    }


def _fault_of_place(place: Path) -> str | None:
    """The reason why no data can be found at a path. `None` for a readable folder."""
    if not os.path.lexists(place):
        return "does not exist"
    if os.path.isfile(place):
        return "is a file, but not an .npz archive"
    if not (os.path.isdir(place) and os.access(place, os.R_OK | os.X_OK)):
        return "is not a readable folder"
    return None


def read(name: str, files: dict[str, Path]) -> Dataset:
    """Reads the arrays, and checks that they are the data set `name`.

    Args:
        name: Name of the data set.
        files: Path of each array's file.
    """
    path = files["x_train"]
    archived = path.suffix == ".npz"
    try:
        arrays = _read_npz(path) if archived else {k: _read_idx(p, k) for k, p in files.items()}
    except OSError as error:
        raise UserError(
            f"{error.filename or path} cannot be read ({error.strerror or error}). Expected a "
            "readable file. Correct its permissions, or replace it."
        ) from error
    arrays = checks.as_bytes({key: arrays[key] for key in IDX_NAMES}, files)
    if name == "custom":
        checks.check_brightness(arrays, files)
    else:
        _verify(name, arrays, files)
    return Dataset(name, **arrays, source=str(path if archived else path.parent))


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """The four arrays of an archive, unchecked."""
    arrays, key = {}, ""
    try:
        zipfile.ZipFile(path).close()  # NumPy's error for other files only talks about pickles
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            for key in filter(names.__contains__, IDX_NAMES):
                arrays[key] = np.asarray(archive[key])
    except OSError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise ten unrelated types for damage
        reason = " ".join(str(error).split())  # some of NumPy's messages have several lines
        if reason.startswith("Object arrays"):
            raise UserError(f"{path}: {key} {checks.fault_of_objects(key)}") from error
        raise UserError(
            f"{path} is damaged, or not an archive of plain arrays ({reason}). Expected "
            f"{', '.join(IDX_NAMES)} as numpy.savez writes them. Replace or delete the file."
        ) from error
    missing = [key for key in IDX_NAMES if key not in names]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}. It has {', '.join(names) or 'no arrays'}, "
            f"expected {', '.join(IDX_NAMES)}. Add the missing arrays."
        )
    return arrays


def _read_idx(path: Path, key: str) -> np.ndarray:
    """The array in an IDX file, gzipped or not: images (n, rows, columns) or labels (n,), uint8.

    An IDX file consists of a magic number and the dimensions, as big-endian 32-bit integers, and
    one byte per entry.
    """
    raw = path.read_bytes()
    try:
        # The name may be wrong: browsers unzip a file that they download, but keep the .gz.
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"{path} is a damaged gzip file ({error}). Replace or delete it."
        ) from error
    kinds = {2051: "images", 2049: "labels"}  # 0x08 for unsigned bytes, then the rank
    rank = 3 if key[0] == "x" else 1
    magic, wanted = int.from_bytes(raw[:4]), 2048 + rank
    if magic != wanted:
        raise UserError(
            f"{path} starts with magic number {magic} ({kinds.get(magic, 'not an IDX file')}), "
            f"expected {wanted} ({kinds[wanted]}). Replace it with the file that its name promises."
        )
    header = 4 + 4 * rank  # bytes
    shape = np.frombuffer(raw[4:header].ljust(4 * rank, b"\0"), ">u4").tolist()
    if len(raw) != header + math.prod(shape) or 0 in shape:
        raise UserError(
            f"{path} has {len(raw):,} bytes (unzipped). Its header promises dimensions {shape}, so "
            f"expected {header + math.prod(shape):,} bytes and no dimension of 0. Replace the file."
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _verify(name: str, arrays: dict[str, np.ndarray], files: dict[str, Path]) -> None:
    """Raises a UserError unless every byte of the arrays is that of the data set `name`."""
    owners = {md5: other for other, sums in _MD5.items() for md5 in sums.values()}
    for key, array in arrays.items():
        # The published sums are of IDX files, so the array gets the header of its IDX file.
        md5 = hashlib.md5(usedforsecurity=False)
        md5.update(struct.pack(f">{1 + array.ndim}I", 2048 + array.ndim, *array.shape))
        md5.update(np.ascontiguousarray(array).data)
        if md5.hexdigest() != _MD5[name][key]:
            owner = owners.get(md5.hexdigest(), "custom")
            count = 60_000 if key.endswith("train") else 10_000
            raise UserError(
                f"{files[key]}: {key} is not from {TITLES[name]}. Received "
                f"{counted(len(array), 'example')} of {TITLES.get(owner, 'unknown origin')} with "
                f"MD5 {md5.hexdigest()}, expected {count:,} with {_MD5[name][key]}. Use the right "
                f"files, or --dataset={owner}."
            )
