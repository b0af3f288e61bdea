"""`from_keras` and `to_keras`: swap a model's batch norms, Keras's for this package's and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from kerasbn.batch_norm import BatchNorm
from kerasbn.tools._model_cloning import clone_layer, copy_state, rebuild
from kerasbn.tools._model_graph import check_graph, config_of, layers_of, warn_nothing_to_do

# What `keras.layers.BatchNormalization` lacks, and the value that means: not used.
_OWN_OPTIONS = {"virtual_batch_size": None, "unbiased_variance": False, "debias": False}


def from_keras(model: keras.Model) -> keras.Model:
    """Returns the model with a `kerasbn.BatchNorm` for every `keras.layers.BatchNormalization`.

    At any depth: in nested models, and in wrappers and blocks whose configuration holds their
    layers, as that of `keras.layers.TimeDistributed` does. Weights, names, shared layers,
    `trainable` flags and the state of random generators carry over, and the outputs are the same.
    Subclasses of `BatchNormalization` are left as they are, since they may compute something else.

    The returned model is a new one, of new layers; `model` is left as it is. It is not compiled:
    call `compile`, which starts with a fresh optimizer. A model of a class of its own stays of that
    class if its constructor takes inputs and outputs alone, and else becomes a plain Keras model.

    Args:
        model: A built Sequential or functional model, nested ones included.

    Returns:
        The new model; `model` itself, with a warning, if it has no `BatchNormalization`.

    Raises:
        ValueError: If the model is not built or has a `call` of its own; if a layer cannot be
            cloned, or makes its batch norms itself; or if a `BatchNormalization` has an option that
            `BatchNorm` does not take, such as `epsilon=0`.

    Example:

    >>> import keras, kerasbn
    >>> layers = [keras.layers.Dense(8), keras.layers.BatchNormalization(name="bn")]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> kerasbn.from_keras(model).get_layer("bn").__class__
    <class 'kerasbn.batch_norm.BatchNorm'>
    """
    return _convert(model, keras.layers.BatchNormalization, _from_keras)


def to_keras(model: keras.Model) -> keras.Model:
    """Returns the model with a `keras.layers.BatchNormalization` for every `kerasbn.BatchNorm`.

    The way back from `from_keras`, for use where this package is not installed; what is said there
    holds here too. `to_keras(from_keras(model))` has the outputs and the configuration of `model`.

    Args:
        model: A built Sequential or functional model, nested ones included.

    Returns:
        The new model; `model` itself, with a warning, if it has no `BatchNorm`.

    Raises:
        ValueError: If a `BatchNorm` uses what Keras's layer lacks: several axes, `momentum=None`,
            `virtual_batch_size`, `unbiased_variance` or `debias`; if one is of a subclass of
            `BatchNorm`; and as in `from_keras`.

    Example:

    >>> import keras, kerasbn
    >>> layers = [keras.layers.Dense(8), kerasbn.BatchNorm(name="bn")]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> kerasbn.to_keras(model).get_layer("bn").__class__.__name__
    'BatchNormalization'
    """
    return _convert(model, BatchNorm, _to_keras)


def _from_keras(config):
    return BatchNorm(**config)


def _to_keras(config):
    used = [f"{key}={config[key]}" for key, off in _OWN_OPTIONS.items() if config[key] != off]
    if config["momentum"] is None:
        used.append("momentum=None")
    axes = config["axis"] if isinstance(config["axis"], (list, tuple)) else [config["axis"]]
    if len(axes) > 1:
        used.append(f"axis={tuple(axes)}")
    if used:
        raise ValueError(
            f"Received: {', '.join(used)}. keras.layers.BatchNormalization has no such option. "
            "Build the model without it and copy the weights, or keep kerasbn.BatchNorm."
        )
    shared = {key: value for key, value in config.items() if key not in _OWN_OPTIONS}
    return keras.layers.BatchNormalization(**{**shared, "axis": axes[0]})


def _convert(model, source: type, swap: Callable[[dict], keras.Layer]):
    check_graph(model)
    if not any(type(layer) is source for layer in layers_of(model)):
        warn_nothing_to_do(model, source.__name__, stacklevel=4)
        return model

    def named_swap(config):
        try:
            return swap(config)
        except ValueError as error:
            raise ValueError(
                f"Batch norm '{config['name']}' cannot be converted. {error}"
            ) from error

    def make(layer):
        config = config_of(layer)
        if type(layer) is source:
            return named_swap(config)
        return clone_layer(layer, _swap_inside(config, _identity(source), named_swap))

    converted, pairs = rebuild(model, make)
    for old, new in pairs:
        _check_none_left(new, source)
        copy_state(old, new)
    return converted


def _swap_inside(config: Any, source: dict, swap: Callable[[dict], keras.Layer]) -> Any:
    """A layer's configuration with the batch norms that it describes swapped."""
    if isinstance(config, (list, tuple)):
        return type(config)(_swap_inside(value, source, swap) for value in config)
    if not isinstance(config, dict):
        return config
    if config.items() >= source.items():
        return {**config, **keras.saving.serialize_keras_object(swap(config["config"]))}
    return {key: _swap_inside(value, source, swap) for key, value in config.items()}


def _identity(cls):
    """How a layer of this class is told in a configuration."""
    saved = keras.saving.serialize_keras_object(cls(name="unused"))
    return {key: saved[key] for key in ("module", "class_name", "registered_name")}


def _check_none_left(layer, source):
    for inner in layers_of(layer):
        if type(inner) is source:
            raise ValueError(
                f"Layer '{layer.name}' of the class {type(layer).__name__} makes its "
                f"{source.__name__} '{inner.name}' itself, where it cannot be swapped. Let the "
                "class take it as an argument that `get_config` returns, or change it there."
            )
        if source is BatchNorm and isinstance(inner, BatchNorm):
            raise ValueError(
                f"Layer '{inner.name}' is of the class {type(inner).__name__}, a subclass of "
                "BatchNorm, for which Keras has no counterpart. Put a BatchNorm in its place first."
            )
