"""LeNet with sigmoids at a high learning rate: how soon does its loss fall, how much does it swing?

After the LeNet tutorials ("Dive into Deep Learning" and its readers): two convolutions and three
dense layers, sigmoids, average pooling, SGD at 0.9 (plain) and 1.0 (with batch norm), batch 256, 10
epochs. Batch norm comes after each convolution and each hidden dense
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

from sweeps.harness.cli import flags
from sweeps.harness.cli.study import Study, main
from sweeps.harness.errors import UserError
from sweeps.harness.trial import arm_name

if TYPE_CHECKING:
    from sweeps.harness.data import Dataset
    from sweeps.harness.results.tables import Tables
    from sweeps.harness.trial import Trial


def define_flags(values: absl_flags.FlagValues) -> None:
    """The study's own flags."""
    define = flags.Definer(values)
    define.integer("epochs", 10, "Passes through the training images.", at_least=1)
    define.switch(
        "published_pair",
        True,
        "Run the plain network at the lowest rate and that with batch norm at the highest alone; "
        "--nopublished_pair: both at each, which takes twice as long.",
    )


def trials(values: absl_flags.FlagValues, dataset: Dataset) -> list[Trial]:
    """Each arm, each rate, each seed; one row of the curve an epoch."""
    if len(values.hidden_units) != 4:
        raise UserError(
            f"--hidden_units={','.join(map(str, values.hidden_units))}: LeNet has two convolutions "
            "and two hidden dense layers. Give four numbers, such as 6,16,120,84."
        )
    by_epoch = flags.by_epoch(values, len(dataset.y_train))
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
            stop_at_target=False,
            record=("evaluation",),
            record_steps=(by_epoch["max_steps"],),
            **by_epoch,
        )
        for batch_norm in flags.arms(values)
        for rate in _rates(values, batch_norm)
        for seed in range(values.seeds)
    ]


def _rates(values, batch_norm):
    if values.published_pair:
        return [max(values.learning_rate) if batch_norm else min(values.learning_rate)]
    return values.learning_rate


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Training loss and test accuracy by epoch."""
    from sweeps.harness import charts

    every = tables.trials
    rates = every.groupby("batch_norm").learning_rate.unique()
    told = "; ".join(
        f"{arm_name(arm)} at {', '.join(f'{rate:g}' for rate in of_arm)}"
        for arm, of_arm in rates.items()
    )
    return [
        charts.save_panels(
            folder / "curves.png",
            {
                "training loss": lambda ax: charts.by_epoch(
                    tables, ax, "train_loss", "mean loss of the epoch's batches", None
                ),
                "test accuracy": lambda ax: charts.by_epoch(
                    tables, ax, "test_accuracy", "accuracy on the test set", 1
                ),
            },
            f"LeNet with {' and '.join(every.activation.unique())}: {told}",
            charts.settings(every),
            columns=2,
            share=False,
            size=(4.2, 3.4),
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
