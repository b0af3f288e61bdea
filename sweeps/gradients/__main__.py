"""Does batch norm keep gradients level? Their norm at each hidden layer, for 1 to 50 layers.

Networks of the depth study's first 1 to 7 layers, and deeper ones of equal layers of 100, at the
start and after 10 and 100 training steps. The claims: without batch norm gradients shrink towards
the input (sigmoids' strongly, those of ReLUs with he_normal hardly), and it keeps them level at
these depths; in a deep ReLU network with it, the squared norm grows at the start by
pi / (pi - 1) = 1.47 a layer towards the input (Yang et al. 2019, "A Mean Field Theory of Batch
Normalization"), so that networks of 50 layers and more are hard to train.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from sweeps.harness.cli import flags
from sweeps.harness.cli.study import Study, main
from sweeps.harness.trial import arm_name

if TYPE_CHECKING:
    from sweeps.harness.data import Dataset
    from sweeps.harness.results.tables import Tables
    from sweeps.harness.trial import Trial


def define_flags(values: absl_flags.FlagValues) -> None:
    """The study's own flags."""
    define = flags.Definer(values)
    define.integer(
        "record_steps",
        [0, 10, 100],
        "Steps after which gradients are measured, separated by commas. 0 is the start. Training "
        "ends with the last one.",
        at_least=0,
    )
    define.integer(
        "deep",
        [20, 50],
        "Depths of the deeper networks, separated by commas. Their layers have equal widths, so "
        "that every layer does the same to the gradient.",
        at_least=1,
    )
    define.integer("width", 100, "Units of each hidden layer of the deeper networks.", at_least=1)


def trials(values: absl_flags.FlagValues, dataset: Dataset) -> list[Trial]:
    """Each network, activation, arm and seed; the deepest first."""
    networks = [(values.width,) * depth for depth in sorted(values.deep, reverse=True)]
    networks += [values.hidden_units[:d] for d in range(len(values.hidden_units), 0, -1)]
    steps = max(*values.record_steps, 1)
    return [
        flags.trial(
            values,
            dataset.name,
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


def norms(tables: Tables):
    """The recorded gradients, beside the settings of their trials."""
    settings = ["trial_id", "depth", "hidden_units", "activation", "batch_norm", "seed"]
    return tables.recorded["gradients"].merge(tables.trials[settings], on="trial_id")


def ratios(tables: Tables):
    """The median over seeds of the first layer's norm over the last's, at the start, as texts."""
    frame = norms(tables)
    frame = frame[(frame.step == frame.step.min()) & (frame.depth > 1)]
    keys = ["depth", "activation", "batch_norm", "seed"]
    ends = frame.sort_values("layer").groupby(keys).gradient_norm.agg(["first", "last"])
    ratio = (ends["first"] / ends["last"]).groupby(keys[:3]).median().unstack([1, 2])
    ratio.columns = [f"{name}, {arm_name(arm)}: first / last layer" for name, arm in ratio.columns]
    return ratio.map("{:.3g}".format).reset_index()


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Gradient norm by layer, a panel for each activation and step, of the three deepest."""
    from sweeps.harness import charts

    frame, paths = norms(tables), []
    for depth in sorted(frame.depth.unique())[-3:]:
        of_depth = frame[frame.depth == depth]
        panels = {
            f"{name}, step {step}": functools.partial(charts.gradients, rows)
            for (name, step), rows in of_depth.groupby(["activation", "step"])
        }
        paths.append(
            charts.save_panels(
                folder / f"gradients_{depth}_layers.png",
                panels,
                f"How the loss depends on each of {depth} hidden layers",
                charts.settings(tables.trials[tables.trials.depth == depth]),
                columns=of_depth.step.nunique(),
            )
        )
    return paths


STUDY = Study(
    name="gradients",
    question="Does batch norm keep gradients level from layer to layer?",
    trials=trials,
    varied=("depth", "activation", "batch_norm"),
    draw=draw,
    defaults={"activation": ["relu", "sigmoid"]},
    without=("max_steps", "eval_every"),
    define_flags=define_flags,
    show=ratios,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
