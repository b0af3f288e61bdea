"""Yields batches of a model's inputs from all containers that `fit` accepts."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras import tree
from rich.console import Console
from rich.progress import track

from kerasbn.tools._models import is_graph


def input_batches(
    model: keras.Model, batches: Any, steps: int | None, batch_size: int | None, task: str
) -> Iterator[Any]:
    """Yields batches of inputs and shows a progress bar on a terminal.

    Args:
        model: Model that takes the inputs.
        batches: Arrays or an iterable of batches, with or without targets. See `recalibrate`.
        steps: Number of batches to yield, or `None` for all.
        batch_size: Number of examples per batch, for arrays. `None` stands for 32.
        task: Text of the progress bar.

    Yields:
        The inputs of one batch.

    Raises:
        ValueError: If there are no batches, fewer batches than `steps`, or endless batches without
            `steps`. If a batch is empty or does not fit the model. If `batch_size` is given for
            something other than arrays.
    """
    _check_positive("steps", steps)
    _check_positive("batch_size", batch_size)
    arrays = _arrays(model, batches)
    if arrays is not None:
        count, batches = _cut(arrays, batch_size or 32)
        batches = ((x,) for x in batches)
    elif batch_size is not None:
        raise ValueError(
            "batch_size is only for arrays, to cut them into batches. Received: "
            f"batch_size={batch_size} and batches of type {type(batches).__name__}. Set the batch "
            "size where you create the batches."
        )
    elif not isinstance(batches, Iterable):
        raise ValueError(
            "Expected arrays or an iterable of batches. Received: batches of type "
            f"{type(batches).__name__}."
        )
    else:
        count = _count(batches)
    if steps is None and count == math.inf:
        raise ValueError(
            f"Received: batches without end, of type {type(batches).__name__}, and steps=None. "
            "Set `steps` to the number of batches to use."
        )
    total = min((n for n in (count, steps) if n is not None), default=None)
    console = Console(file=sys.stderr)
    done = 0
    for batch in track(
        itertools.islice(batches, steps),
        task,
        total,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ):
        x = _without_targets(model, batch)
        _check_fit(model, x, done)
        yield x
        done += 1
    if done < (steps or 1):
        raise ValueError(
            f"Expected {steps or 'at least 1'} batches. Received: {done}, and then no more. Pass "
            "more data or lower `steps`. A generator can be used only once."
        )


def shapes_of(x: Any) -> list[tuple[int, ...]]:
    """The shapes of all arrays in a structure."""
    return [tuple(array.shape) for array in tree.flatten(x)]


def _arrays(model, batches):
    """The inputs if `batches` consists of arrays with all the data, or `None` for an iterable."""
    if isinstance(batches, tuple):
        return keras.utils.unpack_x_y_sample_weight(batches)[0]
    if _is_array(batches) or isinstance(batches, dict) or _is_one_for_each_input(model, batches):
        return batches
    return None


def _without_targets(model, batch):
    if _is_one_for_each_input(model, batch):
        return batch
    # Treat any other list as a tuple, because PyTorch's DataLoader turns tuples into lists.
    return keras.utils.unpack_x_y_sample_weight(batch)[0]


def _is_array(x):
    return hasattr(x, "__array__") and hasattr(x, "shape")


def _is_one_for_each_input(model, x):
    inputs = len(model.inputs) if is_graph(model) else 0
    return isinstance(x, list) and len(x) == inputs > 1 and all(map(_is_array, x))


def _cut(arrays, size):
    """Cuts arrays into batches. Returns the number of batches and the batches."""
    examples = {shape[0] if shape else 0 for shape in shapes_of(arrays)}
    if len(examples) != 1:
        raise ValueError(
            "Expected arrays with equally many examples. Received: arrays of the shapes "
            f"{shapes_of(arrays)}."
        )
    starts = range(0, examples.pop(), size)

    def batch(start):
        return tree.map_structure(lambda array: array[start : start + size], arrays)

    return len(starts), map(batch, starts)


def _count(batches):
    """The number of batches: finite, infinite, or `None` if unknown."""
    if isinstance(batches, keras.utils.PyDataset):
        return math.inf if batches.num_batches is None else batches.num_batches
    if hasattr(batches, "cardinality"):  # a tf.data.Dataset
        count = int(batches.cardinality())
        return {-1: math.inf, -2: None}.get(count, count)
    try:
        return len(batches)
    except TypeError:
        return None


def _check_positive(name, value):
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"Expected {name} to be a positive integer or None. Received: {value!r}.")


def _check_fit(model, x, number):
    """Raises a ValueError unless a batch has examples, in shapes that the model accepts."""
    leaves = tree.flatten(x)
    if any(leaf is None for leaf in leaves):  # an optional input, checked by the model itself
        return
    if not all(map(_is_array, leaves)):
        raise ValueError(f"Expected arrays. Received in batch {number}: {x!r}.")
    shapes = shapes_of(x)
    if not all(shape and shape[0] for shape in shapes):
        raise ValueError(
            f"Batch {number} is empty. Expected at least one example. Received: arrays of the "
            f"shapes {shapes}."
        )
    if not is_graph(model):
        return
    expected = {tensor.name: tuple(tensor.shape) for tensor in model.inputs}
    if isinstance(x, dict) and expected.keys() <= x.keys():
        shapes = [tuple(x[name].shape) for name in expected]
    fit = len(shapes) == len(expected) and all(map(_fits, shapes, expected.values()))
    if not fit:
        raise ValueError(
            f"Batch {number} does not fit model '{model.name}'. Expected: inputs of the shapes "
            f"{list(expected.values())}. Received: arrays of the shapes {shapes}."
        )


def _fits(shape, expected):
    # Keras adds or removes a last axis of size 1.
    candidates = [shape, (*shape, 1), *([shape[:-1]] if shape[-1] == 1 else [])]
    return any(
        len(candidate) == len(expected)
        and all(b in (None, a) for a, b in zip(candidate, expected, strict=True))
        for candidate in candidates
    )
