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

import functools
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

    from sweeps.harness.results.tables import by_series, median, target

    found = by_series(tables.trials)
    columns = {}
    for label, trials in found:
        budget = trials.max_steps.max()
        steps = first_steps(tables.recorded["statistics"], trials)
        column = f"median steps to {target(trials)}"
        columns[column if len(found) == 1 else f"{column}, {label}"] = {
            name: f"{_steps(median(row), budget)} ({np.isfinite(row).sum()}/{len(row)})"
            for name, row in zip(steps.index, steps.to_numpy(float), strict=True)
        }
    return pd.DataFrame(columns).fillna("").rename_axis("statistics").reset_index()


def _steps(steps, budget):
    return f"{steps:g}" if steps <= budget else f">{budget}"


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Draws median accuracy by step, with one line per kind of statistics.

    Every setting has its panel.
    """
    from sweeps.harness import charts

    every, found = tables.trials, tables.recorded["statistics"]
    series = charts.series(every)
    panels = {
        label if len(series) > 1 else "": functools.partial(
            charts.statistics,
            found[found.trial_id.isin(trials.trial_id)],
            target=trials.target_accuracy.iloc[0],
        )
        for label, trials, _ in series
    }
    return [
        charts.save_panels(
            folder / "accuracy_by_step.png",
            panels,
            "Test accuracy of one training run with several inference statistics",
            f"{charts.settings(every.assign(bn_momentum=None))} · lines: medians",
            columns=2,
        )
    ]


STUDY = Study(
    name="moving_average",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("depth", "batch_norm"),
    draw=draw,
    quick={"seeds": 2, "max_steps": 150, "record_every": 10},
    captions={
        "accuracy_by_step.png": (
            "All lines belong to the same training runs. Only the statistics for inference "
            "differ, so every gap is lag and not slow training."
        ),
    },
    defaults={"max_steps": 300},
    without={
        "batch_norm": "all its networks have batch norm, because it compares the statistics that "
        "batch norm uses in inference.",
        "bn_momentum": "it compares moving averages of several momenta in each network.",
        "bn_layer": "it computes its averages with the arithmetic of kerasbn.BatchNorm.",
        "eval_every": "use --record_every, the steps between two evaluations with all statistics.",
    },
    define_flags=define_flags,
    show=medians,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
