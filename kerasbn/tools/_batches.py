"""Yields batches of a model's inputs from all containers that `fit` accepts."""

from __future__ import annotations

import itertools
import math
import numbers
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras import tree
from rich.console import Console
from rich.progress import track

from kerasbn.tools._models import is_graph
from kerasbn.tools._wording import counted, described, dtype_name, is_array, listed


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
    _check_number("steps", steps)
    _check_number("batch_size", batch_size)
    arrays = _arrays(model, batches)
    if arrays is not None:
        count, batches = _cut(arrays, batch_size or 32)
        batches = ((x,) for x in batches)
        advice = ["Pass more data.", "Lower `steps` or `batch_size`."]
    elif batch_size is not None:
        raise ValueError(
            "batch_size is only for arrays, to cut them into batches. Received: "
            f"batch_size={batch_size} and batches of type {type(batches).__name__}. Set the batch "
            "size where you create the batches."
        )
    else:
        _check_iterable(batches)
        count = _count(batches)
        once = "A generator can be used only once, so create it again."
        used_up = isinstance(batches, Iterator)
        advice = [once if used_up else "Pass more data.", "Lower `steps`."]
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
        x = _without_targets(model, batch, done)
        _check_fit(model, x, done)
        yield x
        done += 1
    if done < (steps or 1):
        received = f"{done}, and then no more" if done else "none"
        raise ValueError(
            f"Expected {counted(steps, 'batch', 'batches') if steps else 'at least 1 batch'}. "
            f"Received: {received}. {' '.join(advice if steps else advice[:1])}"
        )


def shapes_of(x: Any) -> list[tuple[int, ...]]:
    """The shapes of all arrays in a structure."""
    return [tuple(array.shape) for array in tree.flatten(x)]


def _arrays(model, batches):
    """The inputs if `batches` consists of arrays with all the data, or `None` for an iterable."""
    if isinstance(batches, tuple):
        _check_tuple(batches, "Received")
        return batches[0]
    if is_array(batches) or isinstance(batches, dict) or _is_one_for_each_input(model, batches):
        return batches
    return None


def _without_targets(model, batch, number):
    if not isinstance(batch, (list, tuple)) or _is_one_for_each_input(model, batch):
        return batch
    # Treat any other list as a tuple, because PyTorch's DataLoader turns tuples into lists.
    _check_tuple(batch, f"Received in batch {number}")
    return batch[0]


def _check_tuple(batch, received):
    """Raises a ValueError unless a tuple may stand for inputs with targets and sample weights."""
    if not 1 <= len(batch) <= 3 or isinstance(batch[0], (int, float)):
        advice = _how_to_convert(batch[0]) if batch else ""
        raise ValueError(
            f"Expected x, (x, y) or (x, y, sample_weight). {received}: {described(batch)}."
            + (advice or " Put batches into a list, not into a tuple.")
        )


def _how_to_convert(x):
    return " Convert numbers to an array: numpy.asarray(x)." if isinstance(x, (int, float)) else ""


def _is_one_for_each_input(model, x):
    inputs = len(model.inputs) if is_graph(model) else 0
    return isinstance(x, list) and len(x) == inputs > 1 and all(map(is_array, x))


def _cut(arrays, size):
    """Cuts arrays into batches. Returns the number of batches and the batches."""
    leaves = tree.flatten(arrays)
    for leaf in leaves:
        if not is_array(leaf) or not len(leaf.shape):
            raise ValueError(
                "Expected arrays with the examples along their first axis. Received: "
                f"{described(leaf)}.{_how_to_convert(leaf)}"
            )
    examples = {leaf.shape[0] for leaf in leaves}
    if len(examples) != 1:
        raise ValueError(
            "Expected arrays with equally many examples. Received: "
            + (f"arrays of the shapes {shapes_of(arrays)}." if leaves else "no arrays.")
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


def _check_fit(model, x, number):
    """Raises a ValueError unless a batch has examples that the model accepts."""
    leaves = tree.flatten(x)
    if any(leaf is None for leaf in leaves):  # an optional input, checked by the model itself
        return
    for leaf in leaves:
        if not is_array(leaf):
            raise ValueError(
                f"Expected arrays. Received in batch {number}: {described(leaf)}."
                f"{_how_to_convert(leaf)}"
            )
    shapes = shapes_of(x)
    if not all(shape and shape[0] for shape in shapes):
        raise ValueError(
            f"Batch {number} is empty. Expected at least one example. Received: arrays of the "
            f"shapes {shapes}."
        )
    if is_graph(model):
        _check_inputs(model, x, number)


def _check_inputs(model, x, number):
    """Raises a ValueError unless a batch fits the inputs of a Sequential or functional model."""
    tensors, arrays = model.inputs, tree.flatten(x)
    wrong = f"Batch {number} does not fit model '{model.name}'."
    if isinstance(x, dict):
        named = _named_inputs(model)
        missing = [name for name in named if name not in x]
        if missing and len(named) == 1:
            raise ValueError(
                f"{wrong} Expected: one array. Received: {described(x)}. Pass its value."
            )
        if missing:
            raise ValueError(
                f"{wrong} Expected: a dictionary with the keys {list(named)}. Received: "
                f"{described(x)}. Add {listed(map(repr, missing))}."
            )
        tensors, arrays = list(named.values()), [x[name] for name in named]
    expected = [tuple(tensor.shape) for tensor in tensors]
    shapes = shapes_of(arrays)
    if len(shapes) != len(expected) or not all(map(_fits, shapes, expected)):
        raise ValueError(
            f"{wrong} Expected: inputs of the shapes {expected}. Received: arrays of the shapes "
            f"{shapes}."
        )
    for tensor, array in zip(tensors, arrays, strict=True):
        if not _is_number(dtype_name(array)) and _is_number(tensor.dtype):
            lossy = "complex" in dtype_name(array)
            raise ValueError(
                f"{wrong} Expected: real numbers ({tensor.dtype}). Received: {described(array)}. "
                f"Convert it, for example with {'array.real' if lossy else 'array.astype(float)'}."
            )


def _named_inputs(model):
    """The inputs by the keys of a dictionary of arrays."""
    structure = None if isinstance(model, keras.Sequential) else model.input
    if isinstance(structure, dict) and len(structure) == len(model.inputs):  # not nested
        return structure
    return {tensor.name: tensor for tensor in model.inputs}


def _is_number(dtype):
    # Names of other dtypes are <U3, |S3, object, str, string, complex64 and datetime64[ns].
    return any(word in dtype for word in ("float", "int", "bool")) and "complex" not in dtype


def _fits(shape, expected):
    # Keras adds or removes a last axis of size 1.
    candidates = [shape, (*shape, 1), *([shape[:-1]] if shape[-1] == 1 else [])]
    return any(
        len(candidate) == len(expected)
        and all(b in (None, a) for a, b in zip(candidate, expected, strict=True))
        for candidate in candidates
    )
