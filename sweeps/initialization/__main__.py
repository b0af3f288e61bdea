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
    define.integer("epochs", 12, "Passes through the 1,800 training points.", at_least=1)
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
    each = range(0, by_epoch["max_steps"] + 1, by_epoch["eval_every"])
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
            record_steps=tuple(each),
            **by_epoch,
        )
        for activation in values.activation
        for batch_norm in flags.arms(values)
        for seed in range(values.seeds)
    ]


def errors_by_epoch(tables: Tables):
    """The mean squared error on the test points after each epoch, with the trial's settings."""
    found = tables.recorded["evaluation"]
    settings = tables.trials[["trial_id", "activation", "batch_norm", "seed"]]
    return found[found.data == "test"].merge(settings, on="trial_id")


def last_errors(tables: Tables):
    """Median and range over seeds of the test error after the last epoch, as text."""
    errors = errors_by_epoch(tables)
    last = errors[errors.step == errors.step.max()]
    table = last.groupby(["activation", "batch_norm"]).loss.agg(["median", "min", "max", "count"])
    table = table.map("{:.4g}".format).reset_index()
    return table.rename(columns={"median": "median test error"})


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Draws test error by epoch, and the first seed's fits and histograms."""
    from sweeps.harness import charts
    from sweeps.harness.results.tables import first_seed

    errors, every = errors_by_epoch(tables), tables.trials
    first = first_seed(every)

    def error(name):
        return lambda ax: charts.errors_by_step(errors[errors.activation == name], ax)

    def fit(name):
        of_name = first[first.activation == name]
        return lambda ax: charts.fits(of_name, tables.recorded["predictions"], ax)

    names = list(every.activation.unique())
    settings = charts.settings(every)
    paths = [
        charts.save_panels(
            folder / "test_error.png",
            {name: error(name) for name in names},
            "Test error of a badly initialized network, by step",
            settings,
            columns=2,
        ),
        charts.save_panels(
            folder / "fit.png",
            {name: fit(name) for name in names},
            "Fits to the test points, seed 0",
            charts.settings(first),
            columns=2,
        ),
    ]
    for name in names:
        of_name = first[first.activation == name]
        histograms = tables.recorded["histograms"].merge(of_name[["trial_id", "batch_norm"]])
        title = f"Distributions inside the {name} network, by layer, seed 0"
        paths.append(
            charts.save_histograms(
                folder / f"histograms_{name}.png", histograms, title, charts.settings(of_name)
            )
        )
    return paths


def animate(tables: Tables, folder: Path) -> list[Path]:
    """Writes a GIF of the first seed's histograms for each activation, one frame per epoch."""
    from sweeps.harness import charts
    from sweeps.harness.results.tables import first_seed

    every = tables.trials
    first = first_seed(every)
    paths = []
    for name, of_name in first.groupby("activation"):
        histograms = tables.recorded["histograms"].merge(of_name[["trial_id", "batch_norm"]])
        path = folder / f"histograms_{name}.gif"
        paths.append(charts.animate_histograms(path, histograms, f"{name}, by layer, seed 0"))
    return paths


STUDY = Study(
    name="initialization",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("activation", "batch_norm"),
    draw=draw,
    captions={
        "fit.png": "The dots are the data. Which networks follow the parabola?",
        "histograms_*.png": "Values piled up at the ends of a panel mean saturated or dead units.",
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
    without=("dataset", "max_steps", "eval_every", "target_accuracy", "bn_logits"),
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
