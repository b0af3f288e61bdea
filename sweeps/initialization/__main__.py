"""Does batch norm save a badly initialized network? A parabola, eight layers of ten, small weights.

After S. Morvan's regression tutorial: 2,000 points of y = x^2 - 5 + noise, weights N(0, 0.1), all
biases -0.2, tanh or ReLU, Adam at 0.03, batch 64, 12 epochs; batch norm of momentum 0.5 on the
input and after every hidden dense layer. The claims: with ReLU and this initialization the plain
network cannot fit, with batch norm it can; with tanh the plain activations saturate at both ends,
and batch norm keeps them inside.
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
    from sweeps.harness.data import Dataset
    from sweeps.harness.results.tables import Tables
    from sweeps.harness.trial import Trial


def define_flags(values: absl_flags.FlagValues) -> None:
    """The study's own flags."""
    define = flags.Definer(values)
    define.choice("dataset", PARABOLA, "The points are made from a fixed seed.", choices=[PARABOLA])
    define.integer("epochs", 12, "Passes through the 1,800 training points.", at_least=1)
    define.number(
        "kernel_stddev",
        0.1,
        "Standard deviation of the initial weights. The tutorial's value is too small for eight "
        "layers.",
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


def trials(values: absl_flags.FlagValues, dataset: Dataset) -> list[Trial]:
    """Each activation, each arm, each seed."""
    by_epoch = flags.by_epoch(values, len(dataset.y_train))
    each = range(0, by_epoch["max_steps"] + 1, by_epoch["eval_every"])
    return [
        flags.trial(
            values,
            dataset.name,
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
    """Mean squared error on the test points after each epoch, beside the trial's settings."""
    found = tables.recorded["evaluation"]
    settings = tables.trials[["trial_id", "activation", "batch_norm", "seed"]]
    return found[found.data == "test"].merge(settings, on="trial_id")


def last_errors(tables: Tables):
    """The test error after the last epoch, median and range over seeds, as texts."""
    errors = errors_by_epoch(tables)
    last = errors[errors.step == errors.step.max()]
    table = last.groupby(["activation", "batch_norm"]).loss.agg(["median", "min", "max", "count"])
    table = table.map("{:.4g}".format).reset_index()
    return table.rename(columns={"median": "median test error"})


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Test error by epoch; the first seed's fits, and its histograms at the start and the end."""
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
            "Test error of eight narrow layers with small weights",
            settings,
            columns=2,
        ),
        charts.save_panels(
            folder / "fit.png",
            {name: fit(name) for name in names},
            "What was fitted to the points, seed 0",
            charts.settings(first),
            columns=2,
        ),
    ]
    for name in names:
        of_name = first[first.activation == name]
        histograms = tables.recorded["histograms"].merge(of_name[["trial_id", "batch_norm"]])
        title = f"Inside the network with {name}, layer by layer, seed 0"
        paths.append(
            charts.save_histograms(
                folder / f"histograms_{name}.png", histograms, title, charts.settings(of_name)
            )
        )
    return paths


def animate(tables: Tables, folder: Path) -> list[Path]:
    """A GIF for each activation: the first seed's histograms, a frame an epoch."""
    from sweeps.harness import charts
    from sweeps.harness.results.tables import first_seed

    every = tables.trials
    first = first_seed(every)
    paths = []
    for name, of_name in first.groupby("activation"):
        histograms = tables.recorded["histograms"].merge(of_name[["trial_id", "batch_norm"]])
        path = folder / f"histograms_{name}.gif"
        paths.append(charts.animate_histograms(path, histograms, f"{name}, layer by layer, seed 0"))
    return paths


STUDY = Study(
    name="initialization",
    question="Does batch norm save a badly initialized network?",
    trials=trials,
    varied=("activation", "batch_norm"),
    draw=draw,
    defaults={
        "activation": ["relu", "tanh"],
        "hidden_units": "10,10,10,10,10,10,10,10",
        "learning_rate": 0.03,
        "batch_size": 64,
        "bn_momentum": 0.5,
    },
    without=("dataset", "max_steps", "eval_every", "target_accuracy", "bn_logits"),
    helps={
        "data_dir": "Not used: the points are made.",
        "learning_rate": "Of Adam; the source's.",
        "batch_size": "Points a training step; the source's.",
        "bn_momentum": "Weight of the old average in batch norm's moving averages; the source's.",
    },
    define_flags=define_flags,
    show=last_errors,
    animate=animate,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
