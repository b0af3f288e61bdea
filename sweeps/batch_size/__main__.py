"""How small may a mini-batch be, with each kind of normalization?

Varied: the batch size, from 500 down to 1, and the normalization: none, batch norm, Batch
Renormalization, batch norm with ghost batches, and Keras's GroupNormalization.

Held equal: the depth study's network with three hidden layers, Adam, and the number of training
examples that each network sees. The learning rate is 0.01 at batch size 500 and scales with the
square root of the batch size, because a constant rate would be too high for the smallest batches.
The moving averages look back on the same number of examples at every batch size, because their
momentum is raised to the power of batch size / 500. The output layer is not normalized, because
GroupNormalization cannot divide its ten units into the same groups.

A second comparison trains for ten epochs: with the largest batch size, with the same batches
divided into ghost batches of 32, and with a batch size of 32. It measures test and training error.

Claims: At batch size 1, the output of batch norm is beta for every input, so nothing is learned.
Batch norm gets worse as the batch shrinks, and group normalization does not. Batch Renormalization
recovers part of the lost accuracy. Large batches generalize worse than small ones, and ghost
batches close a part of that gap.

Sources: S. Ioffe, "Batch Renormalization: Towards Reducing Minibatch Dependence in Batch-Normalized
Models" (2017). E. Hoffer, I. Hubara & D. Soudry, "Train longer, generalize better: closing the
generalization gap in large batch training of neural networks" (2017), on ghost batches. Y. Wu &
K. He, "Group Normalization" (2018). S. Malladi, K. Lyu, A. Panigrahi & S. Arora, "On the SDEs and
Scaling Rules for Adaptive Gradient Algorithms" (2022), on the learning rate.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from sweeps.batch_size.kinds import of_large_batches
from sweeps.harness.cli import flags
from sweeps.harness.cli.study import Study, main
from sweeps.harness.errors import UserError

if TYPE_CHECKING:
    from sweeps.harness.data import DataSize
    from sweeps.harness.results.tables import Tables
    from sweeps.harness.trial import Trial

_REFERENCE = 500  # batch size at which --learning_rate and --bn_momentum apply unchanged
_STEPS_AT_ONCE = 100
_SMALL = 32  # batch size, and size of ghost batches, that large batches are compared with


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags for the examples and for the kinds of normalization."""
    define = flags.Definer(values)
    define.integer(
        "examples",
        20_000,
        "Number of training examples that each network sees. At batch size 1, each example is a "
        "step, so most of the study's time is for batch size 1. A full epoch is 60,000 examples.",
        at_least=1,
    )
    define.integer(
        "bn_virtual_batch_size",
        16,
        "Examples per ghost batch. Only larger batches are divided into ghost batches.",
        at_least=2,
    )
    define.integer(
        "group_norm",
        20,
        "Number of groups in GroupNormalization. It must divide the number of units of every "
        "layer. 20 makes groups of 25, 20 and 15 units.",
        at_least=1,
    )
    define.integer(
        "gap_epochs",
        10,
        f"Number of epochs of the comparison of large batches with ghost batches of {_SMALL}. 0 "
        "leaves the comparison out.",
        at_least=0,
    )
    define.switch(
        "scale_learning_rate",
        True,
        "Scale the learning rate for Adam: multiply it by the square root of batch size / "
        f"{_REFERENCE}.",
    )


def trials(values: absl_flags.FlagValues, data: DataSize) -> list[Trial]:
    """One trial per batch size, normalization and seed. The smallest batches come first."""
    return _small_batches(values, data) + _large_batches(values, data)


def _small_batches(values, data):
    """Every kind of normalization at every batch size, on the same number of examples."""
    if any(units % values.group_norm for units in values.hidden_units):
        raise UserError(
            f"--group_norm={values.group_norm} does not divide the units of every hidden layer, "
            f"{','.join(map(str, values.hidden_units))}. Choose a common divisor."
        )
    kinds = [{"batch_norm": False}, {"batch_norm": False, "group_norm": values.group_norm}]
    kinds = [kind for kind in kinds if False in flags.arms(values)]
    if True in flags.arms(values):
        kinds += [{"batch_norm": True}, {"batch_norm": True, "bn_renorm": True}]
        kinds += [{"batch_norm": True, "bn_virtual_batch_size": values.bn_virtual_batch_size}]
    return [
        _trial(values, data, kind, size, seed, max(values.examples // size, 1))
        for size in sorted(values.batch_size)
        for kind in kinds
        if kind.get("bn_virtual_batch_size", 0) < size
        for seed in range(values.seeds)
    ]


def _large_batches(values, data):
    """The largest batches, whole and in ghost batches, and small batches, for some epochs."""
    large = max(values.batch_size)
    if not values.gap_epochs or True not in flags.arms(values) or large <= _SMALL:
        return []
    kinds = [(_SMALL, None), (large, None), (large, _SMALL)]
    steps = {size: values.gap_epochs * max(data.train_size // size, 1) for size in (_SMALL, large)}
    return [
        _trial(
            values,
            data,
            {"batch_norm": True, "bn_virtual_batch_size": ghosts},
            size,
            seed,
            steps[size],
            record=("evaluation",),
            record_steps=(steps[size],),
        )
        for size, ghosts in kinds
        for seed in range(values.seeds)
    ]


def _trial(values, data, kind, size, seed, steps, **more):
    """A trial that is evaluated after its last step, with rate and momentum for its batch size."""
    share = size / _REFERENCE
    scale = share**0.5 if values.scale_learning_rate else 1.0
    return flags.trial(
        values,
        data.name,
        **{"group_norm": None, "bn_virtual_batch_size": None, **kind},
        seed=seed,
        batch_size=size,
        max_steps=steps,
        learning_rate=values.learning_rate * scale,
        bn_momentum=values.bn_momentum**share,
        eval_every=steps,
        stop_at_target=False,
        steps_per_execution=_STEPS_AT_ONCE,
        **more,
    )


def at_reference(trials):
    """The trials with settings that are the same at every batch size, for comparison.

    Learning rate and momentum become those at the reference batch size, if that leaves fewer of
    them. The number of examples replaces the budget in steps.
    """
    share = trials.batch_size / _REFERENCE
    found = trials.assign(train_examples=_examples(trials), max_steps=0, eval_every=0)
    for name, values in (
        ("learning_rate", trials.learning_rate / share**0.5),
        ("bn_momentum", trials.bn_momentum ** (1 / share)),
    ):
        values = values.map("{:.6g}".format).astype(float)
        if values.nunique() < trials[name].nunique():
            found[name] = values
    return found


def _same_examples(tables):
    """The trials of the first comparison, in which all batch sizes see the same examples."""
    return at_reference(tables.trials[~of_large_batches(tables.trials)])


def _examples(trials):
    """The number of examples that a trial sees, before whole batches are made of it."""
    seen = set(trials.max_steps * trials.batch_size)
    return [
        max(n for n in seen if n // size == steps)
        for size, steps in zip(trials.batch_size, trials.max_steps, strict=True)
    ]


def errors(tables: Tables):
    """Median test error by batch size and setting, as text. A diverged run counts as chance."""
    import pandas as pd

    from sweeps.harness.results.tables import by_series

    trials = _same_examples(tables)
    trials = trials.assign(error=1 - trials.final_accuracy.fillna(0.1))
    medians = {
        label: group.groupby("batch_size").error.median()
        for label, group in by_series(trials, "batch_size")
    }
    table = pd.DataFrame(medians).sort_index().astype(float)
    table = table.map("{:.2%}".format).replace("nan%", "")
    return table.rename_axis(index="batch size").reset_index()


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Draws test error by batch size, and the errors after training with large batches."""
    import numpy as np

    from sweeps.harness import charts

    every = _same_examples(tables)
    every = every.assign(test_error=100 * (1 - every.final_accuracy))

    def error(series, ax):
        ax = charts.value(series, ax, "batch_size", "test_error", log=True, worst=np.inf)
        ax.set(yscale="log", xlabel="examples per batch", ylabel="test error, percent")
        limits = ax.get_ylim()
        ax.set_yticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
        ax.set_ylim(limits)  # ticks beyond the errors would extend the axis
        ax.minorticks_off()
        return ax

    paths = [
        charts.save_panels(
            folder / "test_error.png",
            {
                title: functools.partial(error, series)
                for title, series in charts.facets(every, "batch_size").items()
            },
            "Test error after the same number of examples, by batch size",
            f"{charts.settings(every)} · rate and momentum at batch size {_REFERENCE}",
            columns=2,
        )
    ]
    compared = tables.trials[of_large_batches(tables.trials)]
    compared = compared[compared.status != "diverged"]
    if len(compared):
        errors = functools.partial(_errors_of_large_batches, compared, tables.recorded)
        paths.append(
            charts.save(
                folder / "large_batches.png",
                errors,
                "Errors with large batches, ghost batches and small batches",
                charts.settings(compared),
            )
        )
    return paths


def _errors_of_large_batches(trials, recorded, ax):
    """Bars of the test and the training error of each kind of training, with a dot per seed."""
    import numpy as np

    from sweeps.harness import charts

    evaluation = recorded["evaluation"]
    training = evaluation[evaluation.data == "train"].set_index("trial_id").accuracy
    by = ["batch_size", "bn_virtual_batch_size"]
    trials = trials.sort_values(by, ascending=False, na_position="first")
    names = [
        f"batches of {size}" + ("" if np.isnan(ghosts) else f",\nghost batches of {ghosts:g}")
        for size, ghosts in zip(
            trials.batch_size, trials.bn_virtual_batch_size.astype(float), strict=True
        )
    ]
    errors = {"training": 1 - trials.trial_id.map(training), "test": 1 - trials.final_accuracy}
    bars = [(name, (100 * values.astype(float)).set_axis(names)) for name, values in errors.items()]
    return charts.bars_of_seeds(bars, list(dict.fromkeys(names)), ax, "error, percent")


STUDY = Study(
    name="batch_size",
    question=__doc__.splitlines()[0],
    trials=trials,
    varied=("batch_size", "batch_norm"),
    draw=draw,
    quick={"seeds": 1, "batch_size": [1, 8, 128], "examples": 4000, "gap_epochs": 0},
    captions={
        "large_batches.png": (
            "Do large batches have the higher test error, and do ghost batches lower it?"
        ),
        "test_error.png": (
            "Read from right to left: how fast does each kind of normalization get worse as the "
            "batch shrinks?"
        ),
    },
    defaults={
        "hidden_units": "500,400,300",
        "batch_size": [1, 2, 4, 8, 16, 32, 128, 500],
        "bn_logits": False,
        "jit_compile": True,
    },
    without={
        "max_steps": "training ends when a network has seen as many images as --examples says. "
        "Smaller batches take more steps.",
        "eval_every": "networks are evaluated once, when they have seen --examples images.",
        "bn_layer": "only kerasbn.BatchNorm has Batch Renormalization and ghost batches.",
    },
    helps={
        "seeds": "Number of seeds, 0 to N-1. Six seeds take 20 to 30 minutes on two cores.",
        "batch_size": "Batch sizes, separated by commas.",
        "learning_rate": f"Learning rate of Adam at batch size {_REFERENCE}; see "
        "--scale_learning_rate.",
        "bn_momentum": "Weight of the old value in batch norm's moving averages, 0 to 1, at batch "
        f"size {_REFERENCE}. At batch size n it is raised to the power n / {_REFERENCE}, so "
        "averages look back on the same number of examples.",
        "bn_logits": "Also apply batch norm to the output layer, but not group norm.",
        "jit_compile": "Compile training steps with XLA. At batch size 1, steps are then two and a "
        "half times as fast.",
    },
    define_flags=define_flags,
    show=errors,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
