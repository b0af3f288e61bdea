"""How much does batch norm cost, and how much of that do fusing and folding save?

Varied: the contender (no batch norm, Keras's layer, kerasbn's layer, batch norm by hand, PyTorch's
layer, a folded network), the shape of the layer's input, the dtype, and whether XLA compiles.
`sweeps.cost.layers` and `sweeps.cost.networks` describe the contenders.

Held equal: every contender starts from the same numbers. Contenders take turns in rounds, and each
round begins with a different one. Compare the ratios, because they are taken within rounds. Times
in microseconds depend on the load of the machine, so leave the machine idle otherwise.

Claims: A training step costs more with batch norm. A fused kernel, or XLA, removes much of that
cost. A folded network costs as much as the plain one.

Sources: C. Rawles, "How to use Batch Normalization with TensorFlow and tf.keras to train deep
neural networks faster" (2018), about the cost of a step. The other two claims are common practice.

Tables in RESULTS_DIR/DATASET/cost/, one row per contender:

    layers.csv      a layer's training step: forward, backward, moving averages
    batch_sizes.csv
                    a layer's training step with batch sizes that TensorFlow knows, does not know,
                    or gets new ones of at every call
    inference.csv   an inference pass of a layer or a network
    steps.csv       a training step of the depth study's networks and of LeNet
    memory.csv      the peak memory of a training step of ten convolutions
    applications.csv
                    three networks of keras.applications with Keras's own methods: training steps,
                    inference, the first calls in a new process and its peak memory; and training
                    steps of the depth study's deepest network with Keras's own methods
    backends.csv    a layer's training step on JAX and PyTorch, on request

Layers get random numbers. Networks get images of the data set, so the folder belongs to the data
set. All tables are in one folder because readers compare them. Columns:

    backend         Keras backend (backends.csv only)
    what            "layer", "layer by batch size", "dense net", "LeNet" or "conv net"; in
                    applications.csv, the quantity
    size            shape of a layer's input, or number of a network's layers; in applications.csv,
                    the network
    shapes          for a layer: "tuned" if the kernels were chosen for the shape, else "held out"
    dtype           "float32" or "bfloat16"
    mode            "graph" or "xla"; "xla_apart" for layers that form no chain; "eager" or "jit"
                    for PyTorch and JAX; blank for copies; in batch_sizes.csv "known", "unknown"
                    (both in a graph) or "changing" (eager)
    contender       name of the contender
    median_microseconds
                    median time of a call; a layer's is divided by the 8 layers in the chain
    median_mebibytes
                    median peak memory (memory.csv and applications.csv)
    median_milliseconds
                    median time of a call (applications.csv only)
    q1, q3          quartiles
    over_X          median ratio to contender X in the same round and mode; in graph mode if X does
                    not run in the contender's mode; blank if X was not measured. over_known is the
                    ratio to the same contender in mode "known"
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

from sweeps.harness.cli import command, flags, quick

PARTS = ("layers", "batch_sizes", "inference", "nets", "memory", "applications", "backends")
# Printed comparisons of kerasbn: by table and baseline, the columns that define a row.
_SUMMARIES = {
    "layers": {
        "keras": ["shapes", "dtype", "mode"],
        "pytorch": ["rank", "shapes", "dtype", "mode"],
    },
    "batch_sizes": {"keras": ["mode"], "known": ["mode"]},
    "inference": {"keras": ["what", "shapes", "dtype", "mode"], "plain": ["what", "mode"]},
    "steps": {"keras": ["what", "mode"], "plain": ["what", "mode"]},
    "memory": {"keras": ["what", "mode"], "plain": ["what", "mode"]},
    "applications": {"keras": ["what"], "plain": ["what"]},
    "backends": {"keras": ["backend", "shapes", "mode"]},
}
_QUICK = {
    "parts": ["layers"],
    "shape": ["500x500", "100x3000"],
    "dtype": ["float32"],
    "seconds": 0.5,
}


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags for the data, the measurements and their length."""
    flags.define_data(values)
    quick.define(values)
    absl_flags.DEFINE_multi_enum(
        "parts",
        list(PARTS[:-1]),
        PARTS,
        # Texts of DEFINE_multi flags end without a full stop, because absl appends to them.
        "Part to measure. Default: all but backends. backends measures the layer on JAX and "
        "PyTorch, if they are installed, each in its own process, and adds about eleven minutes",
        flag_values=values,
    )
    absl_flags.DEFINE_multi_string(
        "shape",
        [],
        "Shape of a layer's input, features last, such as 500x500 or 32x56x56x64. Default: the "
        "shapes for which the kernels were chosen, and about as many others",
        flag_values=values,
    )
    absl_flags.DEFINE_multi_enum(
        "dtype",
        ["float32", "bfloat16"],
        ["float32", "bfloat16"],
        "Dtype of a layer's input and output. Networks use float32",
        flag_values=values,
    )
    define = flags.Definer(values)
    define.number(
        "seconds",
        2.0,
        "Time for the rounds of one network, or of one layer shape in one dtype. A layer's "
        "inference takes half of it. Compilation comes on top. There are at least five rounds.",
        must_be="finite and at least 0",
        check=lambda v: v >= 0,
    )
    define.integer(
        "rounds",
        100,
        "Largest number of rounds. Every contender has one turn per round. The reported medians "
        "hardly change after a hundred rounds.",
        at_least=1,
    )
    define.integer(
        "threads",
        None,
        "Threads for every contender. Default: one per core.",
        at_least=1,
    )
    absl_flags.register_validator(
        "shape",
        lambda texts: all(_shape(text) for text in texts),
        "expected 2 to 4 positive whole numbers separated by x, such as 500x500",
        flag_values=values,
    )


def run(values: absl_flags.FlagValues) -> int:
    """Measures all parts and writes tables and charts."""
    from sweeps.harness import data
    from sweeps.harness.cli import progress
    from sweeps.harness.results import store

    dataset = data.load(values.dataset, values.data_dir)
    folder = store.Store(Path(values.results_dir) / dataset.name / "cost").folder
    print(f"Data: {dataset.name} from {dataset.source}", flush=True)
    threads = values.threads or flags.cores()
    provenance = _start(threads)
    from sweeps.cost import parts  # imports TensorFlow, so it comes after _start

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
    """Writes the rows measured so far, so an interrupted run keeps them."""
    import pandas as pd

    from sweeps.harness.results import store

    store.write_whole(path, pd.DataFrame(rows).to_csv(index=False).encode())


def _report(tables, folder):
    """Draws charts, prints summaries and lists the files."""
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
                print(f"\n{name}.csv, kerasbn over {over} (geometric mean, best and worst):")
                progress.print_table(summary)
    print("\nWrote", *[f"  {path}" for path in paths], sep="\n")


def _start(threads):
    """Sets the threads of TensorFlow and PyTorch, and returns the provenance columns."""
    from importlib import metadata, util

    from sweeps.harness.quiet import quiet_start
    from sweeps.harness.results import provenance

    os.environ["KERAS_BACKEND"] = "tensorflow"
    with quiet_start():
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.get_logger().setLevel("ERROR")  # else it warns that one function per shape is retracing
    if util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
    versions = provenance.environment()
    rest = {name: versions.pop(name) for name in ("code", "cpu", "kernel")}
    for name in ("torch", "jax"):
        versions[name] = metadata.version(name) if util.find_spec(name) else ""
    kernel = rest.pop("kernel")  # a newer column, and therefore the last one
    commit = provenance.commit()
    return {"threads": threads, **versions, **rest, "commit": commit, "kernel": kernel}


def _shape(text):
    words = text.split("x")
    fits = 2 <= len(words) <= 4 and all(word.isdecimal() and int(word) > 0 for word in words)
    return tuple(map(int, words)) if fits else None


COMMAND = command.Command(
    name="cost",
    question=__doc__.splitlines()[0],
    define_flags=define_flags,
    run=lambda values: quick.run(values, _QUICK, run),
    captions={
        "*_by_depth_*.png": (
            "The distance to the plain line is the price of batch norm at each depth."
        ),
        "*32.png": "A dot to the left of 1 is faster than Keras's layer. The bars are quartiles.",
        "*bfloat16.png": (
            "A dot to the left of 1 is faster than Keras's layer. The bars are quartiles."
        ),
    },
    when_interrupted="The tables hold what was measured so far.",
)

if __name__ == "__main__":
    sys.exit(command.main(COMMAND))
