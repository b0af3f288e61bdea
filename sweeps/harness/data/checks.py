"""Checks the arrays of a data set, and names the step that corrects each common mistake."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sweeps.harness.errors import UserError
from sweeps.harness.wording import counted

_PIXELS, _LABELS = "integers from 0 to 255", "integers from 0 to 9"
# Both arrays at once, because a class that one of them lacks would shift the other's numbers.
_NUMBER_CLASSES = (
    "Number the classes: y_train, y_test = np.split(np.unique(np.concatenate([y_train, y_test]), "
    "return_inverse=True)[1], [len(y_train)])"
)
_BRIGHT = 64  # the brightest pixel of images that use a quarter of the range
_SPARSE = 0.01  # share of pixels above 0; it is 0.19 in MNIST


def as_bytes(arrays: Mapping[str, np.ndarray], files: Mapping[str, Path]) -> dict[str, np.ndarray]:
    """Checks all arrays, and returns them as uint8.

    Images have the shape (n, 28, 28) and pixels from 0 to 255. Labels have the shape (n,) and
    classes from 0 to 9.

    Args:
        arrays: The arrays `x_train`, `y_train`, `x_test` and `y_test`.
        files: Path of each array's file. The messages quote it.

    Raises:
        UserError: If an array is something else. The message names the step that corrects it.
    """
    for key in arrays:
        fault = _fault_of_images(key, arrays) if key[0] == "x" else _fault_of_labels(key, arrays)
        if fault:
            raise UserError(f"{files[key]}: {key} {fault}")
    for x, y in (("x_train", "y_train"), ("x_test", "y_test")):
        if len(arrays[x]) != len(arrays[y]):
            raise UserError(
                f"{files[y]}: {y} has {counted(len(arrays[y]), 'label')}, expected "
                f"{len(arrays[x]):,}, one for each image of {x} in {files[x].name}. "
                "Replace the wrong file."
            )
    return {key: array.astype(np.uint8, copy=False) for key, array in arrays.items()}


def check_brightness(arrays: Mapping[str, np.ndarray], files: Mapping[str, Path]) -> None:
    """Refuses black images, and prints a warning about images that are nearly black.

    Args:
        arrays: The arrays, as `as_bytes` returns them.
        files: Path of each array's file. The messages quote it.

    Raises:
        UserError: If no pixel of an array is above 1.
    """
    doubts = []
    for key in ("x_train", "x_test"):
        highest, share = int(arrays[key].max()), np.count_nonzero(arrays[key]) / arrays[key].size
        if highest <= 1:
            raise UserError(
                f"{files[key]}: {key} has no pixel above {highest}, so its images are black. "
                f"Expected {_PIXELS}. If the pixels were floats from 0 to 1, multiply them by 255 "
                f'before they become integers: np.round(255 * {key}).astype("uint8"). If they are '
                f"zeros and ones, save 255 * {key}"
            )
        if share < _SPARSE:
            doubts.append(f"only {share:.2%} of the pixels of {key} are above 0")
        elif highest < _BRIGHT:
            doubts.append(f"the brightest pixel of {key} is {highest} of 255")
    if doubts:
        print(
            f"warning: {files['x_train']}: {' and '.join(doubts)}. Networks may learn nothing from "
            "images that are nearly black. If they should be brighter, rescale the original pixels "
            "to the range from 0 to 255 before you save them as uint8.",
            file=sys.stderr,
        )


def fault_of_objects(key: str) -> str:
    """The fault of an array of Python objects, with the step that corrects it.

    Args:
        key: Name of the array.
    """
    expected = _PIXELS if key[0] == "x" else _LABELS
    step = f"Save np.stack({key}) as uint8." if key[0] == "x" else _NUMBER_CLASSES
    return f"holds Python objects, such as strings or lists, expected {expected}. {step}"


def _fault_of_images(key, arrays):
    """The fault of an array of images, with the step that corrects it. `None` for good images."""
    array = arrays[key]
    if array.ndim == 0 or array.shape[1:] != (28, 28) or not len(array):
        expected = "expected (n, 28, 28) with n of 1 or more"
        return f"has shape {array.shape}, {expected}. {_reshaping(key, array)}"
    if array.dtype == bool:
        return f'is bool, expected {_PIXELS}. Save 255 * {key}.astype("uint8")'
    if array.dtype.kind not in "iuf":
        return f"is {array.dtype}, expected {_PIXELS}. Save the pixels as uint8."
    if array.dtype.kind == "f":
        return _fault_of_float_images(key, arrays)
    low, high = array.min(), array.max()
    if array.dtype == np.uint16 and high > 255:
        step = f'Save np.round({key} / 257).astype("uint8")'
        return f"is uint16 with values {low} to {high}, expected {_PIXELS}. {step}"
    if low < 0 or high > 255:
        return f"has values {low} to {high}, expected {_PIXELS}. Correct them."
    return None


def _reshaping(key, array):
    """The step that gives images their shape."""
    if array.ndim and array[:1].size == 28 * 28:
        return f"Reshape the array: {key}.reshape(-1, 28, 28)"
    if array.ndim == 4 and array.shape[1:3] == (28, 28):
        return f"Make the images gray: {key}.mean(axis=-1), then convert them to uint8."
    return "Crop, scale or replace the images."


def _fault_of_float_images(key, arrays):
    # Both arrays need the same step, so the range is that of both.
    images = [a for a in (arrays["x_train"], arrays["x_test"]) if a.dtype.kind == "f" and a.size]
    low, high = min(x.min() for x in images), max(x.max() for x in images)
    received = f"is {arrays[key].dtype} with values {low:.4g} to {high:.4g}, expected {_PIXELS}"
    if not np.isfinite([low, high]).all():
        return f"{received}. Replace NaN and infinite values first."
    slack = 0.1  # resampling overshoots a little
    if low >= -slack and high <= 1 + slack:
        inside = key if low >= 0 and high <= 1 else f"np.clip({key}, 0, 1)"
        words, scaled = "Multiply by 255, round, and convert", f"255 * {inside}"
    elif low >= -1 - slack and high <= 1 + slack:
        inside = key if low >= -1 and high <= 1 else f"np.clip({key}, -1, 1)"
        words, scaled = "Shift, scale, round, and convert", f"127.5 * ({inside} + 1)"
    elif low >= 0 and _BRIGHT <= high <= 255:
        words, scaled = "Round and convert", key
    elif low < high:
        words = "Rescale, round, and convert"
        scaled = f"np.interp({key}, ({low:.4g}, {high:.4g}), (0, 255))"
    else:
        return f"{received}. Replace the array: all its pixels are equal."
    return f'{received}. {words}: np.round({scaled}).astype("uint8")'


def _fault_of_labels(key, arrays):
    """The fault of an array of labels, with the step that corrects it. `None` for good labels."""
    array, kind = arrays[key], arrays[key].dtype.kind
    if array.ndim == 2 and _is_one_hot(array):
        received = f"has one-hot labels of shape {array.shape}"
        return f"{received}, expected {_LABELS} of shape (n,). Save np.argmax({key}, axis=1)"
    if array.ndim != 1 or not len(array):
        column = array.ndim == 2 and array.shape[1] == 1
        step = f"Save {key}[:, 0]" if column else "Reshape or replace the array."
        return f"has shape {array.shape}, expected (n,) with n of 1 or more. {step}"
    if kind not in "iufbUS":
        return f"is {array.dtype}, expected {_LABELS}. {_numbering(arrays)}"
    if kind in "US":
        examples = ", ".join(map(repr, np.unique(array)[:3].tolist()))
        return f"has text labels ({examples}, ...), expected {_LABELS}. {_numbering(arrays)}"
    low, high = array.min(), array.max()
    if kind == "f" and not (array == np.round(array)).all():
        return (
            f"is {array.dtype} with fractions, expected {_LABELS}. Labels are the numbers of "
            "classes. Replace the array."
        )
    if low < 0 or high > 9:
        return f"has labels {low:g} to {high:g}, expected {_LABELS}. {_numbering(arrays)}"
    if kind in "fb":
        return f'is {array.dtype}, expected {_LABELS}. Save {key}.astype("uint8")'
    return None


def _is_one_hot(array):
    return (
        array.size > 0
        and array.dtype.kind in "iufb"
        and bool(
            ((array == 0) | (array == 1)).all()
            and (array.sum(axis=1) == 1).all()
            and array.shape[1] > 1
        )
    )


def _numbering(arrays):
    """The step that turns any labels into the numbers of their classes."""
    found = set()
    for key in ("y_train", "y_test"):
        found |= set(np.unique(arrays[key]).tolist())
    if len(found) > 10:
        return f"The networks have ten outputs, so keep ten of the {len(found)} classes."
    return _NUMBER_CLASSES
