"""How well does a random network classify if only gamma and beta of batch norm train?

Varied: the parameters that train. These are all of them, gamma and beta only, the output layer
only, or as many randomly chosen weights as there are gammas and betas: two for each unit or filter.
All other parameters keep their random initial values. The networks are LeNet and the first three
hidden layers of the depth study, both with batch norm. Where only gamma and beta train, an L2
penalty on gamma is varied, too, because the paper trains with weight decay.

Held equal: the initial weights, with gammas from U(0, 1) and betas 0, Adam at 0.01, batches of 100,
and 600 training steps. As in the paper, the output layer has no batch norm. The paper trains
residual networks on CIFAR-10 and ImageNet with SGD, for 160 and 90 epochs.

Claims: A network in which only gamma and beta train is far better than chance, and better than one
in which as many random weights train. About a third of its gammas end near 0, below 0.01 in size.

Source: J. Frankle, D. J. Schwab & A. S. Morcos, "Training BatchNorm and Only BatchNorm: On the
Expressive Power of Random Features in CNNs" (2021).
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

_LENET = (6, 16, 120, 84)  # filters of the convolutions and units of the hidden dense layers


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags for the networks and for the parameters that train."""
    define = flags.Definer(values)
    define.choice(
        "network",
        ["lenet", "dense"],
        "Networks, separated by commas: LeNet, or dense layers of --hidden_units.",
        choices=["lenet", "dense"],
    )
    define.choice(
        "trained",
        ["all", "batch_norm", "output", "random"],
        "Parameters that train, separated by commas: all, gamma and beta of batch norm, those of "
        "the output layer, or as many random weights as there are gammas and betas.",
        choices=["all", "batch_norm", "output", "random"],
    )
    define.number(
        "gamma_l2",
        [0.0, 0.001],
        "Factors of the squared gammas in the loss, separated by commas. Above 0, only gamma and "
        "beta train.",
        must_be="0 or more",
        check=lambda v: v >= 0,
    )


def trials(values: absl_flags.FlagValues, data: DataSize) -> list[Trial]:
    """One trial per network, set of trained parameters and seed, and those with a penalty."""
    return [
        flags.trial(
            values,
            data.name,
            batch_norm=True,
            bn_logits=False,
            architecture=network,
            hidden_units=_LENET if network == "lenet" else values.hidden_units,
            seed=seed,
            stop_at_target=False,
            steps_per_execution=values.eval_every,
            record=("gammas", "parameters"),
            record_steps=(values.max_steps,),
            program="only_batch_norm",
            options={"trained": trained, "gamma_l2": gamma_l2},
        )
        for network in sorted(values.network, reverse=True)
        for trained in values.trained
        for gamma_l2 in sorted(values.gamma_l2)
        if gamma_l2 == 0 or trained == "batch_norm"
        for seed in range(values.seeds)
    ]


def medians(tables: Tables):
    """Median final accuracy, number of trained parameters and share of gammas near 0, as text."""
    import pandas as pd

    from sweeps.harness.results import intervals
    from sweeps.only_batch_norm import measures

    trials = tables.trials[tables.trials.status != "failed"].set_index("trial_id")
    counts = measures.at_end(tables.recorded["parameters"]).set_index("trial_id").parameters
    shares = measures.near_zero(tables.recorded["gammas"])
    rows = []
    for (network, l2, trained), group in trials.groupby(["architecture", "gamma_l2", "trained"]):
        accuracies = group.final_accuracy.astype(float).fillna(0.0)
        rows.append(
            {
                "network": measures.NETWORKS[network],
                "gamma L2": f"{l2:g}",
                "trained": measures.TRAINED[trained],
                "parameters": f"{counts.reindex(group.index).max():,.0f}",
                "median accuracy": intervals.of_median(accuracies).shown(".1%"),
                "gammas near 0": f"{shares.reindex(group.index).median():.1%}",
            }
        )
    return pd.DataFrame(rows).set_index("network")


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Draws accuracy by the number of trained parameters, and the distribution of the gammas."""
    from sweeps.only_batch_norm import charts

    every, found = tables.trials, tables.recorded
    paths = [charts.accuracy(every, found["parameters"], folder / "accuracy.png")]
    if every.trained.isin(["all", "batch_norm"]).any():
        paths.append(charts.gammas(every, found["gammas"], folder / "gammas.png"))
    return paths


STUDY = Study(
    name="only_batch_norm",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("architecture", "trained", "gamma_l2"),
    draw=draw,
    show=medians,
    quick={"seeds": 2, "max_steps": 200, "network": ["dense"], "hidden_units": "200,100,50"},
    captions={
        "accuracy.png": (
            "Gamma and beta are a tiny part of the network. How much of its accuracy do they reach "
            "alone, and how much do as many random weights reach?"
        ),
        "gammas.png": (
            "The line's height at 0.01 is the share of gammas near 0. Such a gamma switches its "
            "feature off."
        ),
    },
    defaults={
        "hidden_units": "500,400,300",
        "batch_size": 100,
        "eval_every": 50,
        "max_steps": 600,
    },
    without={
        "batch_norm": "all its networks have batch norm, because it trains their gammas and betas.",
        "bn_logits": "as in the paper, the output layer has no batch norm.",
    },
    helps={
        "hidden_units": "Units of the dense network's hidden layers, separated by commas. LeNet "
        "has 6 and 16 filters, and 120 and 84 units.",
        "batch_size": "Examples per training step.",
        "max_steps": "Training steps of a trial. All trials train for that long.",
        "eval_every": "Steps between two checks of the target. All steps between two checks run in "
        "one call of the compiled function.",
    },
    define_flags=define_flags,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
