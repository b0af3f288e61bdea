"""How much sooner does a sigmoid LeNet train with batch norm, and how steadily?

Varied: batch norm, together with the learning rate of SGD: 0.9 without batch norm and 1.0 with it,
as published. --nopublished_pair trains both networks at both learning rates.

Held equal: two convolutions and three dense layers with sigmoids and average pooling, batches of
256, and 10 epochs. Batch norm comes after each convolution and each hidden dense layer, before the
activation.

Claims: With batch norm, the training loss falls to 0.55 within the first two epochs. The plain
network needs many more epochs. At these learning rates, the test accuracy with batch norm swings
from epoch to epoch, so read the curve and not only its last point.

Source: A. Zhang, Z. C. Lipton, M. Li & A. J. Smola, "Dive into Deep Learning" (2021), chapters on
LeNet and on batch normalization, and runs that its readers have published. They report, for
Fashion-MNIST after 10 epochs: a loss of 0.469 and a test accuracy of 0.776 for the plain network,
and a loss of 0.262 to 0.273 and a test accuracy of 0.80 to 0.88 with batch norm.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from sweeps.harness.cli import flags
from sweeps.harness.cli.study import Study, main
from sweeps.harness.errors import UserError
from sweeps.harness.trial import arm_name

if TYPE_CHECKING:
    from sweeps.harness.data import DataSize
    from sweeps.harness.results.tables import Tables
    from sweeps.harness.trial import Trial


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags for the number of epochs and the learning rates to combine."""
    flags.define_epochs(values, 10, "Passes through the training images.")
    flags.Definer(values).switch(
        "published_pair",
        True,
        "Train the plain network only at the lowest learning rate, and the network with batch norm "
        "only at the highest. --nopublished_pair trains both at every learning rate and takes "
        "twice as long.",
    )


def trials(values: absl_flags.FlagValues, data: DataSize) -> list[Trial]:
    """One trial per arm, learning rate and seed. Curves have one row per epoch."""
    if len(values.hidden_units) != 4:
        raise UserError(
            f"--hidden_units={','.join(map(str, values.hidden_units))}: LeNet has two convolutions "
            "and two hidden dense layers. Give four numbers, such as 6,16,120,84."
        )
    by_epoch = flags.by_epoch(values, data.train_size)
    return [
        flags.trial(
            values,
            data.name,
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
    """Draws training loss and test accuracy by epoch."""
    from sweeps.harness import charts

    every = tables.trials
    rates = every.groupby("batch_norm").learning_rate.unique()
    of_arms = ", ".join(
        f"{arm_name(arm)} {' and '.join(f'{rate:g}' for rate in of_arm)}"
        for arm, of_arm in rates.items()
    )
    columns = {
        "training loss": ("train_loss", "mean training loss of the epoch", None),
        "test accuracy": ("test_accuracy", "test accuracy", 1),
    }
    return [
        charts.save_panels(
            folder / "curves.png",
            {
                ", ".join(filter(None, [setting, name])): functools.partial(
                    charts.by_epoch, series, tables.curves, column=column, label=label, top=top
                )
                for setting, series in charts.facets(every).items()
                for name, (column, label, top) in columns.items()
            },
            "Training loss and test accuracy of LeNet, by epoch",
            f"{charts.settings(every)} · learning rate: {of_arms}",
            columns=2,
            share=False,
            size=(4.2, 3.4),
        )
    ]


STUDY = Study(
    name="lenet",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("learning_rate", "batch_norm"),
    draw=draw,
    quick={"seeds": 2, "epochs": 6, "batch_size": 64},
    captions={
        "curves.png": (
            "Left: how soon the loss falls. Right: how much the accuracy jumps from one epoch to "
            "the next."
        ),
    },
    defaults={
        "activation": "sigmoid",
        "hidden_units": "6,16,120,84",
        "learning_rate": [0.9, 1.0],
        "batch_size": 256,
        "jit_compile": True,
    },
    without={
        "eval_every": "networks are evaluated after each of --epochs.",
        "bn_logits": "as published, the output layer has no batch norm.",
    },
    helps={
        "hidden_units": "Filters of the two convolutions and units of the two hidden dense layers, "
        "separated by commas.",
        "learning_rate": "Learning rates of SGD, separated by commas. The defaults are the "
        "published ones, 0.9 without batch norm and 1.0 with it.",
        "batch_size": "Examples per training step. The default is the published one.",
        "jit_compile": "Compile training steps with XLA. Steps then take two thirds of the time.",
        "seeds": "Number of seeds, 0 to N-1. Six seeds take 20 to 30 minutes on two cores.",
    },
    define_flags=define_flags,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
