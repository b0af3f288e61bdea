"""Counts the operations in exported models, with our layer and with Keras's. Run it by hand:

    pip install -e '.[test,exports]'
    KERAS_BACKEND=tensorflow python -m benchmarks.export_operations
    KERAS_BACKEND=torch python -m benchmarks.export_operations
    KERAS_BACKEND=jax python -m benchmarks.export_operations
    python docs/fill_in_numbers.py

Each run takes several minutes and replaces the backend's rows in docs/exports.csv, from which
docs/serving.md has its tables. The cases and formats are those of tests/kerasbn. Where Keras's own
layer cannot be exported, there is no row.

Columns of docs/exports.csv:
    backend: Keras backend.
    format: Format, or the runtime whose optimized model is counted.
    case: Model, with the shape of its input. "?" is an unknown size.
    dtype: Dtype policy.
    ours: Number of operations with `kerasbn.BatchNorm`.
    keras: Number of operations with `keras.layers.BatchNormalization`.
    difference: Largest difference between the outputs of the exported model and those of the model,
        divided by the largest output.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from tests.kerasbn import export_formats, exported_models

TABLE = Path(__file__).parents[1] / "docs/exports.csv"


def main() -> None:
    """Counts for the backend that KERAS_BACKEND selects."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    rows: list[dict] = []
    for kind in export_formats.FORMATS:
        if kind.missing():
            print(f"{kind.name}: left out, because {', '.join(kind.missing())} is not installed")
            continue
        for case in exported_models.CASES:
            if kind.mixed or case.dtype == "float32":
                rows += rows_of(kind, case)
        write(pd.DataFrame(rows))


def write(table: pd.DataFrame) -> None:
    """Replaces the backend's rows in docs/exports.csv."""
    if TABLE.exists():
        old = pd.read_csv(TABLE)
        table = pd.concat([table, old[old.backend != keras.backend.backend()]])
    table.sort_values("backend", kind="stable").to_csv(TABLE, index=False)


def rows_of(kind, case) -> list[dict]:
    """A row for each counted program, or none if Keras's own layer cannot be exported."""
    x = case.data()
    try:
        theirs = exported(kind, case.build(ours=False), x)
    except Exception as error:
        print(f"{kind.name}, {case.name}: Keras's layer cannot be exported: {error!r:.200}")
        return []
    model = case.build(ours=True)
    ours = exported(kind, model, x)
    y = np.asarray(keras.ops.convert_to_numpy(model(x, training=False)), "float32")
    difference = np.abs(ours.outputs.astype("float32") - y).max() / np.abs(y).max()
    rows = [
        {
            "backend": kind.backend,
            "format": program,
            "case": case.name,
            "dtype": case.dtype,
            "ours": len(operations),
            "keras": len(theirs.operations[program]),
            "difference": f"{difference:.1e}",
        }
        for program, operations in ours.operations.items()
    ]
    for row in rows:
        print(*row.values(), sep=" | ", flush=True)
    return rows


def exported(kind, model, x) -> export_formats.Exported:
    """The model in a format, by way of a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        return kind.export(model, x, Path(folder))


if __name__ == "__main__":
    main()
