"""LeNet with sigmoids at a high learning rate: how soon does its loss fall, how much does it swing?

After the LeNet tutorials ("Dive into Deep Learning" and its readers): two convolutions and three
dense layers, sigmoids, average pooling, SGD at 0.9 (plain) and 1.0 (with batch norm), batch 256, 10
epochs; here both arms at both rates. Batch norm comes after each convolution and each hidden dense
layer, before the activation. The claims: with batch norm the training loss is at 0.55 in the first
epoch or two, and needs many more without; at such rates its test accuracy swings, so that the curve
says more than the last epoch. Published, on Fashion-MNIST after 10 epochs: plain loss 0.469, test
accuracy 0.776; batch norm 0.262 to 0.273 and 0.80 to 0.88.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from sweeps.harness import flags
from sweeps.harness.errors import UserError
from sweeps.harness.study import Study, main

if TYPE_CHECKING:
    from sweeps.harness.data import Dataset
    from sweeps.harness.tables import Tables
    from sweeps.harness.trial import Trial


def define_flags(values: absl_flags.FlagValues) -> None:
    """The study's own flag."""
    flags.Definer(values).integer("epochs", 10, 1, "Passes through the training images.")


def trials(values: absl_flags.FlagValues, dataset: Dataset) -> list[Trial]:
    """Each arm, each rate, each seed; one row of the curve an epoch."""
    if len(values.hidden_units) != 4:
        raise UserError(
            f"--hidden_units={','.join(map(str, values.hidden_units))}: LeNet has two convolutions "
            "and two hidden dense layers. Give four numbers, such as 6,16,120,84."
        )
    epoch = max(len(dataset.y_train) // values.batch_size, 1)
    return [
        flags.trial(
            values,
            dataset.name,
            architecture="lenet",
            learning_rate=rate,
            batch_norm=batch_norm,
            seed=seed,
            bn_logits=False,
            optimizer="sgd",
            max_steps=values.epochs * epoch,
            eval_every=epoch,
            curve_every=epoch,
            stop_at_target=False,
            steps_per_execution=epoch,
            record=("evaluation",),
            record_steps=(values.epochs * epoch,),
        )
        for batch_norm in flags.arms(values)
        for rate in values.learning_rate
        for seed in range(values.seeds)
    ]


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Training loss and test accuracy by epoch, a panel a learning rate."""
    from sweeps.harness import charts

    every = tables.trials

    def panels(column, label, top):
        return {
            f"{label}, learning rate {rate:g}": lambda ax, only=only: charts.by_epoch(
                tables._replace(trials=only), ax, column, label, top
            )
            for rate, only in every.groupby("learning_rate")
        }

    return [
        charts.save_panels(
            folder / "curves.png",
            panels("train_loss", "training loss", None)
            | panels("test_accuracy", "test accuracy", 1),
            "LeNet with sigmoids, by epoch",
            charts.settings(every),
            columns=every.learning_rate.nunique(),
            share="row",
        )
    ]


STUDY = Study(
    name="lenet",
    question="How much sooner does LeNet with sigmoids train with batch norm?",
    trials=trials,
    varied=("learning_rate", "batch_norm"),
    draw=draw,
    defaults={
        "activation": "sigmoid",
        "hidden_units": "6,16,120,84",
        "learning_rate": [0.9, 1.0],
        "batch_size": 256,
        "jit_compile": True,
        "seeds": 3,
    },
    without=("max_steps", "eval_every", "bn_logits"),
    helps={
        "hidden_units": "Filters of the two convolutions, units of the two hidden dense layers.",
        "learning_rate": "Rates of SGD, separated by commas: the published ones of the two arms.",
        "batch_size": "Examples a training step; the source's.",
        "jit_compile": "Compile steps with XLA: they take two thirds of the time.",
        "seeds": "Number of seeds, 0 to N-1; three end in a quarter of an hour on two cores.",
    },
    define_flags=define_flags,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
