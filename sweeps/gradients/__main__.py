"""Does batch norm keep gradients level from layer to layer?

Varied: depth, activation (ReLU and sigmoid), with and without batch norm. The networks are those of
the depth study, with 1 to 7 hidden layers, and deeper ones with 20 and 50 hidden layers of 100
units. The deeper ones have equal layers, so every layer changes the gradient in the same way.

Held equal: he_normal kernels, Adam at 0.01, and batches of 500. The norm of the loss's gradient is
recorded at each hidden layer at the start and after 10 and 100 training steps.

Claims: Without batch norm, gradients shrink towards the input, strongly with sigmoids and hardly
with ReLUs. Up to 7 layers, batch norm keeps gradients level. In a deep ReLU network with batch
norm, the squared norm at the start grows by pi / (pi - 1) = 1.47 per layer towards the input, so
networks with 50 or more layers are hard to train.

Sources: S. Ioffe & C. Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing
Internal Covariate Shift" (2015), on level gradients. G. Yang, J. Pennington, V. Rao, J.
Sohl-Dickstein & S. S. Schoenholz, "A Mean Field Theory of Batch Normalization" (2019), on growing
gradients.
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
    """Defines the flags for the recordings and the deeper networks."""
    define = flags.Definer(values)
    define.integer(
        "record_steps",
        [0, 10, 100],
        "Training steps after which gradients are measured, separated by commas. 0 is the start. "
        "Training ends with the last one.",
        at_least=0,
    )
    define.integer(
        "deep",
        [20, 50],
        "Depths of the deeper networks, separated by commas. Their layers are equal, so every "
        "layer changes the gradient in the same way.",
        at_least=1,
    )
    define.integer("width", 100, "Units of each hidden layer of the deeper networks.", at_least=1)


def trials(values: absl_flags.FlagValues, data: DataSize) -> list[Trial]:
    """One trial per network, activation, arm and seed. The deepest networks come first."""
    networks = [(values.width,) * depth for depth in sorted(values.deep, reverse=True)]
    networks += [values.hidden_units[:d] for d in range(len(values.hidden_units), 0, -1)]
    steps = max(*values.record_steps, 1)
    return [
        flags.trial(
            values,
            data.name,
            hidden_units=units,
            activation=activation,
            batch_norm=batch_norm,
            seed=seed,
            max_steps=steps,
            eval_every=steps,
            stop_at_target=False,
            steps_per_execution=10,
            record=("gradients",),
            record_steps=tuple(sorted(set(values.record_steps))),
        )
        for units in networks
        for activation in values.activation
        for batch_norm in flags.arms(values)
        for seed in range(values.seeds)
    ]


def ratios(tables: Tables):
    """Median ratio of the first layer's gradient norm to the last's at the start, as text."""
    import pandas as pd

    from sweeps.harness.results.tables import by_series

    found = tables.recorded["gradients"]
    start = found[found.step == found.groupby("trial_id").step.transform("min")]
    ends = start.sort_values("layer").groupby("trial_id").gradient_norm.agg(["first", "last"])
    ratio = ends["first"] / ends["last"]
    deep = tables.trials[tables.trials.depth > 1]
    medians = {
        (label, "first / last"): group.trial_id.map(ratio).groupby(group.depth).median()
        for label, group in by_series(deep, "depth")
    }
    table = pd.DataFrame(medians).sort_index().astype(float)
    return table.map("{:.3g}".format).replace("nan", "").rename_axis("depth")


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Draws the three deepest networks' gradient norms, with a panel per activation and step."""
    from sweeps.harness import charts

    found, paths = tables.recorded["gradients"], []
    for depth in sorted(tables.trials.depth.unique())[-3:]:
        of_depth = tables.trials[tables.trials.depth == depth]
        of_trials = found[found.trial_id.isin(of_depth.trial_id)]
        panels = {
            f"{title}, step {step}": functools.partial(charts.gradients, series, rows)
            for title, series in charts.facets(of_depth, by=["activation"]).items()
            for step, rows in of_trials.groupby("step")
        }
        paths.append(
            charts.save_panels(
                folder / f"gradients_{depth}_layers.png",
                panels,
                f"Gradient norm by hidden layer, in networks with {charts.depths(of_depth)}",
                charts.settings(of_depth),
                columns=of_trials.step.nunique(),
                share="row",
            )
        )
    return paths


STUDY = Study(
    name="gradients",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("depth", "activation", "batch_norm"),
    draw=draw,
    quick={"seeds": 1, "hidden_units": "100", "deep": [7, 20, 30], "record_steps": [0]},
    captions={
        "gradients_*.png": (
            "A level line means that every layer gets gradients of the same size. A slope means "
            "that gradients shrink or grow from layer to layer."
        ),
    },
    defaults={"activation": ["relu", "sigmoid"]},
    without={
        "max_steps": "training ends with the last of --record_steps.",
        "eval_every": "networks are evaluated once, after the last of --record_steps.",
    },
    define_flags=define_flags,
    show=ratios,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
