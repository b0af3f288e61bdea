"""Writes the scalars, histograms and hyperparameters of trials for `tensorboard --logdir`."""

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
    """Writes one TensorBoard run per trial. Failed trials are left out.

    Args:
        records: All records in the study's store.
        folder: Log directory. Its old content is deleted.

    Returns:
        The log directory.
    """
    with quiet_start():
        import tensorflow as tf
        from tensorboard.plugins.hparams import api as hparams

    shutil.rmtree(folder, ignore_errors=True)  # TensorFlow only ever appends to event files
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


def histogram_metadata() -> Any:
    """The metadata that mark a tensor as a histogram for TensorBoard.

    The function behind it is private to TensorBoard's plugin. The public `tf.summary.histogram`
    needs the raw values, and the records hold only their counts.
    """
    from tensorboard.plugins.histogram import metadata

    return metadata.create_summary_metadata(None, None)


def _write_histograms(record):
    """Writes the recorded histograms in TensorBoard's format: rows of low, high, count."""
    import tensorflow as tf

    recorded = record.get("recorded", {}).get("histograms", {"columns": [], "rows": []})
    for step, *values in recorded["rows"]:
        row = dict(zip(recorded["columns"], values, strict=True))
        counts = np.array(row["counts"].split("-"), np.float64)
        edges = np.linspace(row["low"], row["high"], len(counts) + 1)
        tf.summary.write(
            f"{row['tensor']}/layer{row['layer']}",
            np.stack([edges[:-1], edges[1:], counts], axis=1),
            step=step,
            metadata=histogram_metadata(),
        )


def _hyperparameters(trial):
    """The trial's settings in the types that TensorBoard accepts: strings, numbers and booleans."""
    fields = {
        name: "-".join(map(str, value)) if isinstance(value, tuple) else value
        for name, value in trial.settings.items()
    }
    return {name: "" if value is None else value for name, value in fields.items()}
