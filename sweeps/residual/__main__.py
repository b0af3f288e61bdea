"""Why does batch norm train deep residual networks, and does it take batch norm?

Varied: the branches of the residual blocks. They are plain, have batch norm, or have SkipInit: a
trainable scalar, initially 0, that multiplies the output of the branch. A block adds its branch to
its input. A branch is [batch norm] -> ReLU -> Dense -> [scalar].

The study has two parts. The first one varies the number of blocks from 10 to 200, and the learning
rate. It also records the variances in each block at initialization. The second part compares batch
norm with SkipInit at several batch sizes and at many learning rates.

Held constant: a width of 64, he_normal kernels and SGD without momentum. In the first part, batches
of 128 and 200 steps. In the second part, 20 blocks and the number of training images that each
network sees, 25,600.

Claims: At initialization, batch norm makes the branch's share of the variance at block l about
1 / (l + 1), so deep blocks are near the identity. Without batch norm, deep residual networks fail
to train, and with SkipInit they train as with batch norm. The advantage of batch norm in usable
learning rates appears at large batches and not at small ones.

Source: S. De & S. L. Smith, "Batch Normalization Biases Residual Blocks Towards the Identity
Function in Deep Networks" (2020). They train Wide-ResNets with up to 1,000 layers on CIFAR-10.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from sweeps.harness.cli import flags
from sweeps.harness.cli.study import Study, main

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.harness.data import DataSize
    from sweeps.harness.results.tables import Tables
    from sweeps.harness.trial import Trial

_STEPS_AT_ONCE = 50
_RATES = [0.015625, 0.03125, 0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0]


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags for the networks and for the second part."""
    define = flags.Definer(values)
    define.integers("blocks", "10,30,100,200", "Numbers of blocks of the first part.")
    define.integer("width", 64, "Units of every block.", at_least=1)
    define.integer("batch_blocks", 20, "Number of blocks of the second part.", at_least=1)
    define.integers("batch_sizes", "8,128,1024", "Batch sizes of the second part.")
    define.number(
        "batch_rates",
        _RATES,
        "Learning rates of the second part, separated by commas.",
        must_be="positive",
        check=lambda v: v > 0,
    )
    define.integer(
        "examples",
        25_600,
        "Number of training images that each network of the second part sees.",
        at_least=1,
    )


def trials(values: absl_flags.FlagValues, data: DataSize) -> list[Trial]:
    """The trials of both parts, the deepest networks first."""
    return [*_by_depth(values, data), *_by_batch(values, data)]


def _by_depth(values, data):
    """The first part: one trial per number of blocks, branch, learning rate and seed."""
    return [
        _trial(
            values,
            data,
            branch,
            seed,
            part="depth",
            blocks=blocks,
            learning_rate=rate,
            steps=values.max_steps,
            record=("branches",),
            record_steps=(0,),
        )
        for blocks in sorted(values.blocks, reverse=True)
        for branch in _branches(values, "batch_norm", "skip_init", "plain")
        for rate in sorted(values.learning_rate)
        for seed in range(values.seeds)
    ]


def _by_batch(values, data):
    """The second part: one trial per batch size, branch, learning rate and seed."""
    return [
        _trial(
            values,
            data,
            branch,
            seed,
            part="batch size",
            blocks=values.batch_blocks,
            learning_rate=rate,
            steps=max(values.examples // size, 1),
            batch_size=size,
        )
        for size in sorted(values.batch_sizes)
        for branch in _branches(values, "batch_norm", "skip_init")
        for rate in sorted(values.batch_rates)
        for seed in range(values.seeds)
    ]


def _branches(values, *kinds):
    return [kind for kind in kinds if (kind == "batch_norm") in flags.arms(values)]


def _trial(values, data, branch, seed, *, part, blocks, steps, **changes):
    return flags.trial(
        values,
        data.name,
        hidden_units=(values.width,) * blocks,
        batch_norm=branch == "batch_norm",
        bn_logits=False,
        seed=seed,
        optimizer="sgd",
        max_steps=steps,
        eval_every=steps,
        stop_at_target=False,
        steps_per_execution=_STEPS_AT_ONCE,
        program="residual",
        options={"branch": branch, "part": part},
        **changes,
    )


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Draws the branches' shares of the variance, and accuracies by depth and by rate."""
    from sweeps.residual import charts

    return [
        *charts.shares(tables, folder / "branch_share.png"),
        *charts.by_depth(tables.trials, folder / "accuracy_by_depth.png"),
        *charts.by_rate(tables.trials, folder / "accuracy_by_rate.png"),
    ]


def best(tables: Tables) -> pd.DataFrame:
    """The table to print: the best learning rate, and the median accuracy there in percent."""
    import pandas as pd

    from sweeps.residual import measures

    rows = []
    for (part, depth, size), point in tables.trials.groupby(["part", "depth", "batch_size"]):
        row = {"part": part, "blocks": depth, "batch": size}
        for branch, trials in measures.by_branch(point).items():
            rate = measures.best_rate(trials)
            accuracy = measures.accuracies(trials[trials.learning_rate == rate]).median()
            row[measures.NAMES[branch]] = f"{100 * accuracy:.1f} at {rate:g}"
        rows.append(row)
    frame = pd.DataFrame(rows).fillna("").sort_values(["part", "blocks", "batch"])
    return frame.sort_values("part", ascending=False, kind="stable")


STUDY = Study(
    name="residual",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("part", "depth", "branch", "batch_size", "learning_rate"),
    draw=draw,
    show=best,
    captions={
        "branch_share.png": (
            "Does the share follow the dashed line, 1 / (l + 1)? Deep blocks of a network with "
            "batch norm are then near the identity. Those of a plain network are not."
        ),
        "accuracy_by_depth.png": (
            "At how many blocks does each network fail? Each point is at its best learning rate."
        ),
        "accuracy_by_rate.png": (
            "How far to the right does each line reach, and where is its maximum (ring)? Compare "
            "small and large batches."
        ),
    },
    quick={
        "seeds": 1,
        "blocks": (10, 30),
        "learning_rate": [0.01, 0.1, 1.0],
        "max_steps": 100,
        "batch_blocks": 10,
        "batch_sizes": (32, 512),
        "batch_rates": [0.0625, 0.25, 1.0, 4.0],
        "examples": 12_800,
    },
    defaults={
        "learning_rate": [0.001, 0.01, 0.03, 0.1, 0.3, 1.0],
        "batch_size": 128,
        "max_steps": 200,
    },
    without={
        "hidden_units": "use --blocks and --width.",
        "eval_every": "networks are evaluated after their last step.",
        "bn_logits": "the output layer has no batch norm.",
    },
    helps={
        "batch_norm": "Run only the networks with batch norm (--batch_norm), or only those without "
        "it (--nobatch_norm). Default: both. Tables and charts show all finished trials.",
        "activation": "Activation of the branches.",
        "learning_rate": "Learning rates of SGD in the first part, separated by commas.",
        "batch_size": "Examples per training step in the first part.",
        "max_steps": "Number of training steps in the first part.",
        "target_accuracy": "Accuracy on the test set that counts as the target in trials.csv. "
        "Above 0 and at most 1. Default: 0.9, and 0.8 on Fashion-MNIST.",
    },
    define_flags=define_flags,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
