"""Does batch norm help because distributions stay put, or because the loss gets smoother?

Varied: whether the network has batch norm, and whether noise shifts and scales the input of each
hidden activation. The noise comes after batch norm, if there is any, and its distribution changes
with every step. So it undoes what batch norm does for the stability of distributions.

Held equal: the seven hidden layers of the depth study, SGD at 0.1, batches of 500, and 250 training
steps. As in the paper, the output layer has neither batch norm nor noise. The paper trains a VGG
network on CIFAR-10.

Claims: With noise, the distributions in a network with batch norm are less stable than those of the
plain network. The network still trains about as fast as without noise, while the same noise stops
the plain network. Batch norm makes the loss smoother: along the gradient, the loss varies less, and
so does the gradient.

Source: S. Santurkar, D. Tsipras, A. Ilyas & A. Madry, "How Does Batch Normalization Help
Optimization?" (2018). The noise is that of algorithm 1 in its appendix.
"""

from __future__ import annotations

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
    """Defines the flags for the noise and the recordings."""
    define = flags.Definer(values)
    define.number(
        "noise",
        [0.0, 1.0],
        "Strengths of the noise, separated by commas. 0 is no noise, and 1 is the noise of "
        "Santurkar et al. 2018.",
        must_be="0 or more",
        check=lambda v: v >= 0,
    )
    define.integer(
        "record_every",
        25,
        "Steps between two recordings of distributions and of the loss along the gradient. Each "
        "is repeated after the next step.",
        at_least=1,
    )


def trials(values: absl_flags.FlagValues, data: DataSize) -> list[Trial]:
    """One trial per strength of the noise, arm and seed."""
    every = min(values.record_every, values.max_steps)
    recordings = set(range(0, values.max_steps + 1, every))
    recordings |= set(range(1, values.max_steps + 1, every))  # so that changes per step show
    return [
        flags.trial(
            values,
            data.name,
            batch_norm=batch_norm,
            bn_logits=False,
            seed=seed,
            optimizer="sgd",
            curve_every=every,
            stop_at_target=False,
            record=("percentiles", "landscape", *(["recalibrated"] if batch_norm else [])),
            record_steps=tuple(sorted(recordings)),
            program="noise",
            options={"noise": noise},
        )
        for noise in sorted(values.noise, reverse=True)
        for batch_norm in flags.arms(values)
        for seed in range(values.seeds)
    ]


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Draws the steps to the target, the loss along the gradient, and the percentiles."""
    from sweeps.noise import charts

    every, found = tables.trials, tables.recorded
    return [
        charts.steps_to_target(every, folder / "steps_to_target.png"),
        charts.landscape(every, found["landscape"], folder / "landscape.png"),
        charts.percentiles(every, found["percentiles"], folder / "percentiles.png"),
    ]


STUDY = Study(
    name="noise",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("noise", "batch_norm"),
    draw=draw,
    quick={"seeds": 1, "max_steps": 150, "hidden_units": "300,200,100,50,25"},
    captions={
        "steps_to_target.png": (
            "How much does the noise slow each network? Vertical bars are 95% intervals of the "
            "medians."
        ),
        "landscape.png": (
            "From the weights of a step, take steps of several lengths along the gradient. How far "
            "apart are the losses that you meet, and how much does the gradient change?"
        ),
        "percentiles.png": (
            "The band holds the middle 70% of a unit's inputs. Compare how much it moves in the "
            "plain network and in the one with batch norm and noise."
        ),
    },
    defaults={"learning_rate": 0.1, "max_steps": 250},
    without={
        "bn_logits": "as in the paper, the output layer has neither batch norm nor noise.",
    },
    helps={
        "learning_rate": "Learning rate of SGD. The default is that of Santurkar et al. 2018.",
    },
    define_flags=define_flags,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
