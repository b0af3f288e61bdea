"""Do the inputs of a deep sigmoid keep their distribution while the network trains?

After S. Ioffe & C. Szegedy, "Batch Normalization" (2015), section 4.1: three hidden layers of 100
sigmoids, weights N(0, 0.1), batch 60, SGD. The claims: batch norm reaches higher test accuracy, and
sooner; the 15th, 50th and 85th percentiles of what goes into a typical sigmoid of the last hidden
layer drift without it and stay put with it. The paper trains for 50,000 steps; the 5,000 here show
the same in minutes.
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
    define.integer(
        "record_every",
        100,
        "Steps between two recordings of the distributions, each with a full evaluation.",
        at_least=1,
    )
    define.number(
        "kernel_stddev",
        0.1,
        "Standard deviation of the initial weights. The paper says only that they are small.",
        must_be="positive",
        check=lambda v: v > 0,
    )


def trials(values: absl_flags.FlagValues, dataset: Dataset) -> list[Trial]:
    """Each arm, each seed."""
    every = min(values.record_every, values.max_steps)
    return [
        flags.trial(
            values,
            dataset.name,
            batch_norm=batch_norm,
            seed=seed,
            optimizer="sgd",
            curve_every=every,
            stop_at_target=False,
            steps_per_execution=values.eval_every,
            record=("percentiles", "histograms"),
            record_steps=tuple(range(0, values.max_steps + 1, every)),
        )
        for batch_norm in flags.arms(values)
        for seed in range(values.seeds)
    ]


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Test accuracy by step; the percentiles of three sigmoids' inputs, plain above batch norm."""
    from sweeps.harness import charts
    from sweeps.harness.results.tables import first_seed

    every = tables.trials
    first = first_seed(every)
    found = tables.recorded["percentiles"]

    def bands(rows):
        return lambda ax: charts.percentiles(rows, ax)

    panels = {
        f"{arm_name(trial.batch_norm)}, unit {unit}": bands(
            found[(found.trial_id == trial.trial_id) & (found.unit == unit)]
        )
        for trial in first.itertuples()
        for unit in (1, 2, 3)
    }
    return [
        charts.save(
            folder / "accuracy_by_step.png",
            lambda ax: charts.accuracy(tables, ax, "step"),
            f"Test accuracy of networks with {every.depth.max()} layers of sigmoids",
            charts.settings(every),
        ),
        charts.save_panels(
            folder / "percentiles.png",
            panels,
            "What goes into sigmoids of the last hidden layer: {15, 50, 85}th percentiles",
            charts.settings(first),
            columns=3,
        ),
    ]


STUDY = Study(
    name="distribution",
    question="Do the inputs of a deep sigmoid keep their distribution in training?",
    trials=trials,
    varied=("depth", "batch_norm"),
    draw=draw,
    defaults={
        "activation": "sigmoid",
        "hidden_units": "100,100,100",
        "learning_rate": 0.1,
        "batch_size": 60,
        "max_steps": 5000,
        "eval_every": 20,
        "bn_logits": False,
    },
    helps={
        "learning_rate": "Of SGD; the paper does not say.",
        "batch_size": "Examples a training step; the paper's.",
        "max_steps": "Budget of a trial in training steps; the paper's is 50,000.",
        "bn_logits": "Batch norm on the output layer, too; the paper has it on hidden layers.",
        "eval_every": "Steps from one look at the target to the next; as many run in one call.",
    },
    define_flags=define_flags,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
