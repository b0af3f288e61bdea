"""What does batch norm cost, and what do fusing and folding take away of that?

The layer alone, over shapes that the kernels of kerasbn were tuned on and shapes that they were
not (see `sweeps.harness.layer_cost` for the contenders).
Contenders take turns; each round begins with another one. Read the ratios, which are taken within
rounds: microseconds depend on what else the machine does.

Tables in RESULTS_DIR/DATASET/cost/, a row for each contender:

    layers.csv      a layer's training step: forward, backward, moving averages

The layer's tables lie with those of the networks although their numbers are random ones: what a
reader compares belongs together. Columns:

    what, size      "layer" and the shape of its input
    shapes          of a layer: "tuned" or "held out"
    dtype           "float32" or "bfloat16"
    mode            "graph", "xla", or how else the contender runs: "eager" (PyTorch), blank
    contender
    median_microseconds, q1, q3
                    of a layer (one of a chain of 8), and their quartiles
    over_X, over_X_q1, over_X_q3
                    the time as a multiple of contender X's in the same round and mode (of graph
                    mode's, where the contender has no mode or X no such one): median, quartiles
    rounds          samples
    threads, tensorflow, keras, kerasbn, torch, code, cpu, commit
                    what it was made with, as in the tables of studies
"""

from __future__ import annotations

import gc
import math
import os
import sys
from importlib import metadata
from pathlib import Path

from absl import flags as absl_flags

from sweeps.harness import command, flags

QUESTION = "What does batch norm cost, and what do fusing and folding take away of that?"
PARTS = ("layers",)


def define_flags(values: absl_flags.FlagValues) -> None:
    """What to measure, and for how long."""
    flags.define_data(values)
    absl_flags.DEFINE_multi_enum(
        "parts", list(PARTS), PARTS, "What to measure; give it once for each.", flag_values=values
    )
    absl_flags.DEFINE_multi_string(
        "shape",
        [],
        "Shape of a layer's input, such as 500x500 or 32x56x56x64, features last; give it once for "
        "each. Default: those that the kernels were tuned on, and others that they were not.",
        flag_values=values,
    )
    absl_flags.DEFINE_float(
        "seconds",
        4.0,
        "Time for the rounds of one shape and dtype or of one network. Compilation comes on top, "
        "and five rounds are taken in any case.",
        lower_bound=0.0,
        flag_values=values,
    )
    absl_flags.DEFINE_integer(
        "rounds",
        100,
        "Rounds at most, in each of which every contender has its turn; medians are reported.",
        lower_bound=1,
        flag_values=values,
    )
    absl_flags.DEFINE_integer(
        "threads",
        None,
        "Threads of TensorFlow and of PyTorch. Default: one for each core.",
        lower_bound=1,
        flag_values=values,
    )
    absl_flags.register_validator(
        "shape",
        lambda texts: all(_shape(text) for text in texts),
        "expected 2 to 4 positive whole numbers with x between them, such as 500x500",
        flag_values=values,
    )
    absl_flags.register_validator("seconds", math.isfinite, "must be a number", flag_values=values)


def run(values: absl_flags.FlagValues) -> int:
    """Measures, then writes tables and charts."""
    from sweeps.harness import data, progress, store

    dataset = data.load(values.dataset, values.data_dir)
    folder = store.Store(Path(values.results_dir) / dataset.name / "cost").folder
    made_with = _start_tensorflow(values.threads or flags.cores())
    tables: dict[str, list] = {}
    for table, found in progress.through("cost", _work(values)):
        tables.setdefault(table, []).extend({**row, **made_with} for row in found)
    _report(tables, folder)
    return 0


def _work(values):
    """(in words, expected seconds, function that returns a table's name and its rows)."""
    from sweeps.harness import layer_cost

    shapes = [_shape(text) for text in values.shape]
    shapes = shapes or [*layer_cost.TUNED, *layer_cost.HELD_OUT]
    return [
        (
            f"layer {_text(shape)} {dtype}",
            values.seconds + 4,
            lambda shape=shape, dtype=dtype: ("layers", _layer(shape, dtype, values)),
        )
        for dtype in layer_cost.DTYPES
        for shape in shapes
    ]


def _layer(shape, dtype, values):
    from sweeps.harness import cost_tables, layer_cost, timing

    gc.collect()  # compiled functions of the last shape hold themselves in cycles
    calls = layer_cost.training(shape, dtype)
    seconds = timing.in_turn_within(calls, values.seconds, most=values.rounds)
    return cost_tables.rows(
        seconds,
        "microseconds",
        1e6 / layer_cost.CHAIN,
        over=("keras", "pytorch"),
        what="layer",
        size=_text(shape),
        shapes="tuned" if shape in layer_cost.TUNED else "held out",
        dtype=dtype,
    )


def _report(tables, folder):
    import pandas as pd

    from sweeps.harness import cost_tables, progress, store

    paths = []
    for name, found in tables.items():
        frame = pd.DataFrame(found)
        paths.append(folder / f"{name}.csv")
        store.write_whole(paths[-1], frame.to_csv(index=False).encode())
        for over in ("keras", "pytorch"):
            by = ["shapes", "dtype", "mode"]
            progress.print_table(cost_tables.summary(frame, "kerasbn", over, by))
    print("Wrote", *[f"  {path}" for path in paths], sep="\n")


def _start_tensorflow(threads):
    """Gives TensorFlow and PyTorch their threads; returns the columns of what it is made with."""
    import importlib.util

    from sweeps.harness import provenance
    from sweeps.harness.quiet import quiet_start

    os.environ["KERAS_BACKEND"] = "tensorflow"
    with quiet_start():
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    torch_version = ""
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
        torch_version = metadata.version("torch")
    environment = provenance.environment()
    code, cpu = environment.pop("code"), environment.pop("cpu")
    return {
        "threads": threads,
        **environment,
        "torch": torch_version,
        "code": code,
        "cpu": cpu,
        "commit": provenance.commit(),
    }


def _shape(text):
    words = text.split("x")
    fits = 2 <= len(words) <= 4 and all(word.isdecimal() and int(word) > 0 for word in words)
    return tuple(map(int, words)) if fits else None


def _text(shape):
    return "x".join(map(str, shape))


if __name__ == "__main__":
    sys.exit(
        command.main(
            "cost", QUESTION, define_flags, run, "Nothing was written: tables come at the end."
        )
    )
