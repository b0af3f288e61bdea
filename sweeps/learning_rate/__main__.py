"""How high a learning rate does batch norm allow? Rates from 1 to 150 times 0.02.

After S. Ioffe & C. Szegedy, "Batch Normalization" (2015), section 4.2 (BN-x5, BN-x30,
BN-x5-Sigmoid), at the scale of MNIST: three hidden layers of 100, batch 60, SGD. The claims: batch
norm reaches the plain network's accuracy in far fewer steps; it trains at rates where the plain
network diverges or stalls; sigmoids train with it and not without, and stay behind ReLUs; it costs
nothing to decay its rate six times faster. Only the arm with batch norm runs with decay.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from sweeps.harness.cli import flags
from sweeps.harness.cli.study import Study, main

if TYPE_CHECKING:
    from sweeps.harness.data import Dataset
    from sweeps.harness.results.tables import Tables
    from sweeps.harness.trial import Trial


def define_flags(values: absl_flags.FlagValues) -> None:
    """The study's own flags."""
    define = flags.Definer(values)
    define.integer(
        "curve_every",
        50,
        "Steps between two full evaluations, for the accuracy curves.",
        at_least=1,
    )
    define.number(
        "decay_steps",
        [0.0, 1000.0, 167.0],
        "Time constants of the learning rate's exponential decay in the arm with batch norm, in "
        "training steps. 0 means no decay. 167 decays six times as fast as 1,000, as in the paper.",
        must_be="0 or positive",
        check=lambda v: v >= 0,
    )


def trials(values: absl_flags.FlagValues, dataset: Dataset) -> list[Trial]:
    """Each activation, rate, arm and seed; with batch norm each decay, too."""
    return [
        flags.trial(
            values,
            dataset.name,
            activation=activation,
            learning_rate=rate,
            decay_steps=decay or None,
            batch_norm=batch_norm,
            seed=seed,
            optimizer="sgd",
            stop_at_target=False,
            steps_per_execution=values.eval_every,
        )
        for activation in values.activation
        for rate in values.learning_rate
        for batch_norm in flags.arms(values)
        for decay in (values.decay_steps if batch_norm else (0.0,))
        for seed in range(values.seeds)
    ]


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Best accuracy and steps to the target by learning rate, a panel an activation."""
    from sweeps.harness import charts
    from sweeps.harness.results.tables import by_series

    every = tables.trials
    constant = every[every.decay_steps.isna()]
    decayed = every[every.batch_norm]

    def best(frame):
        def chart(ax):
            series = by_series(frame, "learning_rate")
            ax = charts.value(series, ax, "learning_rate", "best_accuracy", log=True)
            ax.set(ylabel="best test accuracy", xlabel="learning rate of SGD")
            return ax

        return chart

    def steps(frame):
        def chart(ax):
            ax = charts.steps_to_target(frame, ax, "learning_rate", log=True)
            ax.set_xlabel("learning rate of SGD")
            return ax

        return chart

    def panels(chart, frame):
        return {name: chart(frame[frame.activation == name]) for name in frame.activation.unique()}

    return [
        charts.save_panels(
            folder / f"{name}.png", panels(chart, frame), title, charts.settings(frame), columns=2
        )
        for name, chart, frame, title in (
            ("best_accuracy", best, constant, "Best test accuracy, by learning rate"),
            ("steps_to_target", steps, constant, "Training steps to the target, by learning rate"),
            ("decay", best, decayed, "Best test accuracy with batch norm, by the rate's decay"),
        )
        if len(frame)
    ]


STUDY = Study(
    name="learning_rate",
    question="How high a learning rate does batch norm allow, and how fast may it decay?",
    trials=trials,
    varied=("activation", "learning_rate", "decay_steps", "batch_norm"),
    draw=draw,
    defaults={
        "activation": ["relu", "sigmoid"],
        "learning_rate": [0.02, 0.1, 0.6, 3.0],
        "hidden_units": "100,100,100",
        "batch_size": 60,
        "max_steps": 2000,
        "eval_every": 10,
        "bn_logits": False,
    },
    helps={
        "activation": "Activations of the hidden layers, separated by commas.",
        "learning_rate": "Learning rates of SGD, separated by commas: 1, 5, 30 and 150 times 0.02, "
        "of which the paper has the first three.",
        "batch_size": "Examples a training step; those of the paper's section 4.1.",
        "bn_logits": "Batch norm on the output layer, too; the paper has it on hidden layers.",
        "eval_every": "Steps from one look at the target to the next; as many run in one call.",
    },
    define_flags=define_flags,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
