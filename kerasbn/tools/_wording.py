"""Words of messages: numbers with their nouns, lists of names, and short descriptions of values."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sized
from typing import Any

import keras
import numpy as np

from kerasbn._keras_private import is_array

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """The number with its noun, such as "1 batch" and "2 batches".

    Args:
        number: Number of things.
        noun: Name of a single thing.
        plural: Name of several things. Default `None`: the noun with an "s".
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Iterable[str], most: int = 5) -> str:
    """The names with commas between them. After the first `most`, only their number."""
    names = list(names)
    rest = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *rest])


def dtype_name(array: Any) -> str:
    """The name of an array's dtype, on any backend."""
    try:
        return keras.backend.standardize_dtype(array.dtype)
    except (AttributeError, TypeError, ValueError):  # such as NumPy's dtypes of strings
        return str(getattr(array, "dtype", type(array).__name__))


def described(value: Any) -> str:
    """A value in a few words: arrays by shape and dtype, containers by size, anything else short.

    A message that prints the values of an array hides what is wrong.
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, (np.number, np.bool_)):
        return repr(value.item())
    if is_array(value):
        shape = f"of the shape {tuple(value.shape)}"
        if not hasattr(value, "dtype"):  # a DataFrame has a dtype for each column
            return f"a {type(value).__name__} {shape}"
        kind = "an array" if hasattr(value, "__array__") else f"a {type(value).__name__}"
        return f"{kind} {shape} and the dtype {dtype_name(value)}"
    if isinstance(value, dict):
        return f"a dictionary with the keys {_SHORT.repr(list(value))}"
    if isinstance(value, (list, tuple)):
        if not value:
            return f"an empty {type(value).__name__}"
        first = ", the first" if len(value) > 1 else ""
        size = counted(len(value), "item")
        return f"a {type(value).__name__} of {size}{first} of the type {type(value[0]).__name__}"
    if isinstance(value, Sized) and not isinstance(value, (str, bytes)):
        return f"an object of the type {type(value).__name__}"
    if isinstance(value, (bool, int, float)) or value is None:
        return repr(value)
    return f"{_SHORT.repr(value)} of the type {type(value).__name__}"
