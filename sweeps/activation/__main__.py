"""Which activations train in deep networks, with and without batch norm?

Varied: the activation of the hidden layers (relu, sigmoid, tanh, elu, leaky_relu), with and without
batch norm.

Held equal: the deepest network of the depth study, with seven hidden layers, Adam at 0.01, batches
of 500, and 300 training steps. Trials do not stop at the target, so every accuracy curve has the
same length.

Claims: Without batch norm, seven layers of sigmoids stay near chance. With batch norm, sigmoids
need about as many steps as ReLUs. ELU and leaky ReLU resist vanishing gradients without batch norm.

Source: C. Rawles, "How to use Batch Normalization with TensorFlow and tf.keras to train deep neural
networks faster" (2018).
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
    """Defines the flag for the accuracy curves."""
    flags.Definer(values).integer(
        "curve_every", 5, "Steps between two points of the accuracy curves.", at_least=1
    )


def trials(values: absl_flags.FlagValues, data: DataSize) -> list[Trial]:
    """One trial per activation, arm and seed."""
    return [
        flags.trial(
            values,
            data.name,
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
    """Draws accuracy by step, with one panel per activation, and steps to target by activation."""
    from sweeps.harness import charts
    from sweeps.harness.results.tables import target

    every = tables.trials
    names = list(dict.fromkeys(every.activation))

    def steps(series, ax):
        ax = charts.steps_to_target(series, ax, "place", joined=False)
        ax.set_xticks(range(len(names)), names)
        return ax

    by_activation = charts.facets(every, by=["activation"])
    places = every.assign(place=every.activation.map(names.index))
    return [
        charts.save_panels(
            folder / "accuracy_by_step.png",
            {
                title: functools.partial(charts.accuracy, series, tables.curves, x="step")
                for title, series in by_activation.items()
            },
            f"Test accuracy of networks with {charts.depths(every)}, by activation",
            charts.settings(every),
            columns=3,
        ),
        charts.save_panels(
            folder / "steps_to_target.png",
            {
                title: functools.partial(steps, series)
                for title, series in charts.facets(places, "place", "activation").items()
            },
            f"Training steps to {target(every)} test accuracy, by activation",
            charts.settings(every),
            columns=1,
            size=(7.2, 3.0),
        ),
    ]


STUDY = Study(
    name="activation",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("activation", "batch_norm"),
    draw=draw,
    quick={
        "activation": ["relu", "sigmoid", "elu"],
        "seeds": 3,
        "max_steps": 100,
        "curve_every": 10,
    },
    captions={
        "accuracy_by_step.png": (
            "Each panel is one activation. Compare how soon the lines of the two arms rise."
        ),
        "steps_to_target.png": "Lower is faster. A triangle is a run that missed the target.",
    },
    defaults={"activation": ["relu", "sigmoid", "tanh", "elu", "leaky_relu"], "max_steps": 300},
    helps={"activation": "Activations of the hidden layers, separated by commas."},
    define_flags=define_flags,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
