"""How small may a batch be? From 500 examples down to one, all networks seeing equally many.

The network of the depth study with three hidden layers: plain, with batch norm, with Batch
Renormalization (Ioffe 2017), with ghost batches (Hoffer et al. 2017), with Keras's
GroupNormalization (Wu & He 2018). The claims: at batch 1 the output of batch norm is its beta
whatever goes in, so that nothing is learned; batch norm gets worse as the batch shrinks, group
normalization does not; renormalization recovers part of it.

What would differ besides the batch is held equal. Adam's learning rate goes with the root of the
batch size (Malladi et al. 2022), or the smallest batches would fail for their rate. The moving
averages' momentum goes with the batch size, so that they look back on equally many examples. The
logits are not normalized, since ten of them make no groups.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from sweeps.batch_size.kinds import kinds
from sweeps.harness.cli import flags
from sweeps.harness.cli.study import Study, main
from sweeps.harness.errors import UserError

if TYPE_CHECKING:
    from sweeps.harness.data import Dataset
    from sweeps.harness.results.tables import Tables
    from sweeps.harness.trial import Trial

_REFERENCE = 500  # the batch size that --learning_rate and --bn_momentum are for
_STEPS_AT_ONCE = 100


def define_flags(values: absl_flags.FlagValues) -> None:
    """The study's own flags."""
    define = flags.Definer(values)
    define.integer(
        "examples",
        20_000,
        "Training examples that each network sees. At batch 1 each example is a step. With a full "
        "epoch, 60,000, the study takes about half an hour on two cores, mostly for batch 1.",
        at_least=1,
    )
    define.integer(
        "bn_virtual_batch_size", 16, "Examples per ghost batch, in larger batches.", at_least=2
    )
    define.integer(
        "group_norm",
        20,
        "Number of groups of GroupNormalization. It must divide the units of all layers. 20 makes "
        "groups of 25, 20 and 15 units.",
        at_least=1,
    )
    define.switch(
        "scale_learning_rate",
        True,
        f"Multiply the learning rate by the root of batch size / {_REFERENCE}, Adam's rule.",
    )


def trials(values: absl_flags.FlagValues, dataset: Dataset) -> list[Trial]:
    """Each batch size, the smallest first, each kind of normalization, each seed."""
    if any(units % values.group_norm for units in values.hidden_units):
        raise UserError(
            f"--group_norm={values.group_norm} must divide the units of all layers, which are "
            f"{','.join(map(str, values.hidden_units))}. Choose a common divisor."
        )
    kinds = [{"batch_norm": False}, {"batch_norm": False, "group_norm": values.group_norm}]
    kinds = [kind for kind in kinds if False in flags.arms(values)]
    if True in flags.arms(values):
        kinds += [{"batch_norm": True}, {"batch_norm": True, "bn_renorm": True}]
        kinds += [{"batch_norm": True, "bn_virtual_batch_size": values.bn_virtual_batch_size}]
    return [
        flags.trial(
            values,
            dataset.name,
            **{"group_norm": None, "bn_virtual_batch_size": None, **kind},
            seed=seed,
            batch_size=size,
            max_steps=max(values.examples // size, 1),
            learning_rate=values.learning_rate
            * ((size / _REFERENCE) ** 0.5 if values.scale_learning_rate else 1.0),
            bn_momentum=values.bn_momentum ** (size / _REFERENCE),
            eval_every=max(values.examples // size, 1),
            stop_at_target=False,
            steps_per_execution=_STEPS_AT_ONCE,
        )
        for size in sorted(values.batch_size)
        for kind in kinds
        if kind.get("bn_virtual_batch_size", 0) < size
        for seed in range(values.seeds)
    ]


def errors(tables: Tables):
    """Median test error by batch size and kind, as texts; a diverged run's is that of a guess."""
    trials = tables.trials[tables.trials.status != "failed"]
    trials = trials.assign(kind=kinds(trials), error=1 - trials.final_accuracy.fillna(0.1))
    table = trials.pivot_table(index="batch_size", columns="kind", values="error", aggfunc="median")
    table = table.astype(float).map("{:.2%}".format).replace("nan%", "")
    return table.rename_axis(index="batch size").reset_index()


def draw(tables: Tables, folder: Path) -> list[Path]:
    """Test error by batch size."""
    from sweeps.harness import charts

    every = tables.trials.assign(test_error=100 * (1 - tables.trials.final_accuracy))
    series = list(every.groupby(kinds(every)))

    def error(ax):
        ax = charts.value(series, ax, "batch_size", "test_error", log=True)
        ax.set(yscale="log", xlabel="examples a batch", ylabel="test error, percent")
        ax.set_yticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
        ax.minorticks_off()
        return ax

    return [
        charts.save(
            folder / "test_error.png",
            error,
            "Test error after equally many examples, by batch size",
            charts.settings(every),
        )
    ]


STUDY = Study(
    name="batch_size",
    question="How small may a batch be, with each kind of normalization?",
    trials=trials,
    varied=("batch_size", "batch_norm"),
    draw=draw,
    defaults={
        "hidden_units": "500,400,300",
        "batch_size": [1, 2, 4, 8, 16, 32, 128, 500],
        "bn_logits": False,
        "jit_compile": True,
        "seeds": 3,
    },
    without=("max_steps", "eval_every", "bn_layer"),
    helps={
        "seeds": "Number of seeds, 0 to N-1; three end in a quarter of an hour on two cores.",
        "batch_size": "Examples a training step, separated by commas.",
        "learning_rate": f"Of Adam at batch {_REFERENCE}; see --scale_learning_rate.",
        "bn_momentum": f"Weight of the old average at batch {_REFERENCE}; at batch n it has the "
        f"power n / {_REFERENCE}, so that averages look back on equally many examples.",
        "bn_logits": "Batch norm on the output layer, too; not with group norm.",
        "jit_compile": "Compile steps with XLA: two and a half times as fast at batch 1.",
    },
    define_flags=define_flags,
    show=errors,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
