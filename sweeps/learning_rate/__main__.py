"""How high a learning rate does batch norm allow, and how fast may it decay?

Varied: the learning rate (0.02 times 1, 5, 30 and 150) and the activation (ReLU and sigmoid), with
and without batch norm. With batch norm, the decay of the learning rate varies, too: none, or
exponential with a time constant of 1,000 or 167 steps.

Held equal: three hidden layers of 100 units, SGD, batches of 60, and 2,000 training steps. Trials
do not stop at the target.

Claims: Batch norm reaches the plain network's accuracy in far fewer steps. Batch norm trains at
learning rates at which the plain network diverges or stalls. Sigmoid networks train only with batch
norm, and are less accurate than ReLU networks. With batch norm, decaying the learning rate six
times faster costs no accuracy.

Source: S. Ioffe & C. Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing
Internal Covariate Shift" (2015), section 4.2, the networks BN-x5, BN-x30 and BN-x5-Sigmoid. The
paper trains Inception on ImageNet. This study asks the same questions on MNIST.
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
    """Defines the flags for the accuracy curves and the decay of the learning rate."""
    define = flags.Definer(values)
    define.integer(
        "curve_every",
        50,
        "Steps between two points of the accuracy curves.",
        at_least=1,
    )
    define.number(
        "decay_steps",
        [0.0, 1000.0, 167.0],
        "Time constants of the learning rate's exponential decay in networks with batch norm, in "
        "training steps. 0 means no decay. 167 decays six times as fast as 1,000, the factor of "
        "Ioffe & Szegedy 2015.",
        must_be="0 or positive",
        check=lambda v: v >= 0,
    )


def trials(values: absl_flags.FlagValues, data: DataSize) -> list[Trial]:
    """One trial per activation, learning rate, arm and seed, and with batch norm per decay."""
    return [
        flags.trial(
            values,
            data.name,
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
    """Draws best accuracy and steps to target by learning rate, with one panel per activation."""
    from sweeps.harness import charts
    from sweeps.harness.results.tables import target

    every = tables.trials
    constant = every[every.decay_steps.isna()]
    decayed = every[every.batch_norm]

    def best(series, ax):
        ax = charts.value(series, ax, "learning_rate", "best_accuracy", log=True)
        ax.set(ylabel="best test accuracy", xlabel="learning rate of SGD")
        return ax

    def steps(series, ax):
        ax = charts.steps_to_target(series, ax, "learning_rate", log=True)
        ax.set_xlabel("learning rate of SGD")
        return ax

    return [
        charts.save_panels(
            folder / f"{name}.png",
            {
                title: functools.partial(chart, series)
                for title, series in charts.facets(
                    trials, "learning_rate", by=["activation"]
                ).items()
            },
            title,
            charts.settings(trials),
            columns=2,
        )
        for name, chart, trials, title in (
            ("best_accuracy", best, constant, "Best test accuracy, by learning rate"),
            (
                "steps_to_target",
                steps,
                constant,
                f"Training steps to {target(every)} test accuracy, by learning rate",
            ),
            (
                "decay",
                best,
                decayed,
                "Best test accuracy with batch norm, by decay of the learning rate",
            ),
        )
        if len(trials)
    ]


STUDY = Study(
    name="learning_rate",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("activation", "learning_rate", "decay_steps", "batch_norm"),
    draw=draw,
    quick={
        "activation": ["relu"],
        "decay_steps": [0.0],
        "seeds": 3,
        "max_steps": 500,
        "curve_every": 25,
    },
    captions={
        "best_accuracy.png": (
            "How far to the right does each arm stay high? That is its range of usable learning "
            "rates."
        ),
        "steps_to_target.png": "Lower is faster. A triangle is a run that missed the target.",
        "decay.png": (
            "Compare the decays at each learning rate: how much accuracy does a faster decay cost?"
        ),
    },
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
        "learning_rate": "Learning rates of SGD, separated by commas. The defaults are 1, 5, 30 "
        "and 150 times 0.02. Ioffe & Szegedy 2015 use the factors 1, 5 and 30.",
        "batch_size": "Examples per training step. The default is that of Ioffe & Szegedy 2015, "
        "section 4.1.",
        "bn_logits": "Also apply batch norm to the output layer. Ioffe & Szegedy 2015 apply it to "
        "hidden layers only.",
        "eval_every": "Steps between two checks of the target. All steps between two checks run in "
        "one call of the compiled function.",
    },
    define_flags=define_flags,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
