"""Checks data against the inputs that a model takes."""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from kerasbn._keras_private import is_array
from kerasbn.tools._models import is_graph
from kerasbn.tools._wording import counted, described, dtype_name, listed


def are_inputs(model: keras.Model, x: Any) -> bool:
    """Whether a list or tuple holds the several inputs of a model, one array for each.

    The list may be flat, or nested as the inputs of the model are. `(x,)`, `(x, y)` and a list of
    batches do not match, because each of their items holds all inputs.
    """
    if not isinstance(x, (list, tuple)) or len(x) < 2:
        return False
    inputs, leaves = _inputs_of(model), tree.flatten(x)
    present = [leaf for leaf in leaves if leaf is not None]  # an optional input may be `None`
    if not present or not all(map(is_array, present)):
        return False
    # ({"a": array}, y) is one input and a target.
    flat = not any(tree.is_nested(item) for item in x) and _count_leaves(inputs) == len(x)
    return flat or _skeleton(x) == inputs


def check_fit(model: keras.Model, x: Any, number: int) -> None:
    """Raises a ValueError unless a batch has examples that the model accepts.

    Args:
        model: Model that takes the batch.
        x: Arrays of the batch.
        number: Number of the batch, used in error messages.
    """
    if any(leaf is None for leaf in tree.flatten(x)):  # an optional input, checked by the model
        return
    shapes = shapes_of(x)
    if () in shapes:
        raise ValueError(
            f"Batch {number} has no axis for the examples. Received: arrays of the shapes "
            f"{shapes}. Make batches first, for example with dataset.batch(32)."
        )
    if not all(shape and shape[0] for shape in shapes):
        raise ValueError(
            f"Batch {number} is empty. Expected at least one example. Received: arrays of the "
            f"shapes {shapes}. Leave out this batch."
        )
    if is_graph(model):
        _check_inputs(model, x, number)
    if keras.backend.backend() != "tensorflow":
        _check_no_text(x, number)


def shapes_of(x: Any) -> list[tuple[int | None, ...]]:
    """The shapes of all arrays in a structure."""
    return [tuple(array.shape) for array in tree.flatten(x) if array is not None]


def how_to_convert(x: Any) -> str:
    """Advice for a number in place of an array. Empty for everything else."""
    return " Convert numbers to an array: numpy.asarray(x)." if isinstance(x, (int, float)) else ""


def _inputs_of(model):
    """The containers around the inputs. For a subclassed model, those of its first call."""
    if isinstance(model, keras.Sequential) and is_graph(model):
        return _skeleton(model.inputs[0])
    if is_graph(model):
        return _skeleton(model.input)
    return _skeleton((model.get_build_config() or {}).get("input_shape"))


def _skeleton(structure):
    """The containers of a structure, with `None` for each leaf and a tuple for each list.

    A tuple of numbers is the shape of an array, and therefore a leaf.
    """
    if isinstance(structure, dict):
        return {key: _skeleton(each) for key, each in structure.items()}
    containers = isinstance(structure, (list, tuple)) and any(
        each is not None and not isinstance(each, int) for each in structure
    )
    return tuple(map(_skeleton, structure)) if containers else None


def _count_leaves(skeleton):
    inside = list(skeleton.values()) if isinstance(skeleton, dict) else skeleton
    return 1 if inside is None else sum(map(_count_leaves, inside))


def _check_inputs(model, x, number):
    """Raises a ValueError unless a batch fits the inputs of a Sequential or functional model."""
    tensors, arrays = model.inputs, tree.flatten(x)
    wrong = f"Batch {number} does not fit model '{model.name}'."
    if isinstance(x, dict) and not _is_nested(model):
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
    if len(shapes) != len(expected):
        raise ValueError(
            f"{wrong} Expected: {counted(len(expected), 'array')}, of the shapes {expected}. "
            f"Received: {counted(len(shapes), 'array')}, of the shapes {shapes}. Pass one array "
            "for each input, in a list or in a dictionary."
        )
    if not all(map(_fits, shapes, expected)):
        raise ValueError(
            f"{wrong} Expected: inputs of the shapes {expected}. Received: arrays of the shapes "
            f"{shapes}. {_how_to_reshape(shapes, expected)}"
        )
    for tensor, array in zip(tensors, arrays, strict=True):
        if not _is_number(dtype_name(array)) and _is_number(tensor.dtype):
            lossy = "complex" in dtype_name(array)
            raise ValueError(
                f"{wrong} Expected: real numbers ({tensor.dtype}). Received: {described(array)}. "
                f"Convert it, for example with {'array.real' if lossy else 'array.astype(float)'}."
            )


def _check_no_text(x, number):
    backend = keras.backend.backend()
    for array in tree.flatten(x):
        if any(word in dtype_name(array) for word in ("str", "<U", "|S", "object")):
            raise ValueError(
                f"Expected numbers. Received in batch {number}: {described(array)}. The backend "
                f"{backend} has no tensors of text. Turn the text into numbers before the model."
            )


def _is_nested(model):
    """Whether the inputs are in nested containers. If so, only their order identifies them."""
    structure = None if isinstance(model, keras.Sequential) else model.input
    inside = structure.values() if isinstance(structure, dict) else structure
    return isinstance(structure, (dict, list, tuple)) and any(
        isinstance(each, (dict, list, tuple)) for each in inside
    )


def _named_inputs(model):
    """The inputs by the keys that a dictionary of arrays must have."""
    structure = None if isinstance(model, keras.Sequential) else model.input
    if isinstance(structure, dict):
        return structure
    return {tensor.name: tensor for tensor in model.inputs}


def _how_to_reshape(shapes, expected):
    for shape, wanted in zip(shapes, expected, strict=True):
        if len(shape) == len(wanted) - 1 and _fits((None, *shape), wanted):
            return "For a single example, add an axis in front: array[None]."
    return "Give the data the shape of the model's inputs."


def _is_number(dtype):
    # Names of other dtypes are <U3, |S3, object, str, string, complex64 and datetime64[ns].
    return any(word in dtype for word in ("float", "int", "bool")) and "complex" not in dtype


def _fits(shape, expected):
    # Keras adds or removes a last axis of size 1. The length of ragged axes is `None`.
    candidates = [shape, (*shape, 1), *([shape[:-1]] if shape[-1] == 1 else [])]
    return any(
        len(candidate) == len(expected)
        and all(a is None or b in (None, a) for a, b in zip(candidate, expected, strict=True))
        for candidate in candidates
    )
