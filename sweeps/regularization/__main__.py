"""Does batch norm regularize, so that dropout and L2 matter less?

Varied: the dropout rate (0 and 0.5) and the L2 factor (0, 0.0001 and 0.001), with and without batch
norm.

Held equal: the depth study's network with three hidden layers, Adam at 0.01, batches of 500, and 30
epochs on 5,000 training images. Few images leave room for overfitting.

Claim: Dropout and L2 matter less with batch norm. Without dropout and L2, batch norm makes the gap
between training and test accuracy smaller.

Source: S. Ioffe & C. Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing
Internal Covariate Shift" (2015).
"""

from __future__ import annotations

import functools
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
    """Defines the flags for regularization and for the length of training."""
    define = flags.Definer(values)
    define.number(
        "dropout",
        [0.0, 0.5],
        "Dropout rates, separated by commas: the share of each hidden layer's outputs that "
        "training drops.",
        must_be="at least 0 and below 1",
        check=lambda v: 0 <= v < 1,
    )
    define.number(
        "l2",
        [0.0, 1e-4, 1e-3],
        "L2 factors, separated by commas. The loss includes the factor times the sum of the "
        "squared hidden kernels.",
        must_be="at least 0",
        check=lambda v: v >= 0,
    )
    flags.define_epochs(values, 30, "Passes through the training images.")
    define.integer(
        "train_examples",
        5000,
        "Number of training images to use, the same ones for every seed. A smaller data set is "
        "used whole.",
        at_least=1,
    )


def trials(values: absl_flags.FlagValues, data: DataSize) -> list[Trial]:
    """One trial per arm, dropout rate, L2 factor and seed."""
    examples = min(values.train_examples, data.train_size)
    by_epoch = flags.by_epoch(values, examples)
    return [
        flags.trial(
            values,
            data.name,
            batch_norm=batch_norm,
            dropout=dropout or None,
            l2=l2 or None,
            seed=seed,
            train_examples=examples,
            stop_at_target=False,
            record=("evaluation",),
            record_steps=(by_epoch["max_steps"],),
            **by_epoch,
        )
        for batch_norm in flags.arms(values)
        for dropout in values.dropout
        for l2 in values.l2
        for seed in range(values.seeds)
    ]


def accuracies(tables: Tables):
    """Training accuracy, test accuracy and their gap, one row per trial that was evaluated."""
    found = tables.recorded["evaluation"]
    found = found.pivot(index="trial_id", columns="data", values="accuracy")
    found = found.reindex(columns=["train", "test"]).astype(float)
    frame = tables.trials.merge(found, left_on="trial_id", right_index=True)
    frame = frame.fillna({"dropout": 0.0, "l2": 0.0})
    frame["gap"] = frame.train - frame.test
    dropout, l2 = frame.dropout.map("dropout {:g}".format), frame.l2.map("L2 {:g}".format)
    frame["setting"] = dropout + "\n" + l2
    return frame.sort_values(["dropout", "l2", "batch_norm", "seed"])


def medians(tables: Tables):
    """Median training accuracy, test accuracy and gap of each arm and setting, as text."""
    import pandas as pd

    from sweeps.harness.results.tables import by_series

    columns = ["train", "test", "gap"]
    evaluated = accuracies(tables)
    if evaluated.empty:  # diverged runs are not evaluated
        return pd.DataFrame(columns=["network", "dropout", "l2", *columns])
    rows = {
        (label, *point): group[columns].median()
        for label, trials in by_series(evaluated, "dropout", "l2")
        for point, group in trials.groupby(["dropout", "l2"])
    }
    table = pd.DataFrame(rows.values(), columns=columns, dtype=float).map("{:.2%}".format)
    table[["network", "dropout", "l2"]] = list(rows)
    return table[["network", "dropout", "l2", *columns]]


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Draws bars of each setting's training and test error, with a dot for every seed.

    Bars begin at zero, so they show errors and not accuracies.
    """
    from sweeps.harness import charts

    frame = accuracies(tables)
    if frame.empty:  # diverged runs are not evaluated
        return []
    names = list(frame.setting.unique())

    def bars(series, ax):
        pairs = [
            (f"{label}, {data}", 100 * (1 - trials.set_index("setting")[data]))
            for label, trials, _ in series
            for data in ("train", "test")
        ]
        return charts.bars_of_seeds(pairs, names, ax, "error, percent of images")

    examples = " and ".join(f"{each:,}" for each in tables.trials.train_examples.unique())
    return [
        charts.save_panels(
            folder / "error.png",
            {
                title: functools.partial(bars, series)
                for title, series in charts.facets(frame, "dropout", "l2").items()
            },
            "Training and test error, by dropout and L2",
            f"{charts.settings(tables.trials)} · {examples} images",
            columns=1,
            size=(7.2, 3.0),
        )
    ]


STUDY = Study(
    name="regularization",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("dropout", "l2", "batch_norm"),
    draw=draw,
    quick={"seeds": 2, "epochs": 15, "l2": [0.0, 1e-3]},
    captions={
        "error.png": (
            "Compare the bars for training and test: their difference is the generalization gap."
        ),
    },
    defaults={"hidden_units": "500,400,300"},
    without={"eval_every": "networks are evaluated after each of --epochs."},
    define_flags=define_flags,
    show=medians,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
