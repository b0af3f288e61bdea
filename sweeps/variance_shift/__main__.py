"""Does dropout before batch norm shift the variance between training and inference?

In training, dropout with keep rate p divides the features that it keeps by p. This raises their
variance, and batch norm stores the raised variance in its moving average. Inference has no dropout,
so the variance is lower than the stored one. For a feature with mean c and variance v, the ratio of
the variance in inference to that in training is v / ((c^2 + v) / p - c^2).

Varied: the keep rate p, from 0.5 to 1. At 1 there is no dropout.

Held equal: hidden layers of dense -> activation -> dropout -> batch norm, seven times with 100
ReLUs, then Dense(10); Adam, batches of 500. The paper's networks have about a hundred layers. Seven
layers are enough here for shifts to accumulate.

Claims: The measured ratio follows the formula, and accuracy falls with it. Recalibrating batch norm
without dropout repairs the shift.

Sources: X. Li, S. Chen, X. Hu & J. Yang, "Understanding the Disharmony between Dropout and Batch
Normalization by Variance Shift" (2019). D. Hendrycks & K. Gimpel, "Adjusting for Dropout Variance
in Batch Normalization and Weight Initialization" (2017), on updating the variance without dropout.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from sweeps.harness.cli import flags
from sweeps.harness.cli.study import Study, main

if TYPE_CHECKING:
    from sweeps.harness.data import DataSize
    from sweeps.harness.results.tables import Tables
    from sweeps.harness.trial import Trial


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags for dropout and for the length of training."""
    flags.Definer(values).number(
        "keep_rate",
        [0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
        "Keep rates p, separated by commas: the probability that dropout keeps a feature.",
        must_be="above 0 and at most 1",
        check=lambda v: 0 < v <= 1,
    )
    flags.define_epochs(values, 5, "Passes through the training images.")


def trials(values: absl_flags.FlagValues, data: DataSize) -> list[Trial]:
    """One trial per keep rate and seed."""
    by_epoch = flags.by_epoch(values, data.train_size)
    return [
        flags.trial(
            values,
            data.name,
            batch_norm=True,
            bn_logits=False,
            seed=seed,
            stop_at_target=False,
            record=("variances", "accuracies"),
            record_steps=(by_epoch["max_steps"],),
            program="variance_shift",
            options={"keep_rate": keep_rate},
            **by_epoch,
        )
        for keep_rate in values.keep_rate
        for seed in range(values.seeds)
    ]


def medians(tables: Tables):
    """Median ratios in the first layer and median accuracies, one row per keep rate."""
    import pandas as pd

    from sweeps.variance_shift import ratios

    units = ratios.of_units(tables.recorded["variances"], tables.trials)
    first = units[units.layer == 1].groupby("keep_rate")
    found = tables.recorded["accuracies"].merge(tables.trials, on="trial_id")
    accuracy = found.groupby(["inference", "keep_rate"]).accuracy.median()
    return pd.DataFrame(
        {
            "predicted ratio, layer 1": first.predicted.median().map("{:.2f}".format),
            "measured ratio, layer 1": first.measured.median().map("{:.2f}".format),
            "accuracy": accuracy["moving averages"].map("{:.1%}".format),
            "recalibrated": accuracy["recalibrated"].map("{:.1%}".format),
            "as in training": accuracy["as in training"].map("{:.1%}".format),
        }
    ).rename_axis("keep rate")


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Draws measured against predicted ratios, and accuracy by keep rate."""
    from sweeps.variance_shift import chart

    return [
        chart.measured_by_predicted(tables, folder / "variance_ratio.png"),
        chart.accuracy_by_keep_rate(tables, folder / "accuracy.png"),
    ]


STUDY = Study(
    name="variance_shift",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("keep_rate",),
    draw=draw,
    quick={"seeds": 1, "keep_rate": [0.5, 0.7, 0.9, 1.0], "batch_size": 100},
    captions={
        "variance_ratio.png": (
            "Each dot is a unit. Dots on the diagonal follow the formula. In the later layers, the "
            "shifts of the layers before add up."
        ),
        "accuracy.png": (
            "Recalibration removes the shift, and in training there is none. If inference with the "
            "moving averages is above both, the shift does not cost accuracy."
        ),
    },
    defaults={"hidden_units": "100,100,100,100,100,100,100", "learning_rate": 0.003},
    without={
        "batch_norm": "all its networks have batch norm.",
        "bn_logits": "batch norm follows dropout in hidden layers only.",
        "bn_layer": "it measures kerasbn.BatchNorm.",
        "eval_every": "networks are evaluated after each of --epochs.",
    },
    helps={"learning_rate": "Learning rate of Adam."},
    define_flags=define_flags,
    show=medians,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
