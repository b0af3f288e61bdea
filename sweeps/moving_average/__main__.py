"""Is the training slow, or only the moving averages that inference uses?

Varied: the statistics that batch norm uses in inference. They are moving averages with several
momenta, a debiased moving average with Keras's momentum of 0.99, the cumulative average, statistics
recalibrated on 10,000 training images, and the test batch's own statistics.

Held equal: the training. Each seed trains the depth study's seven-layer network once, for 300
steps, and every few steps evaluates it with all of these statistics. The layer itself runs with
momentum 0. This leaves the last batch's statistics where the recorder finds them, and does not
affect training, which never uses moving averages. `statistics.csv` has the results of the
statistics compared here. `trials.csv` and `curves.csv` have those of the last batch's statistics.

Claims: Steps to the target depend more on the momentum than on the training. Recalibrated and
debiased statistics remove the lag.

Source: Y. Wu & J. Johnson, 'Rethinking "Batch" in BatchNorm' (2021).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from sweeps.harness.cli import flags
from sweeps.harness.cli.study import Study, main
from sweeps.moving_average.steps import first_steps

if TYPE_CHECKING:
    from sweeps.harness.data import DataSize
    from sweeps.harness.results.tables import Tables
    from sweeps.harness.trial import Trial


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flag for the evaluations."""
    flags.Definer(values).integer(
        "record_every", 5, "Steps between two evaluations with all the statistics.", at_least=1
    )


def trials(values: absl_flags.FlagValues, data: DataSize) -> list[Trial]:
    """One trial per seed."""
    every = min(values.record_every, values.max_steps)
    return [
        flags.trial(
            values,
            data.name,
            batch_norm=True,
            bn_momentum=0.0,
            seed=seed,
            eval_every=every,
            curve_every=every,
            stop_at_target=False,
            record=("statistics",),
            record_steps=tuple(range(every, values.max_steps + 1, every)),
        )
        for seed in range(values.seeds)
    ]


def medians(tables: Tables):
    """Median steps to the target with each kind of statistics, as text."""
    import numpy as np
    import pandas as pd

    from sweeps.harness.results.tables import median, target

    steps = first_steps(tables.recorded["statistics"], tables.trials)
    budget = tables.trials.max_steps.max()
    rows = {
        name: (median(row), f"{np.isfinite(row).sum()}/{len(row)}")
        for name, row in zip(steps.index, steps.to_numpy(float), strict=True)
    }
    column = f"median steps to {target(tables.trials)}"
    return pd.DataFrame(
        {
            "statistics": list(rows),
            column: [
                f"{f'{m:g}' if np.isfinite(m) else f'>{budget}'} ({reached})"
                for m, reached in rows.values()
            ],
        }
    )


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Draws median accuracy by step, with one line per kind of statistics."""
    from sweeps.harness import charts

    every = tables.trials
    return [
        charts.save(
            folder / "accuracy_by_step.png",
            lambda ax: charts.statistics(
                tables.recorded["statistics"], ax, every.target_accuracy.iloc[0]
            ),
            "One training run, several statistics for inference",
            f"{charts.settings(every.assign(bn_momentum=None))} · lines: medians",
        )
    ]


STUDY = Study(
    name="moving_average",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("depth", "batch_norm"),
    draw=draw,
    captions={
        "accuracy_by_step.png": (
            "All lines belong to the same training runs. Only the statistics for inference "
            "differ, so every gap is lag and not slow training."
        ),
    },
    defaults={"max_steps": 300},
    without=("batch_norm", "bn_momentum", "bn_layer", "eval_every"),
    define_flags=define_flags,
    show=medians,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
