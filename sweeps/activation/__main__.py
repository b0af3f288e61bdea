"""Which activations need batch norm? Seven layers of relu, sigmoid, tanh, elu and leaky_relu.

After C. Rawles, "How to use Batch Normalization with TensorFlow and tf.keras to train deep neural
networks faster" (2018). The claims: seven layers of sigmoids stay near chance without batch norm,
and take with it about as many steps as ReLUs; ELU and leaky ReLU resist vanishing gradients without
batch norm. Every trial trains to the end of its budget, for the curves.
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
    """The study's own flag."""
    flags.Definer(values).integer(
        "curve_every", 5, "Steps between two full evaluations, for the accuracy curves.", at_least=1
    )


def trials(values: absl_flags.FlagValues, dataset: Dataset) -> list[Trial]:
    """Each activation, each arm, each seed."""
    return [
        flags.trial(
            values,
            dataset.name,
            activation=activation,
            batch_norm=batch_norm,
            seed=seed,
            stop_at_target=False,
        )
        for activation in values.activation
        for batch_norm in flags.arms(values)
        for seed in range(values.seeds)
    ]


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Accuracy by step, a panel an activation; steps to the target by activation."""
    from sweeps.harness import charts
    from sweeps.harness.results.tables import target

    every = tables.trials
    names = list(dict.fromkeys(every.activation))
    layers = f"{every.depth.max()} hidden layers"

    def accuracy(name):
        only = tables._replace(trials=every[every.activation == name])
        return lambda ax: charts.accuracy(only, ax, "step")

    def steps(ax):
        places = every.assign(place=every.activation.map(names.index))
        ax = charts.steps_to_target(places.drop(columns="activation"), ax, "place", joined=False)
        ax.set_xticks(range(len(names)), names)
        return ax

    return [
        charts.save_panels(
            folder / "accuracy_by_step.png",
            {name: accuracy(name) for name in names},
            f"Test accuracy of networks with {layers}, by activation",
            charts.settings(every),
            columns=3,
        ),
        charts.save(
            folder / "steps_to_target.png",
            steps,
            f"Training steps to {target(every)} test accuracy, by activation",
            charts.settings(every),
        ),
    ]


STUDY = Study(
    name="activation",
    question="Which activations train in deep networks, with and without batch norm?",
    trials=trials,
    varied=("activation", "batch_norm"),
    draw=draw,
    defaults={"activation": ["relu", "sigmoid", "tanh", "elu", "leaky_relu"], "max_steps": 300},
    helps={"activation": "Activations of the hidden layers, separated by commas."},
    define_flags=define_flags,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
