"""Is it training that is slow, or the moving average? One run, several statistics for inference.

The seven-layer network of the depth study, evaluated every few steps with moving averages of
several momenta, with Keras's 0.99 debiased, with the cumulative average, recalibrated on 10,000
training images, and with the test batch's own statistics. The claims: steps to the target depend on
the momentum more than on the training (Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm");
recalibrated and debiased statistics remove the lag.

The network itself runs with momentum 0, which changes nothing in training and leaves the last
batch's statistics where the recorder finds them; `trials.csv` tells of these, `statistics.csv` of
the others.
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
    from sweeps.harness.data import Dataset
    from sweeps.harness.results.tables import Tables
    from sweeps.harness.trial import Trial


def define_flags(values: absl_flags.FlagValues) -> None:
    """The study's own flag."""
    flags.Definer(values).integer(
        "record_every", 5, "Steps between two evaluations with all statistics.", at_least=1
    )


def trials(values: absl_flags.FlagValues, dataset: Dataset) -> list[Trial]:
    """Each seed."""
    every = min(values.record_every, values.max_steps)
    return [
        flags.trial(
            values,
            dataset.name,
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
    """Median steps to the target of each kind of statistics, as texts."""
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
    """Accuracy by step, a line a kind of statistics."""
    from sweeps.harness import charts

    every = tables.trials
    return [
        charts.save(
            folder / "accuracy_by_step.png",
            lambda ax: charts.statistics(
                tables.recorded["statistics"], ax, every.target_accuracy.iloc[0]
            ),
            "One training, several statistics for inference",
            f"{charts.settings(every.assign(bn_momentum=None))} · lines: medians",
        )
    ]


STUDY = Study(
    name="moving_average",
    question="Is it training that is slow, or the moving average?",
    trials=trials,
    varied=("depth", "batch_norm"),
    draw=draw,
    defaults={"max_steps": 300},
    without=("batch_norm", "bn_momentum", "bn_layer", "eval_every"),
    define_flags=define_flags,
    show=medians,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
