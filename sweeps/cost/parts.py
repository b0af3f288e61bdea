"""The parts of `sweeps.cost`: the calls to measure and the table rows that they give."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from sweeps.cost import applications, backends, layers, memory, networks, ratios
from sweeps.cost.shapes import BY_BATCH_SIZE, CHAIN, HELD_OUT, TUNED
from sweeps.harness import timing
from sweeps.harness.data import Dataset
from sweeps.harness.errors import UserError
from sweeps.harness.wording import counted

Rows = dict[str, list[dict[str, Any]]]  # rows by table


class Budget(NamedTuple):
    """Limits on each measurement.

    Attributes:
        seconds: Time for the rounds of one shape or network, without compilation.
        rounds: Largest number of rounds.
        threads: Threads of each contender.
    """

    seconds: float
    rounds: int
    threads: int


def work(
    parts: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    dtypes: Sequence[str],
    dataset: Dataset,
    budget: Budget,
) -> list[tuple[str, float, Callable[[], Rows]]]:
    """The measurements, as `progress.through` takes them.

    Args:
        parts: Parts to measure, from `sweeps.cost.__main__.PARTS`.
        shapes: Shapes of the layer's input. Empty means those in `sweeps.cost.shapes`.
        dtypes: Dtypes of the layer.
        dataset: Data set for the networks.
        budget: Limits on each measurement.

    Raises:
        UserError: If no backend is installed for the part "backends".

    Returns:
        For each measurement: a description, an estimate of its seconds, and a function that
        measures and returns the rows of each table.
    """
    if "backends" in parts and not backends.installed():
        raise UserError(
            "--parts=backends needs JAX or PyTorch, and neither is installed. Install one of them, "
            "for example with pip install jax."
        )
    by_batch_size = shapes or BY_BATCH_SIZE
    shapes = shapes or [*TUNED, *HELD_OUT]
    seconds = budget.seconds
    every: dict[str, list[tuple[str, float, Callable[[], Rows]]]] = {
        "layers": [
            (f"layer, {name(shape)}, {dtype}", seconds + 6, partial(_layer, shape, dtype, budget))
            for dtype in dtypes
            for shape in shapes
        ],
        "batch_sizes": [
            (f"batch sizes, {name(shape)}", seconds + 8, partial(_batch_sizes, shape, budget))
            for shape in by_batch_size
        ],
        "inference": [
            (
                f"inference, {name(shape)}, {dtype}",
                seconds / 2 + 2,
                partial(_pass, shape, dtype, budget),
            )
            for dtype in dtypes
            for shape in shapes
        ],
        "nets": [
            (
                f"{n.what}, {counted(n.size, 'layer')}",
                2 * seconds + 12,
                partial(_net, n, dataset, budget),
            )
            for n in networks.networks()
        ],
        "memory": [("memory of a training step", 80, partial(_memory, budget))],
        "applications": [
            *(
                (f"{what}, {n}", 20 * seconds, partial(_application, n, what, budget))
                for n in (*applications.NETWORKS, "dense net")
                for what in ("training step", "predict")
            ),
            *(
                (f"first calls, {n}", 100, partial(_first_calls, n, budget))
                for n in applications.NETWORKS
            ),
        ],
        "backends": [
            (f"{backend}, {name(shape)}", seconds + 8, partial(_backend, backend, shape, budget))
            for backend in backends.installed()
            for shape in shapes
        ],
    }
    return [item for part in every if part in parts for item in every[part]]


def name(shape: tuple[int, ...]) -> str:
    """The name of a shape in tables, such as 500x500."""
    return "x".join(map(str, shape))


def _layer(shape, dtype, budget) -> Rows:
    seconds = _time(layers.training(shape, dtype), budget.seconds, budget)
    return {"layers": _layer_rows(seconds, ("keras", "pytorch"), shape, dtype)}


def _batch_sizes(shape, budget) -> Rows:
    seconds = _time(layers.batch_sizes(shape), budget.seconds, budget)
    rows = ratios.rows(
        seconds,
        "microseconds",
        1e6 / CHAIN,
        over=("keras",),
        over_modes=("known",),
        what="layer by batch size",
        size=name(shape),
        dtype="float32",
    )
    return {"batch_sizes": rows}


def _pass(shape, dtype, budget) -> Rows:
    seconds = _time(layers.inference(shape, dtype), budget.seconds / 2, budget)
    return {"inference": _layer_rows(seconds, ("keras", "plain"), shape, dtype)}


def _net(network, dataset, budget) -> Rows:
    steps, passes = networks.contenders(network, dataset)
    columns: dict[str, Any] = {"what": network.what, "size": str(network.size)}
    tables = {"steps": (steps, columns), "inference": (passes, {**columns, "shapes": ""})}
    return {
        table: ratios.rows(
            _time(calls, budget.seconds, budget),
            "microseconds",
            1e6,
            over=("keras", "plain"),
            **columns,
            dtype="float32",
        )
        for table, (calls, columns) in tables.items()
    }


def _memory(budget) -> Rows:
    held = memory.measure(budget.threads)
    columns: dict[str, Any] = {
        "what": "conv net",
        "size": str(networks.CONVOLUTIONS),
        "dtype": "float32",
    }
    rows = ratios.rows(held, "mebibytes", 2.0**-20, over=("keras", "plain"), **columns)
    return {"memory": rows}


def _application(network, what, budget) -> Rows:
    # A step takes up to a second, so rounds need more time than those of a layer.
    seconds = _time(applications.calls(network, what), 15 * budget.seconds, budget)
    return {"applications": _application_rows(seconds, what, network)}


def _first_calls(network, budget) -> Rows:
    found = applications.measure_first(network, budget.threads)
    rows = (_application_rows(samples, what, network) for what, samples in found.items())
    return {"applications": [*itertools.chain.from_iterable(rows)]}


def _application_rows(samples, what, network):
    unit, scale = ("mebibytes", 2.0**-20) if "memory" in what else ("milliseconds", 1e3)
    columns = {"what": what, "size": network, "dtype": "float32"}
    return ratios.rows(samples, unit, scale, over=("keras", "plain"), **columns)


def _backend(backend, shape, budget) -> Rows:
    seconds = backends.measure(backend, shape, **budget._asdict())
    rows = _layer_rows(seconds, ("keras",), shape, "float32")
    return {"backends": [{"backend": backend, **row} for row in rows]}


def _time(calls, seconds, budget):
    gc.collect()  # functions compiled earlier are in reference cycles and keep their memory
    return timing.in_turn_within(calls, seconds, most=budget.rounds)


def _layer_rows(seconds, over, shape, dtype):
    return ratios.rows(
        seconds,
        "microseconds",
        1e6 / CHAIN,
        over=over,
        what="layer",
        size=name(shape),
        shapes="tuned" if shape in TUNED else "held out",
        dtype=dtype,
    )
