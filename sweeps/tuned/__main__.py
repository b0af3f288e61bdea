"""How many steps does batch norm save if each network has its own learning rate?

The study has two parts. The selection chooses a learning rate for each depth and arm: it trains
with every rate of --learning_rate, and measures the steps to the target on a validation set. The
report measures the steps to the target on the test set, with new seeds. It does so at the selected
rate and at the published rate, 0.01.

Varied: depth, arm and learning rate. The networks are those of the depth study. The validation set
is a sixth of the training images. It is drawn once, and no network of this study trains on it.

Held constant: as in the depth study, he_normal kernels, Adam and batches of 500. The selection has
a budget of 150 steps and six seeds. The report has a budget of 1,000 steps and ten other seeds.

Claims: With tuned rates, plain networks still need more steps as depth grows, and networks with
batch norm do not. Tuning the plain network's rate also saves most of the steps that batch norm
saves at the published rate. Batch norm widens the range of learning rates that train.

Sources: D. Choi et al., "On Empirical Comparisons of Optimizers for Deep Learning" (2019).
P. T. Sivaprasad et al., "Optimizer Benchmarking Needs to Account for Hyperparameter Tuning" (2020).
J. Bjorck et al., "Understanding Batch Normalization" (2018).
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
    import pandas as pd

    from sweeps.harness.data import DataSize
    from sweeps.harness.results.tables import Tables
    from sweeps.harness.trial import Trial

_VALIDATION_SHARE = 6  # one in six training images is for validation


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags for the selection and for the seeds of the report."""
    define = flags.Definer(values)
    define.integer(
        "report_seeds",
        10,
        "Number of seeds of the report. They follow the seeds of the selection, so they are new.",
        at_least=1,
    )
    define.integer(
        "tuning_steps",
        150,
        "Budget of a trial of the selection, in training steps.",
        at_least=1,
    )
    define.integer(
        "exact_until",
        40,
        "Last step up to which the selection checks the target after every step. Later, it checks "
        "every --eval_every steps.",
        at_least=0,
    )
    define.integer(
        "validation_examples",
        None,
        "Number of training images for validation. Default: a sixth, 10,000 of MNIST.",
        at_least=1,
    )


def trials(values: absl_flags.FlagValues, data: DataSize) -> list[Trial]:
    """The trials of the selection, one per depth, arm, learning rate and seed. Deepest first."""
    if values.eval_every > values.tuning_steps:
        raise UserError(
            f"--eval_every={values.eval_every} is more than --tuning_steps={values.tuning_steps}, "
            "so the target might never be checked. Choose a smaller --eval_every."
        )
    return [
        _trial(values, data, depth, batch_norm, rate, seed, evaluated_on="validation")
        for depth in range(len(values.hidden_units), 0, -1)
        for batch_norm in flags.arms(values)
        for rate in sorted(values.learning_rate)
        for seed in range(values.seeds)
    ]


def follow_up(values: absl_flags.FlagValues, data: DataSize, finished: pd.DataFrame) -> list[Trial]:
    """The trials of the report: at the selected and at the published rate, on the test set."""
    from sweeps.tuned import selection

    grid = trials(values, data)
    networks: dict[tuple[int, bool], set[str]] = {}
    for trial in grid:
        networks.setdefault((trial.depth, trial.batch_norm), set()).add(trial.id)
    present = finished[finished.trial_id.isin([trial.id for trial in grid])]
    ids, selected = set(present.trial_id), selection.rates(present)
    first = values.seeds
    return [
        _trial(values, data, *network, rate, seed, evaluated_on="test")
        for network, needed in networks.items()
        if needed <= ids
        for rate in dict.fromkeys((selected[network], selection.PUBLISHED))
        for seed in range(first, first + values.report_seeds)
    ]


def _trial(values, data, depth, batch_norm, rate, seed, *, evaluated_on):
    selecting = evaluated_on == "validation"
    return flags.trial(
        values,
        data.name,
        hidden_units=values.hidden_units[:depth],
        batch_norm=batch_norm,
        learning_rate=rate,
        seed=seed,
        validation_examples=values.validation_examples or data.train_size // _VALIDATION_SHARE,
        evaluated_on=evaluated_on,
        max_steps=values.tuning_steps if selecting else values.max_steps,
        exact_until=values.exact_until if selecting else 0,
        eval_every=values.eval_every if selecting else 1,
    )


def report(tables: Tables) -> pd.DataFrame:
    """Steps of the report, one row per depth, arm and rate.

    Columns:
        depth: Number of hidden layers.
        batch_norm: Whether the network has batch norm.
        evaluated_on: "test".
        rate: "published" or "tuned".
        learning_rate: The learning rate.
        median_steps: Median steps to the target. A miss counts as infinite.
        low: Lower end of the median's 95% interval.
        high: Upper end of the median's 95% interval.
        reached: Number of seeds that reach the target.
        total: Number of seeds.
    """
    import numpy as np
    import pandas as pd

    from sweeps.harness.results import intervals
    from sweeps.harness.results.tables import with_misses
    from sweeps.tuned import selection

    rows = []
    for rate, trials in selection.reported(tables.trials).items():
        for (depth, batch_norm), group in trials.groupby(selection.NETWORK):
            steps = with_misses(group.steps_to_target)
            found = intervals.of_median(steps)
            rows.append(
                [
                    *(depth, batch_norm, "test", rate, group.learning_rate.iloc[0]),
                    *found[:3],
                    *(int(np.isfinite(steps).sum()), len(steps)),
                ]
            )
    columns = [*selection.NETWORK, "evaluated_on", "rate", "learning_rate", "median_steps"]
    columns += ["low", "high", "reached", "total"]
    return pd.DataFrame(rows, columns=columns).sort_values([*selection.NETWORK, "rate"])


def medians(tables: Tables) -> pd.DataFrame:
    """The table to print, with the selected rates and the steps on the test set by depth.

    Before the report has run, it shows the steps on the validation set instead.
    """
    import pandas as pd

    from sweeps.harness.claims.evidence import in_steps
    from sweeps.harness.trial import arm_name
    from sweeps.tuned import selection

    columns: dict[tuple[str, str], dict[int, str]] = {}
    trials = tables.trials[tables.trials.status != "failed"]
    for (depth, arm), rate in sorted(selection.rates(trials).items(), key=lambda each: each[0][1]):
        network = trials[(trials.depth == depth) & (trials.batch_norm == arm)]
        test = selection.on("test", network)
        steps = {
            f"test steps at {selection.PUBLISHED:g}": selection.PUBLISHED,
            "test steps, tuned": rate,
        }
        columns.setdefault((arm_name(arm), "tuned rate"), {})[depth] = f"{rate:g}"
        for name, of_steps in steps.items() if len(test) else ():
            found = test[test.learning_rate == of_steps]
            shown = in_steps(found) if len(found) else ""
            columns.setdefault((arm_name(arm), name), {})[depth] = shown
        if test.empty:
            shown = in_steps(selection.on("validation", network[network.learning_rate == rate]))
            columns.setdefault((arm_name(arm), "validation steps"), {})[depth] = shown
    return pd.DataFrame(columns).fillna("").rename_axis(index="hidden layers").sort_index()


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Draws the steps by rate, by depth and by tuning budget.

    It also writes the selection, the report and the tuning budgets as tables.
    """
    from sweeps.harness.results.store import write_whole
    from sweeps.tuned import charts, selection

    paths = [charts.steps_by_rate(tables.trials, folder / "steps_by_rate.png")]
    if not selection.rates(tables.trials):
        return paths
    if selection.reported(tables.trials):
        paths.append(charts.steps_by_depth(tables.trials, folder / "steps_by_depth.png"))
    paths.append(charts.steps_by_budget(tables.trials, folder / "steps_by_budget.png"))
    for name, frame in (
        ("selection", selection.table(tables.trials)),
        ("report", report(tables)),
        ("budget", selection.by_budget(tables.trials)),
    ):
        paths.append(folder / f"{name}.csv")
        write_whole(paths[-1], frame.to_csv(index=False).encode())
    return paths


STUDY = Study(
    name="tuned",
    question=__doc__.splitlines()[0],
    trials=trials,
    follow_up=follow_up,
    varied=("evaluated_on", "depth", "batch_norm", "learning_rate"),
    draw=draw,
    show=medians,
    captions={
        "steps_by_depth.png": (
            "Compare the two panels: how much of the distance between the arms is left when each "
            "network has its own learning rate? Vertical bars are 95% intervals of the medians."
        ),
        "steps_by_rate.png": (
            "How wide is the valley of each arm? A ring marks the selected rate. A triangle is a "
            "run that missed the target."
        ),
        "steps_by_budget.png": (
            "How many rates must you try to come close to the best? For each number of rates, the "
            "charts consider all choices of that many rates. Left: the fewest steps of a choice, "
            "as a median over choices. Right: the share of choices that reach the target at all."
        ),
    },
    quick={
        "hidden_units": (300, 200, 100, 50, 25),
        "learning_rate": [0.001, 0.01, 0.1],
        "seeds": 2,
        "report_seeds": 2,
        "tuning_steps": 60,
        "max_steps": 100,
    },
    defaults={
        "learning_rate": [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1],
        "seeds": 6,
        "eval_every": 5,
    },
    helps={
        "learning_rate": "Learning rates of Adam to select from, separated by commas.",
        "seeds": "Number of seeds of the selection, 0 to N-1. The claims need six.",
        "max_steps": "Budget of a trial of the report, in training steps. A trial that needs more "
        "steps counts as a miss.",
        "eval_every": "Steps between two checks of the target in the selection, after the first "
        "--exact_until steps. The report checks it after every step.",
        "target_accuracy": "Accuracy to reach, on the validation set in the selection and on the "
        "test set in the report. Above 0 and at most 1. Default: 0.9, and 0.8 on Fashion-MNIST.",
    },
    define_flags=define_flags,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
