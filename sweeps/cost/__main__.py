"""What does batch norm cost, and how much of that do fusing and folding save?

The claims: batch norm makes a training step more expensive; a fused kernel, or XLA, takes much of
its cost away; a folded network costs as much as the plain one. Contenders take turns, and each
round begins with another one. `sweeps.cost.layers` and `sweeps.cost.networks` describe them. Read
the ratios, which are taken within rounds. Microseconds depend on what else the machine does, so it
should do nothing else.

Tables in RESULTS_DIR/DATASET/cost/, one row per contender:

    layers.csv      a layer's training step: forward, backward, moving averages
    inference.csv   a layer's inference, and that of networks
    steps.csv       a network's training step: the depth study's networks, and LeNet
    memory.csv      the peak memory of a training step of ten convolutions
    backends.csv    a layer's training step on JAX and PyTorch, on request

Networks get images of the data set, so the folder belongs to the data set. Layers get random
numbers. Their tables are in the same folder because readers compare the two. Columns:

    backend         Keras backend (backends.csv only)
    what            "layer", "dense net", "LeNet" or "conv net"
    size            shape of a layer's input, or number of a network's layers
    shapes          for a layer: "tuned" if the kernels were chosen for the shape, else "held out"
    dtype           "float32" or "bfloat16"
    mode            "graph" or "xla"; "eager" or "jit" for PyTorch and JAX; blank for copies
    contender       name of the contender
    median_microseconds
                    median time; for a layer, the time of one of the 8 in the chain
    median_mebibytes
                    median peak memory (memory.csv only)
    q1, q3          quartiles
    over_X          median ratio to contender X in the same round and mode, or to graph mode where
                    one of the two has no such mode; blank where there is no X
    over_X_q1, over_X_q3
                    quartiles of the ratio
    rounds          number of rounds
    threads, tensorflow, keras, kerasbn, torch, jax, code, cpu, commit
                    provenance, as in the tables of the studies
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from absl import flags as absl_flags

from sweeps.harness.cli import command, flags

PARTS = ("layers", "inference", "nets", "memory", "backends")
# For each table: the contenders that kerasbn is compared with in print, each with the columns that
# the comparison is grouped by.
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
    """Defines the flags for what to measure, and for how long."""
    flags.define_data(values)
    absl_flags.DEFINE_multi_enum(
        "parts",
        list(PARTS[:-1]),
        PARTS,
        "Part to measure; repeat the flag for several. Default: all but backends. backends is the "
        "layer on JAX and PyTorch, where they are installed, each in its own process. It adds "
        "about eight minutes.",
        flag_values=values,
    )
    absl_flags.DEFINE_multi_string(
        "shape",
        [],
        "Shape of a layer's input, features last, such as 500x500 or 32x56x56x64; repeat the flag "
        "for several. Default: the shapes that the kernels were chosen for, and as many others.",
        flag_values=values,
    )
    absl_flags.DEFINE_multi_enum(
        "dtype",
        ["float32", "bfloat16"],
        ["float32", "bfloat16"],
        "Dtype of a layer's input and output; repeat the flag for several. Networks are float32.",
        flag_values=values,
    )
    define = flags.Definer(values)
    define.number(
        "seconds",
        2.0,
        "Time for the rounds of one shape in one dtype, or of one network; half of it for a "
        "layer's inference. Compilation comes on top, and at least five rounds are taken.",
        must_be="finite and at least 0",
        check=lambda v: v >= 0,
    )
    define.integer(
        "rounds",
        100,
        "Largest number of rounds. Every contender has a turn in each. Medians are reported, and "
        "hardly move beyond a hundred rounds.",
        at_least=1,
    )
    define.integer(
        "threads",
        None,
        "Threads of TensorFlow, PyTorch, JAX and the copies. Default: one per core.",
        at_least=1,
    )
    absl_flags.register_validator(
        "shape",
        lambda texts: all(_shape(text) for text in texts),
        "expected 2 to 4 positive whole numbers with x between them, such as 500x500",
        flag_values=values,
    )


def run(values: absl_flags.FlagValues) -> int:
    """Measures, then writes tables and charts."""
    from sweeps.harness import data
    from sweeps.harness.cli import progress
    from sweeps.harness.results import store

    dataset = data.load(values.dataset, values.data_dir)
    folder = store.Store(Path(values.results_dir) / dataset.name / "cost").folder
    print(f"Data: {dataset.name} from {dataset.source}", flush=True)
    threads = values.threads or flags.cores()
    provenance = _start(threads)
    from sweeps.cost import parts  # needs TensorFlow

    budget = parts.Budget(values.seconds, values.rounds, threads)
    shapes = [_shape(text) for text in values.shape]
    work = parts.work(values.parts, shapes, values.dtype, dataset, budget)
    tables: dict[str, list] = {}
    for found in progress.through("cost", work):
        for name, rows in found.items():
            tables.setdefault(name, []).extend({**row, **provenance} for row in rows)
            _write(tables[name], folder / f"{name}.csv")
    _report(tables, folder)
    return 0


def _write(rows, path):
    """Writes the rows measured so far, so that an interrupted run keeps them."""
    import pandas as pd

    from sweeps.harness.results import store

    store.write_whole(path, pd.DataFrame(rows).to_csv(index=False).encode())


def _report(tables, folder):
    """Draws charts of the tables and prints their summaries."""
    import pandas as pd

    from sweeps.cost import charts, ratios
    from sweeps.harness.cli import progress

    paths = []
    for name, rows in tables.items():
        frame = pd.DataFrame(rows)
        paths += [folder / f"{name}.csv", *charts.draw(name, frame, folder)]
        for over, by in _SUMMARIES[name].items():
            summary = ratios.summary(frame, "kerasbn", over, by)
            if len(summary):
                print(f"\n{name}.csv, kerasbn as a multiple of {over}:")
                progress.print_table(summary)
    print("\nWrote", *[f"  {path}" for path in paths], sep="\n")


def _start(threads):
    """Starts TensorFlow and PyTorch with this many threads; returns the provenance columns."""
    from importlib import metadata, util

    from sweeps.harness.quiet import quiet_start
    from sweeps.harness.results import provenance

    os.environ["KERAS_BACKEND"] = "tensorflow"
    with quiet_start():
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.get_logger().setLevel("ERROR")  # it mistakes one function per shape for retracing
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


COMMAND = command.Command(
    name="cost",
    question="What does batch norm cost, and how much of that do fusing and folding save?",
    define_flags=define_flags,
    run=run,
    when_interrupted="The tables hold what was measured so far.",
)

if __name__ == "__main__":
    sys.exit(command.main(COMMAND))
