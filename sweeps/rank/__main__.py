"""Does batch norm keep the rank of deep random networks from collapsing?

Varied: the width, the activation (none and ReLU), with and without batch norm.

Held equal: 100 layers at initialization, without training. Each layer is dense -> [batch norm] ->
activation, with normally distributed kernels, no biases, and batch norm in training mode. Each seed
draws its kernels and 512 training images, the same images for every network. The rank of a layer is
that of the matrix of its outputs, images by units. It has two definitions here, and they give
different answers. One is the number of singular values above 1% of the largest one. The other is
the stable rank: the sum of the squared singular values, divided by the largest of them.

Claim: Without batch norm, the rank collapses towards 1 with depth. With batch norm, it grows with
the width at least as fast as the square root of the width.

Source: H. Daneshmand, J. Kohler, F. Bach, T. Hofmann & A. Lucchi, "Batch Normalization Provably
Avoids Rank Collapse for Randomly Initialised Deep Networks" (2020).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from sweeps.harness.cli import flags
from sweeps.harness.cli.study import Study, main
from sweeps.harness.errors import UserError

if TYPE_CHECKING:
    from sweeps.harness.data import DataSize
    from sweeps.harness.results.tables import Tables
    from sweeps.harness.trial import Trial

_NO_TRAINING = "it measures random networks and trains nothing."


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags for the networks."""
    define = flags.Definer(values)
    define.integer(
        "width",
        [32, 64, 128, 256, 512],
        "Units of each layer, separated by commas. A network has equal layers.",
        at_least=1,
    )
    define.integer("layers", 100, "Number of layers of each network.", at_least=1)
    define.integer(
        "measure_every",
        5,
        "Layers between two measurements. The images, the first layer and the last one are "
        "measured, too.",
        at_least=1,
    )


def trials(values: absl_flags.FlagValues, data: DataSize) -> list[Trial]:
    """One trial per width, activation, arm and seed. The widest networks come first."""
    if values.batch_size < max(values.width):
        raise UserError(
            f"--batch_size={values.batch_size} is less than the largest --width of "
            f"{max(values.width)}. The rank is at most the number of images, so it could not grow "
            "with the width. Choose at least as many images."
        )
    return [
        flags.trial(
            values,
            data.name,
            hidden_units=(width,) * values.layers,
            activation=activation,
            batch_norm=batch_norm,
            bn_momentum=None,
            bn_logits=None,
            learning_rate=0.0,
            max_steps=0,
            eval_every=0,
            target_accuracy=None,
            seed=seed,
            program="rank",
            options={"width": width, "measure_every": values.measure_every},
        )
        for width in sorted(values.width, reverse=True)
        for activation in values.activation
        for batch_norm in flags.arms(values)
        for seed in range(values.seeds)
    ]


def last_ranks(tables: Tables):
    """Median ranks of the last layer, one row per width."""
    import pandas as pd

    from sweeps.harness.results.tables import by_series

    found = tables.recorded["ranks"]
    last = found[found.layer == found.groupby("trial_id").layer.transform("max")]
    last = last.set_index("trial_id")
    columns = {}
    for label, trials in by_series(tables.trials, "width", "hidden_units"):
        for name, form in (("rank", "{:g}"), ("stable_rank", "{:.1f}")):
            medians = trials.trial_id.map(last[name]).groupby(trials.width).median()
            columns[label, name.replace("_", " ")] = medians.map(form.format)
    return pd.DataFrame(columns).fillna("").rename_axis("width")


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Draws both ranks by layer in the middle width, and by width in the last layer."""
    from sweeps.rank import chart

    return [
        chart.ranks_by_layer(tables, folder / "rank_by_layer.png"),
        chart.ranks_by_width(tables, folder / "rank_by_width.png"),
    ]


STUDY = Study(
    name="rank",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("width", "activation", "batch_norm"),
    draw=draw,
    quick={"seeds": 2, "width": [32, 64, 128], "batch_size": 128},
    captions={
        "rank_by_layer.png": (
            "Batch norm keeps the rank well above that of plain networks. For ReLU, the stable "
            "rank hardly shows it: one direction dominates in both arms."
        ),
        "rank_by_width.png": (
            "Compare the slopes with that of the square root. Plain networks gain rank with the "
            "width, too, because wider networks collapse more slowly."
        ),
    },
    defaults={"activation": ["linear", "relu"], "batch_size": 512},
    without={
        "hidden_units": "use --width and --layers.",
        "learning_rate": _NO_TRAINING,
        "max_steps": _NO_TRAINING,
        "eval_every": _NO_TRAINING,
        "target_accuracy": _NO_TRAINING,
        "bn_momentum": "batch norm is in training mode, which uses no moving averages.",
        "bn_logits": "its networks have no output layer.",
        "bn_layer": "it measures kerasbn.BatchNorm.",
        "jit_compile": _NO_TRAINING,
        "save_models": _NO_TRAINING,
    },
    helps={
        "activation": "Activations, separated by commas. linear means none.",
        "batch_size": "Number of images, at least the largest --width.",
    },
    define_flags=define_flags,
    show=last_ranks,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
