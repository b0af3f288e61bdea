"""What does batch norm cost, and what do fusing and folding take away of that?

The claims: batch norm makes a training step dearer; a fused kernel, or XLA, takes much of its cost
away; a folded network costs what the plain one costs. Contenders take turns, each round beginning
with another one; what they are stands in `sweeps.harness.layer_cost` and `.net_cost`. Read the
ratios, which are taken within rounds: microseconds depend on what else the machine does, and it
should do nothing else.

Tables in RESULTS_DIR/DATASET/cost/, a row a contender:

    layers.csv      a layer's training step: forward, backward, moving averages
    inference.csv   a layer's inference, and that of networks
    steps.csv       a network's training step: study 1's at each depth, and LeNet
    memory.csv      the most that a training step of ten convolutions holds
    backends.csv    a layer's training step on JAX and PyTorch, if asked for

The networks get the data set's images, so that the folder is the data set's. A layer gets random
numbers, but its tables lie beside, for a reader compares the two. The columns:

    backend         in backends.csv: Keras's
    what, size      "layer" and its input's shape; "dense net", "LeNet" or "conv net" and its layers
    shapes          of a layer, "tuned": the kernels were chosen for it; "held out": they were not
    dtype           "float32" or "bfloat16"
    mode            "graph" or "xla"; "eager" or "jit" of PyTorch and JAX; blank: copies have none
    contender
    median_microseconds, q1, q3
                    and quartiles; of one layer, in a chain of 8. memory.csv: median_mebibytes
    over_X, over_X_q1, over_X_q3
                    as a multiple of contender X's in the same round and mode (of graph mode's where
                    one of the two has no such mode), and quartiles; blank where there is no X
    rounds          how many were measured
    threads, tensorflow, keras, kerasbn, torch, jax, code, cpu, commit
                    what it was made with, as in the tables of the other studies
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from sweeps.harness import command, flags

if TYPE_CHECKING:
    import pandas as pd

QUESTION = "What does batch norm cost, and what do fusing and folding take away of that?"
PARTS = ("layers", "inference", "nets", "memory", "backends")
# By table: what kerasbn is compared with in print, and by which columns.
_SUMMARIES = {
    "layers": {
        "keras": ["shapes", "dtype", "mode"],
        "pytorch": ["rank", "shapes", "dtype", "mode"],
    },
    "inference": {"keras": ["what", "shapes", "dtype", "mode"], "plain": ["what", "mode"]},
    "steps": {"keras": ["what", "mode"], "plain": ["what", "mode"]},
    "memory": {"keras": ["what", "mode"], "plain": ["what", "mode"]},
    "backends": {"keras": ["backend", "shapes", "mode"]},
}


def define_flags(values: absl_flags.FlagValues) -> None:
    """What to measure, and for how long."""
    flags.define_data(values)
    absl_flags.DEFINE_multi_enum(
        "parts",
        list(PARTS[:-1]),
        PARTS,
        "What to measure; give it once for each. backends, which is not among the defaults, is the "
        "layer on Keras's other backends, those of JAX and PyTorch that are installed, in "
        "processes of their own: some eight minutes more.",
        flag_values=values,
    )
    absl_flags.DEFINE_multi_string(
        "shape",
        [],
        "Shape of a layer's input, features last, such as 500x500 or 32x56x56x64; give it once for "
        "each. Default: those that the kernels were chosen for, and others that they were not.",
        flag_values=values,
    )
    absl_flags.DEFINE_multi_enum(
        "dtype",
        ["float32", "bfloat16"],
        ["float32", "bfloat16"],
        "Of a layer's input and output; give it once for each. Networks are float32.",
        flag_values=values,
    )
    absl_flags.DEFINE_float(
        "seconds",
        2.0,
        "For the rounds of one shape in one dtype, or of one network; half of it for a layer's "
        "inference. Compilation comes on top, and five rounds are taken in any case.",
        lower_bound=0.0,
        flag_values=values,
    )
    absl_flags.DEFINE_integer(
        "rounds",
        100,
        "Rounds at most; in each, every contender has its turn. Medians are reported, and beyond a "
        "hundred rounds they hardly move.",
        lower_bound=1,
        flag_values=values,
    )
    absl_flags.DEFINE_integer(
        "threads",
        None,
        "Threads of TensorFlow, and as many of PyTorch, JAX and what copies. Default: one a core.",
        lower_bound=1,
        flag_values=values,
    )
    absl_flags.register_validator(
        "shape",
        lambda texts: all(_shape(text) for text in texts),
        "expected 2 to 4 positive whole numbers with x between them, such as 500x500",
        flag_values=values,
    )
    absl_flags.register_validator("seconds", math.isfinite, "must be finite", flag_values=values)


def run(values: absl_flags.FlagValues) -> int:
    """Measures, then writes tables and charts."""
    from sweeps.harness import data, progress, store

    dataset = data.load(values.dataset, values.data_dir)
    folder = store.Store(Path(values.results_dir) / dataset.name / "cost").folder
    print(f"Data: {dataset.name} from {dataset.source}", flush=True)
    threads = values.threads or flags.cores()
    made_with = _start(threads)
    from sweeps.harness import cost_work  # needs TensorFlow

    budget = cost_work.Budget(values.seconds, values.rounds, threads)
    shapes = [_shape(text) for text in values.shape]
    work = cost_work.work(values.parts, shapes, values.dtype, dataset, budget)
    tables: dict[str, list] = {}
    for found in progress.through("cost", work):
        for name, rows in found.items():
            tables.setdefault(name, []).extend({**row, **made_with} for row in rows)
            _write(tables[name], folder / f"{name}.csv")
    _report(tables, folder)
    return 0


def draw(name: str, rows: pd.DataFrame, folder: Path) -> list[Path]:
    """The charts of a table: layers by shape, networks by depth; memory is two numbers."""
    from sweeps.harness import charts, cost_tables

    call = "inference pass" if name == "inference" else "training step"
    made_with = f"medians and quartiles · {rows.threads.iloc[0]} threads · {rows.cpu.iloc[0]}"
    paths = []
    for key, group in cost_tables.by_mode(rows[rows.what == "layer"]):
        paths.append(
            charts.save(
                folder / f"{'_'.join([name, *key])}.png",
                lambda ax, group=group: charts.multiples(group, ax, "keras"),
                f"A batch norm layer's {call} against Keras's",
                " · ".join([*key, made_with]),
            )
        )
    for (mode, _), group in cost_tables.by_mode(rows[rows.what == "dense net"]):
        paths.append(
            charts.save(
                folder / f"{name}_by_depth_{mode}.png",
                lambda ax, group=group: charts.milliseconds(group, ax, call),
                f"A network's {call}, by depth",
                " · ".join([mode, "batch 500", made_with]),
            )
        )
    return paths


def _write(rows, path):
    """Writes a table, as far as it is; what was measured is kept if the rest is not."""
    import pandas as pd

    from sweeps.harness import store

    store.write_whole(path, pd.DataFrame(rows).to_csv(index=False).encode())


def _report(tables, folder):
    """Draws charts of the tables, and prints what they come to."""
    import pandas as pd

    from sweeps.harness import cost_tables, progress

    paths = []
    for name, rows in tables.items():
        frame = pd.DataFrame(rows)
        paths += [folder / f"{name}.csv", *draw(name, frame, folder)]
        for over, by in _SUMMARIES[name].items():
            made = cost_tables.summary(frame, "kerasbn", over, by)
            if len(made):
                print(f"\n{name}.csv, kerasbn as a multiple of {over}:")
                progress.print_table(made)
    print("\nWrote", *[f"  {path}" for path in paths], sep="\n")


def _start(threads):
    """Gives TensorFlow and PyTorch their threads; returns the columns of what it is made with."""
    from importlib import metadata, util

    from sweeps.harness import provenance
    from sweeps.harness.quiet import quiet_start

    os.environ["KERAS_BACKEND"] = "tensorflow"
    with quiet_start():
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.get_logger().setLevel("ERROR")  # it takes one function of each shape for one traced anew
    if util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
    versions = provenance.environment()
    rest = {name: versions.pop(name) for name in ("code", "cpu")}
    for name in ("torch", "jax"):
        versions[name] = metadata.version(name) if util.find_spec(name) else ""
    return {"threads": threads, **versions, **rest, "commit": provenance.commit()}


def _shape(text):
    words = text.split("x")
    fits = 2 <= len(words) <= 4 and all(word.isdecimal() and int(word) > 0 for word in words)
    return tuple(map(int, words)) if fits else None


if __name__ == "__main__":
    sys.exit(
        command.main(
            "cost", QUESTION, define_flags, run, "The tables have what was measured so far."
        )
    )
