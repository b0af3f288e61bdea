"""How many training steps does each added layer cost, with and without batch norm?

Varied: depth, from 1 to the number of layers in --hidden_units, with and without batch norm. The
network of depth d has the first d of the hidden layers 500, 400, 300, 200, 100, 50, 25. Each hidden
layer is Dense, then batch norm if the network has it, then ReLU.

Held constant: he_normal kernels in hidden layers, Adam at 0.01, batches of 500, and a budget of
1,000 steps. For each seed, all networks see the same examples in the same order. A trial stops when
it reaches the target, 90% test accuracy, or 80% on Fashion-MNIST. --learning_rate takes other
rates, too, and each has a chart panel. The claims are about 0.01 only. `sweeps.tuned` selects a
rate for each network.

Claims: Without batch norm, each added layer raises the number of steps to the target. With
batch norm, that number hardly grows. Each step takes longer with batch norm, so the saving in time
is smaller than the saving in steps. The benchmark suite, `sweeps.cost`, checks this last claim.

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
        "curve_every",
        5,
        "Steps between two points of the deepest networks' accuracy curves. Each point is a full "
        "evaluation. 0 evaluates after the last step only. It does not affect steps to target.",
        at_least=0,
    )


def trials(values: absl_flags.FlagValues, data: DataSize) -> list[Trial]:
    """One trial for each depth, learning rate, arm and seed. Deepest first."""
    deepest = len(values.hidden_units)
    return [
        flags.trial(
            values,
            data.name,
            hidden_units=values.hidden_units[:depth],
            curve_every=values.curve_every if depth == deepest else 0,
            batch_norm=batch_norm,
            learning_rate=rate,
            seed=seed,
        )
        for depth in range(deepest, 0, -1)
        for batch_norm in flags.arms(values)
        for rate in values.learning_rate
        for seed in range(values.seeds)
    ]


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Draws steps to target by depth, and the deepest networks' accuracy by step and by second."""
    from sweeps.harness import charts
    from sweeps.harness.results.tables import target

    every = tables.trials
    deepest = every[every.depth == every.depth.max()]
    layers = charts.depths(deepest)
    by = ["learning_rate"] if every.learning_rate.nunique() > 1 else []

    def steps(series, ax):
        ax = charts.steps_to_target(series, ax, "depth")
        ax.set_xlabel("hidden layers")
        ax.set_xticks(sorted(every.depth.unique()))
        return ax

    def accuracy(x):
        return {
            title: functools.partial(charts.accuracy, series, tables.curves, x=x)
            for title, series in charts.facets(deepest, by=by).items()
        }

    return [
        charts.save_panels(
            folder / "steps_to_target.png",
            {
                title: functools.partial(steps, series)
                for title, series in charts.facets(every, "depth", by=by).items()
            },
            f"Training steps to {target(every)} test accuracy, by depth",
            charts.settings(every),
            columns=2,
        ),
        charts.save_panels(
            folder / "accuracy_by_step.png",
            accuracy("step"),
            f"Test accuracy of networks with {layers}, by training step",
            charts.settings(deepest),
            columns=2,
        ),
        charts.save_panels(
            folder / "accuracy_by_seconds.png",
            accuracy("seconds"),
            f"Test accuracy of networks with {layers}, by training time",
            charts.settings(deepest),
            columns=2,
        ),
    ]


STUDY = Study(
    name="depth",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("depth", "batch_norm"),
    draw=draw,
    quick={"seeds": 3, "max_steps": 200, "curve_every": 10},
    defaults={"learning_rate": [0.01], "seeds": 10},
    helps={
        "learning_rate": "Learning rates of Adam, separated by commas, with a panel for each. The "
        "default is the published one. It is high on purpose: a high rate makes the effect of "
        "depth visible.",
    },
    captions={
        "steps_to_target.png": (
            "Compare the slopes: how many steps does each added layer cost without batch norm "
            "(orange), and how many with it (blue)?"
        ),
        "accuracy_by_step.png": (
            "Each line is one seed of the deepest networks. See how soon the seeds reach the "
            "target, and how much they differ."
        ),
        "accuracy_by_seconds.png": (
            "The same runs by training time. Each step takes longer with batch norm. Compare with "
            "the chart by steps to see how much smaller the gain in time is."
        ),
    },
    define_flags=define_flags,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
