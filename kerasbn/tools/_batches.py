"""Yields batches of a model's inputs from everything that `fit` and `predict` accept."""

from __future__ import annotations

import contextlib
import itertools
import math
import numbers
import os
import sys
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import keras
from keras import tree
from rich.console import Console
from rich.progress import track

from kerasbn._keras_private import batches_of_py_dataset, is_array
from kerasbn.tools._arrays import as_arrays, as_tensors, cut
from kerasbn.tools._inputs import are_inputs, check_fit, how_to_convert
from kerasbn.tools._wording import counted, described


def input_batches(
    model: keras.Model, batches: Any, steps: int | None, batch_size: int | None, task: str
) -> Generator[tuple[int, Any], None, None]:
    """Yields batches of inputs and shows a progress bar on a terminal.

    Args:
        model: Model that takes the inputs.
        batches: Arrays or an iterable of batches, with or without targets. See `recalibrate`.
        steps: Number of batches to yield, or `None` for all.
        batch_size: Number of examples per batch, for arrays only. `None` means 32.
        task: Text of the progress bar.

    Yields:
        The number of a batch, from 0, and its inputs as tensors of the backend. If a
        `tf.distribute` strategy has split a batch, its parts are yielded with the same number.

    Raises:
        ValueError: If there are no batches, fewer batches than `steps`, or endless batches without
            `steps`. If a batch is empty or does not fit the model. If `batch_size` is given for
            something other than arrays.
    """
    whole = _arrays(model, batches, batch_size)
    arrays = None if whole is None else whole[:1]  # targets may be anything
    with contextlib.closing(_batches(model, batches, arrays, steps, batch_size, task)) as found:
        for number, x, _ in found:
            yield number, x


def batches_with_targets(
    model: keras.Model, batches: Any, steps: int | None, batch_size: int | None, task: str
) -> Generator[tuple[int, Any, tuple], None, None]:
    """Yields the same as `input_batches`, and the targets.

    The targets are `(y,)`, `(y, sample_weight)` or `()`. They stay as the data has them.
    """
    arrays = _arrays(model, batches, batch_size)
    yield from _batches(model, batches, arrays, steps, batch_size, task)


def _batches(model, batches, arrays, steps, batch_size, task):
    _check_number("steps", steps)
    _check_number("batch_size", batch_size)
    if arrays is not None:
        count, batches = cut(arrays, batch_size or 32)
        advice = ["Pass more data.", "Lower `steps` or `batch_size`."]
    elif batch_size is not None:
        raise ValueError(
            "batch_size is only for arrays, to cut them into batches. Received: "
            f"batch_size={batch_size} and batches of type {type(batches).__name__}. Leave out "
            "batch_size, and set the size of the batches where you create them."
        )
    else:
        _check_iterable(batches)
        count = _count(batches)
        once = "A generator can be used only once, so create it again."
        used_up = isinstance(batches, Iterator)
        advice = [once if used_up else "Pass more data.", "Lower `steps`."]
    if steps is None and count == math.inf:
        raise ValueError(
            "Expected batches that end, or `steps`. Received: batches without end, of type "
            f"{type(batches).__name__}, and steps=None. Set `steps` to the number of batches to "
            "use."
        )
    total = min((n for n in (count, steps) if n is not None), default=None)
    console = Console(file=sys.stderr)
    done = 0
    with contextlib.ExitStack() as stack:
        if isinstance(batches, keras.utils.PyDataset):
            batches = stack.enter_context(contextlib.closing(batches_of_py_dataset(batches)))
        for batch in track(
            itertools.islice(batches, steps),
            task,
            total,
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ):
            for part in _parts(model, batch):
                inputs, targets = _split(model, part, done)
                x = as_arrays(inputs, done)
                check_fit(model, x, done)
                yield done, as_tensors(x), targets
            done += 1
    if done < (steps or 1):
        received = f"{done}, and then no more" if done else "none"
        raise ValueError(
            f"Expected {counted(steps, 'batch', 'batches') if steps else 'at least 1 batch'}. "
            f"Received: {received}. {' '.join(advice if steps else advice[:1])}"
        )


def _arrays(model, batches, batch_size):
    """(inputs, *targets), if `batches` is the whole data as arrays. `None` if it is an iterable."""
    if is_array(batches) or isinstance(batches, dict):
        return (batches,)
    one = len(batches) == 1 if isinstance(batches, (list, tuple)) else False
    if one and isinstance(batches, list):  # [x] is one batch, or with `batch_size` data to cut
        return (batches[0],) if batch_size is not None and is_array(batches[0]) else None
    if not one and are_inputs(model, batches):
        return (batches,)
    if isinstance(batches, tuple):
        _check_tuple(batches, "Received")
        return batches
    return None


def _split(model, batch, number):
    """The inputs of a batch and its targets, if it has any."""
    if not isinstance(batch, (list, tuple)) or are_inputs(model, batch):
        return batch, ()
    # Other lists count as tuples, because PyTorch's DataLoader turns tuples into lists.
    _check_tuple(batch, f"Received in batch {number}")
    return batch[0], tuple(batch[1:])


def _check_tuple(batch, received):
    """Raises a ValueError unless a tuple can be `(x,)`, `(x, y)` or `(x, y, sample_weight)`."""
    if not 1 <= len(batch) <= 3 or isinstance(batch[0], (int, float)):
        advice = how_to_convert(batch[0]) if batch else ""
        raise ValueError(
            f"Expected x, (x, y) or (x, y, sample_weight). {received}: {described(batch)}."
            + (advice or " Put batches into a list, not into a tuple.")
        )


def _parts(model, batch):
    """The parts into which a `tf.distribute` strategy has split a batch, without empty ones."""
    if keras.backend.backend() != "tensorflow":
        return [batch]
    import tensorflow as tf

    leaves = tree.flatten(batch)
    if not any(isinstance(leaf, tf.distribute.DistributedValues) for leaf in leaves):
        return [batch]
    replicas = zip(*map(model.distribute_strategy.experimental_local_results, leaves), strict=True)
    return [tree.pack_sequence_as(batch, part) for part in replicas if part[0].shape[0]]


def _count(batches):
    """The number of batches: finite, infinite, or `None` if unknown."""
    if isinstance(batches, keras.utils.PyDataset):
        return math.inf if batches.num_batches is None else batches.num_batches
    if hasattr(batches, "cardinality"):  # a tf.data.Dataset, or a distributed one
        count = int(batches.cardinality() if callable(batches.cardinality) else batches.cardinality)
        return {-1: math.inf, -2: None}.get(count, count)
    try:
        return len(batches)
    except TypeError:
        return None


def _check_number(name, value):
    number = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if value is None or (number and value > 0):
        return
    advice = ""
    if name == "steps" and (is_array(value) or isinstance(value, (list, tuple))):
        advice = " Targets are not needed. To pass them anyway: recalibrate(model, (x, y))."
    raise ValueError(
        f"Expected {name} to be a positive integer or None. Received: {described(value)}.{advice}"
    )


def _check_iterable(batches):
    advice = ""
    if isinstance(batches, (str, bytes, os.PathLike)):
        advice = " Load the data first, for example with numpy.load."
    elif callable(batches) and not isinstance(batches, Iterable):
        advice = " Call the function, and pass what it returns."
    elif isinstance(batches, Iterable):
        return
    raise ValueError(
        "Expected arrays or an iterable of batches. Received: batches of type "
        f"{type(batches).__name__}.{advice}"
    )
