"""Can batch norm rescue a badly initialized network?

Varied: the activation (ReLU and tanh), with and without batch norm.

Held equal: the task, the network and the training. The task is to fit 2,000 points of
y = x^2 - 5 + noise. The network has eight hidden layers of ten units. Initial weights are drawn
from N(0, 0.1), too small for this depth, and all biases start at -0.2. Batch norm has momentum 0.5
and comes on the input and after every hidden dense layer. Training takes 12 epochs of Adam at 0.03
with batches of 64.

Claims: With ReLU, the plain network cannot fit the points, and the network with batch norm can.
With tanh, activations of the plain network saturate at both ends, and batch norm prevents this.

Source: M. Zhou (Morvan), "PyTorch-Tutorial" (2017), lesson 504, "Batch Normalization".
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from sweeps.harness.cli import flags
from sweeps.harness.cli.study import Study, main
from sweeps.harness.data import PARABOLA

if TYPE_CHECKING:
    from sweeps.harness.data import DataSize
    from sweeps.harness.results.tables import Tables
    from sweeps.harness.trial import Trial


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags for the data, the number of epochs and the initial values."""
    define = flags.Definer(values)
    define.choice(
        "dataset",
        PARABOLA,
        "Data set. The points are generated from a fixed seed.",
        choices=[PARABOLA],
    )
    flags.define_epochs(values, 12, "Passes through the 1,800 training points.")
    define.number(
        "kernel_stddev",
        0.1,
        "Standard deviation of the initial weights. The default, the tutorial's, is too small for "
        "eight layers.",
        must_be="positive",
        check=lambda v: v > 0,
    )
    define.number(
        "bias",
        -0.2,
        "Initial value of all biases. The default is the tutorial's.",
        must_be="finite",
        check=lambda v: True,
    )


def trials(values: absl_flags.FlagValues, data: DataSize) -> list[Trial]:
    """One trial per activation, arm and seed."""
    by_epoch = flags.by_epoch(values, data.train_size)
    last = by_epoch["max_steps"]
    each = (*range(0, last, by_epoch["eval_every"]), last)
    return [
        flags.trial(
            values,
            data.name,
            architecture="regression",
            activation=activation,
            batch_norm=batch_norm,
            seed=seed,
            bn_logits=False,
            target_accuracy=None,
            record=("evaluation", "predictions", "histograms"),
            record_steps=each,
            **by_epoch,
        )
        for activation in values.activation
        for batch_norm in flags.arms(values)
        for seed in range(values.seeds)
    ]


def test_errors(tables: Tables):
    """The mean squared error on the test points after each epoch."""
    found = tables.recorded["evaluation"]
    return found[found.data == "test"]


def last_errors(tables: Tables):
    """Median and range over seeds of the test error after the last epoch, as text."""
    import pandas as pd

    from sweeps.harness.results.tables import by_series

    last = test_errors(tables).sort_values("step").groupby("trial_id").loss.last()
    rows = []
    for activation, trials in tables.trials.groupby("activation"):
        for label, group in by_series(trials):
            errors = group.trial_id.map(last).dropna()
            numbers = errors.agg(["median", "min", "max", "count"]).map("{:.4g}".format)
            rows.append({"activation": activation, "network": label, **numbers})
    return pd.DataFrame(rows).rename(columns={"median": "median test error", "count": "seeds"})


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Draws test error by epoch, and the first seed's fits and activations."""
    from sweeps.harness import charts
    from sweeps.harness.results.tables import first_seed

    errors, every = test_errors(tables), tables.trials
    first = first_seed(every)
    paths = [
        charts.save_panels(
            folder / "test_error.png",
            {
                title: functools.partial(charts.errors_by_step, series, errors)
                for title, series in charts.facets(every, by=["activation"]).items()
            },
            "Test error of a badly initialized network, by step",
            charts.settings(every),
            columns=2,
        ),
        charts.save_panels(
            folder / "fit.png",
            {
                title: functools.partial(charts.fits, series, tables.recorded["predictions"])
                for title, series in charts.facets(first, by=["activation"]).items()
            },
            f"Fits to the test points, {_seeds(first)}",
            charts.settings(first),
            columns=2,
        ),
    ]
    for name, of_name in first.groupby("activation"):
        paths.append(
            charts.save_distributions(
                folder / f"activations_{name}.png",
                charts.series(of_name),
                _histograms(tables, of_name).query("tensor == 'activation'"),
                f"Activations of the {name} network by hidden layer, {_seeds(of_name)}",
                charts.settings(of_name),
            )
        )
    return paths


def animate(tables: Tables, folder: Path) -> list[Path]:
    """Writes a GIF of the first seed's histograms for each activation, one frame per epoch."""
    from sweeps.harness import charts
    from sweeps.harness.results.tables import first_seed

    return [
        charts.animate_histograms(
            folder / f"histograms_{name}.gif",
            charts.series(of_name),
            _histograms(tables, of_name),
            f"{name}, by layer, {_seeds(of_name)}",
        )
        for name, of_name in first_seed(tables.trials).groupby("activation")
    ]


def _histograms(tables, trials):
    found = tables.recorded["histograms"]
    return found[found.trial_id.isin(trials.trial_id)]


def _seeds(trials):
    return f"seed {' and '.join(map(str, trials.seed.unique()))}"


STUDY = Study(
    name="initialization",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("activation", "batch_norm"),
    draw=draw,
    quick={"seeds": 3, "epochs": 10},
    captions={
        "fit.png": "The dots are the data. Which networks follow the parabola?",
        "activations_*.png": (
            "Dark cells at -1 and 1 are saturated tanh units. A single dark cell is a dead layer."
        ),
        "test_error.png": (
            "The noise in the data alone gives an error of 4. Which networks get close to it?"
        ),
    },
    defaults={
        "activation": ["relu", "tanh"],
        "hidden_units": "10,10,10,10,10,10,10,10",
        "learning_rate": 0.03,
        "batch_size": 64,
        "bn_momentum": 0.5,
    },
    without={
        "eval_every": "networks are evaluated after each of --epochs.",
        "target_accuracy": "its networks fit points, so they have an error and no accuracy.",
        "bn_logits": "as in the tutorial, the output has no batch norm.",
    },
    helps={
        "data_dir": "Ignored. The points are generated.",
        "learning_rate": "Learning rate of Adam. The default is the tutorial's.",
        "batch_size": "Points per training step. The default is the tutorial's.",
        "bn_momentum": "Weight of the old value in batch norm's moving averages, 0 to 1. The "
        "default is the tutorial's.",
    },
    define_flags=define_flags,
    show=last_errors,
    animate=animate,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
