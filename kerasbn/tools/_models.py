"""Questions about Keras models and the errors if a tool cannot use one."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from kerasbn._keras_private import all_layers, overrides_call
from kerasbn.batch_norm import BatchNorm

BATCH_NORMS = (BatchNorm, keras.layers.BatchNormalization)


def batch_norms(model: keras.Model) -> list[keras.Layer]:
    """Every BatchNorm and BatchNormalization in the model, at any depth, subclasses included."""
    return [layer for layer in all_layers(model) if isinstance(layer, BATCH_NORMS)]


def is_graph(layer: Any) -> bool:
    """Whether a layer is a Sequential or functional model that runs its graph and nothing else."""
    functional = isinstance(layer, keras.Model) and isinstance(layer, keras.Function)
    if not functional and not isinstance(layer, keras.Sequential):
        return False
    # A Sequential model gets its inputs together with its graph. On nested structures it gets none.
    return not overrides_call(layer) and hasattr(layer, "inputs")


def config_of(layer: keras.Operation) -> dict[str, Any]:
    """The configuration of a layer, or a ValueError that says how to get one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns that loading a `lambda` is unsafe
        try:
            return layer.get_config()
        except NotImplementedError as error:
            raise ValueError(
                f"'{layer.name}' of the class {type(layer).__name__} cannot be cloned, because it "
                f"has no configuration. Implement `get_config`. Keras says: {error}"
            ) from error


def check_built(model: keras.Model) -> None:
    """Raises a ValueError unless `model` is a Keras model that has been built."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"Expected a built keras.Model. Received: {model!r} of type {type(model).__name__}. "
            "Put a single layer into keras.Sequential([keras.Input(shape), layer])."
        )
    if not model.built:
        raise ValueError(
            f"Expected a built model. Received: model '{model.name}', which has no weights yet. "
            "Give it an Input, call `model.build(input_shape)`, or call it once on a batch."
        )


def check_graph(model: keras.Model) -> None:
    """Raises a ValueError unless `model` is built, and Sequential or functional."""
    check_built(model)
    if not is_graph(model):
        raise ValueError(
            "Expected a Sequential or functional model, whose graph of layer calls can be rebuilt. "
            f"Received: model '{model.name}' of the class {type(model).__name__}, which has its "
            "own `call` and cannot be cloned. Write it with the functional API, or pass the "
            "Sequential and functional models inside it one by one."
        )


def warn_nothing_to_do(model: keras.Model, wanted: str, stacklevel: int = 3) -> None:
    """Warns that the model has no such layer.

    Args:
        model: Model without such a layer.
        wanted: Name of the layer's class.
        stacklevel: Stack level of `warnings.warn`. The default names the line that called the tool.
    """
    message = f"Model '{model.name}' has no {wanted} layer and stays unchanged."
    warnings.warn(message, stacklevel=stacklevel)
