"""Scalars and hyperparameters of every trial, for `tensorboard --logdir`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.harness.quiet import quiet_start
from sweeps.harness.trial import Trial

_METRICS = ("steps_to_target", "seconds_to_target", "final_accuracy")


def write(records: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Writes one run a trial, in place of what was there; returns the folder.

    Args:
        records: What the store holds; failed trials are left out.
        folder: The log directory.
    """
    with quiet_start():
        import tensorflow as tf
        from tensorboard.plugins.hparams import api as hparams

    shutil.rmtree(folder, ignore_errors=True)  # event files are appended to, never replaced
    for record in records:
        if record["status"] == "failed":
            continue
        trial = Trial.from_json(record["trial"])
        run = folder / f"depth{trial.depth}-{trial.id}-seed{trial.seed}"
        with tf.summary.create_file_writer(str(run)).as_default():
            hparams.hparams(_hyperparameters(trial), trial_id=trial.id)
            for step, loss, accuracy in record["curve"]:
                for name, value in (("train_loss", loss), ("test_accuracy", accuracy)):
                    if value is not None:
                        tf.summary.scalar(name, value, step=step)
            _write_histograms(record)
            for name in _METRICS:
                if record[name] is not None:
                    tf.summary.scalar(name, record[name], step=record["final_step"])
    return folder


def _write_histograms(record):
    """What the recorder of histograms found, as TensorBoard has them: rows of low, high, count."""
    import tensorflow as tf
    from tensorboard.plugins.histogram import metadata

    recorded = record.get("recorded", {}).get("histograms", {"columns": [], "rows": []})
    for step, *values in recorded["rows"]:
        row = dict(zip(recorded["columns"], values, strict=True))
        counts = np.array(row["counts"].split("-"), np.float64)
        edges = np.linspace(row["low"], row["high"], len(counts) + 1)
        tf.summary.write(
            f"{row['tensor']}/layer{row['layer']}",
            np.stack([edges[:-1], edges[1:], counts], axis=1),
            step=step,
            metadata=metadata.create_summary_metadata(None, None),
        )


def _hyperparameters(trial):
    """The trial's fields as TensorBoard takes them: texts, numbers and booleans."""
    fields = {
        name: "-".join(map(str, value)) if isinstance(value, list) else value
        for name, value in trial.to_json().items()
    }
    return {name: "" if value is None else value for name, value in fields.items()}
