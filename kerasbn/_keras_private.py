"""The private APIs of Keras that this package uses, one function for each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras.src.backend.common import global_state


def all_layers(layer: keras.Layer) -> list[keras.Layer]:
    """The layer or model itself and every layer inside it, at any depth, each once.

    The public `Model.layers` lists only the direct layers of a model. Keras has no public way to
    list the layers inside other layers, such as wrappers and custom blocks. Keras uses this method
    for `summary`, for `weights` and for saving.
    """
    return layer._flatten_layers(include_self=True, recursive=True)


def direct_layers(layer: keras.Layer) -> list[keras.Layer]:
    """The layers directly inside a layer or model. Only models have the public `layers`."""
    return layer._flatten_layers(include_self=False, recursive=False)


def overrides_call(model: keras.Model) -> bool:
    """Whether the class of a Sequential or functional model defines its own `call`.

    The class of functional models is not public, so there is no public `call` to compare with. Only
    the module name shows whether a class belongs to Keras.
    """
    owner = next(cls for cls in type(model).__mro__ if "call" in vars(cls))
    return not owner.__module__.startswith("keras.")


@contextlib.contextmanager
def replaced_call(layer: keras.Layer, call: Callable[..., Any]) -> Iterator[None]:
    """Makes one layer run `call(inputs, ...)` instead of its class's `call`, in a `with` block.

    The replacement is an attribute of the instance, which Keras looks up before the method of the
    class. It bypasses `Layer.__setattr__`, so Keras does not track it. Keras has no public hook
    into the calls of a layer. Cloning the model with another layer would not reach the layers of
    subclassed models.
    """
    vars(layer)["call"] = call
    try:
        yield
    finally:
        del vars(layer)["call"]


def writes_legacy_file() -> bool:
    """Whether Keras reads or writes a model's configuration in the format of legacy `.h5` files.

    Keras drops the entry `axis` from such a configuration if it has several axes. So it needs an
    entry of another name, which other configurations do not have.
    """
    return bool(global_state.get_global_attribute("use_legacy_config", False))
