"""Does batch norm regularize? Dropout and L2, with and without it, on 5,000 training images.

The network of the depth study with three hidden layers, trained for 30 epochs on few images, so
that there is something to overfit. The claim: with batch norm, dropout and L2 matter less: without
them, the gap between training and test accuracy is smaller than the plain network's.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from sweeps.harness.cli import flags
from sweeps.harness.cli.study import Study, main
from sweeps.harness.trial import arm_name

if TYPE_CHECKING:
    from sweeps.harness.data import Dataset
    from sweeps.harness.results.tables import Tables
    from sweeps.harness.trial import Trial


def define_flags(values: absl_flags.FlagValues) -> None:
    """The study's own flags."""
    define = flags.Definer(values)
    define.number(
        "dropout",
        [0.0, 0.5],
        "Shares of each hidden layer's outputs that training drops, separated by commas.",
        must_be="at least 0 and below 1",
        check=lambda v: 0 <= v < 1,
    )
    define.number(
        "l2",
        [0.0, 1e-4, 1e-3],
        "Factors of the squared hidden kernels in the loss, separated by commas.",
        must_be="at least 0",
        check=lambda v: v >= 0,
    )
    define.integer("epochs", 30, "Passes through the training images.", at_least=1)
    define.integer(
        "train_examples",
        5000,
        "Number of training images, the same ones for every seed. All if there are fewer.",
        at_least=1,
    )


def trials(values: absl_flags.FlagValues, dataset: Dataset) -> list[Trial]:
    """Each arm, dropout, L2 and seed."""
    examples = min(values.train_examples, len(dataset.y_train))
    by_epoch = flags.by_epoch(values, examples)
    return [
        flags.trial(
            values,
            dataset.name,
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
    """A row a trial that was evaluated: its setting in words, training and test accuracy, gap."""
    found = tables.recorded["evaluation"]
    found = found.pivot(index="trial_id", columns="data", values="accuracy")
    found = found.reindex(columns=["train", "test"]).astype(float)
    frame = tables.trials.merge(found, left_on="trial_id", right_index=True)
    frame = frame.fillna({"dropout": 0.0, "l2": 0.0})
    frame["gap"] = frame.train - frame.test
    dropout, l2 = frame.dropout.map("dropout {:g}".format), frame.l2.map("L2 {:g}".format)
    frame["setting"] = dropout + "\n" + l2
    frame["arm"] = frame.batch_norm.map(arm_name)
    return frame.sort_values(["dropout", "l2", "batch_norm", "seed"])


def medians(tables: Tables):
    """Median training and test accuracy of each setting and arm, as texts."""
    frame = accuracies(tables)
    table = frame.groupby(["arm", "dropout", "l2"])[["train", "test", "gap"]].median()
    return table.map("{:.2%}".format).reset_index()


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Training and test error of each setting, grouped bars with every seed as a dot.

    Errors, not accuracies: bars begin at zero.
    """
    from sweeps.harness import charts

    frame = accuracies(tables)
    if frame.empty:  # all runs diverged
        return []
    names = list(frame.setting.unique())
    series = [
        (
            f"{arm_name(arm)}, {data}",
            100 * (1 - group.set_index("setting")[data]),
        )
        for arm, group in frame.groupby("batch_norm")
        for data in ("train", "test")
    ]

    return [
        charts.save(
            folder / "error.png",
            lambda ax: charts.bars_of_seeds(series, names, ax, "error, percent of the images"),
            "Training and test error, by dropout and L2",
            f"{charts.settings(tables.trials)} · {tables.trials.train_examples.iloc[0]} images",
        )
    ]


STUDY = Study(
    name="regularization",
    question="Do dropout and L2 matter less with batch norm?",
    trials=trials,
    varied=("dropout", "l2", "batch_norm"),
    draw=draw,
    defaults={"hidden_units": "500,400,300"},
    without=("max_steps", "eval_every"),
    define_flags=define_flags,
    show=medians,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
