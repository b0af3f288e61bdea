"""Does batch norm keep the inputs of deep sigmoids stable while the network trains?

Varied: whether the network has batch norm.

Held equal: three hidden layers of 100 sigmoids, initial weights from N(0, 0.1), SGD at 0.1, batches
of 60, and 5,000 training steps. The paper trains for 50,000 steps, but the effect already shows
within 5,000.

Claims: With batch norm, test accuracy ends higher, and reaches the target sooner. The 15th, 50th
and 85th percentiles of a typical sigmoid's input, in the last hidden layer, drift during training
without batch norm and stay in place with batch norm.

Source: S. Ioffe & C. Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing
Internal Covariate Shift" (2015), section 4.1.
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
    """Defines the flags for the recordings and the initial weights."""
    define = flags.Definer(values)
    define.integer(
        "record_every",
        100,
        "Steps between two recordings of the distributions. Each comes with a full evaluation.",
        at_least=1,
    )
    define.number(
        "kernel_stddev",
        0.1,
        "Standard deviation of the initial weights. Ioffe & Szegedy 2015 say only that the weights "
        "are small.",
        must_be="positive",
        check=lambda v: v > 0,
    )


def trials(values: absl_flags.FlagValues, data: DataSize) -> list[Trial]:
    """One trial per arm and seed."""
    every = min(values.record_every, values.max_steps)
    return [
        flags.trial(
            values,
            data.name,
            batch_norm=batch_norm,
            seed=seed,
            optimizer="sgd",
            curve_every=every,
            stop_at_target=False,
            steps_per_execution=values.eval_every,
            record=("percentiles", "histograms"),
            record_steps=tuple(range(0, values.max_steps + 1, every)),
        )
        for batch_norm in flags.arms(values)
        for seed in range(values.seeds)
    ]


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Draws test accuracy by step, and the percentiles of three sigmoids' inputs in each arm."""
    from sweeps.harness import charts
    from sweeps.harness.results.tables import first_seed

    every = tables.trials
    first = first_seed(every)
    found = tables.recorded["percentiles"]
    panels = {
        f"{label}, unit {unit}": functools.partial(
            charts.percentiles,
            found[found.trial_id.isin(group.trial_id) & (found.unit == unit)],
        )
        for label, group, _ in charts.series(first)
        for unit in (1, 2, 3)
    }
    return [
        charts.save_panels(
            folder / "accuracy_by_step.png",
            {
                title: functools.partial(charts.accuracy, series, tables.curves, x="step")
                for title, series in charts.facets(every).items()
            },
            f"Test accuracy of {_activations(every)} networks with {charts.depths(every)}, by step",
            charts.settings(every),
            columns=2,
        ),
        charts.save_panels(
            folder / "percentiles.png",
            panels,
            "Inputs of three units in the last hidden layer: 15th, 50th and 85th percentiles",
            charts.settings(first),
            columns=3,
        ),
    ]


def _activations(trials):
    return " and ".join(trials.activation.unique())


STUDY = Study(
    name="distribution",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("depth", "batch_norm"),
    draw=draw,
    quick={"seeds": 1, "max_steps": 2000},
    captions={
        "accuracy_by_step.png": "Compare how soon the two arms rise, and where they end.",
        "percentiles.png": (
            "The band holds the middle 70% of a sigmoid's inputs. Does it stay in place during "
            "training, or does it wander?"
        ),
    },
    defaults={
        "activation": "sigmoid",
        "hidden_units": "100,100,100",
        "learning_rate": 0.1,
        "batch_size": 60,
        "max_steps": 5000,
        "eval_every": 20,
        "bn_logits": False,
    },
    helps={
        "learning_rate": "Learning rate of SGD. Ioffe & Szegedy 2015 do not give theirs.",
        "batch_size": "Examples per training step. The default is that of Ioffe & Szegedy 2015.",
        "max_steps": "Budget of a trial in training steps. Ioffe & Szegedy 2015 use 50,000.",
        "bn_logits": "Also apply batch norm to the output layer. Ioffe & Szegedy 2015 apply it to "
        "hidden layers only.",
        "eval_every": "Steps between two checks of the target. All steps between two checks run in "
        "one call of the compiled function.",
    },
    define_flags=define_flags,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
