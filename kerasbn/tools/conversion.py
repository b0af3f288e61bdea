"""`from_keras` and `to_keras`: swap Keras's batch norms for this package's, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from kerasbn._keras_private import all_layers
from kerasbn.batch_norm import BatchNorm
from kerasbn.tools._model_cloning import clone_layer, copy_state, rebuild
from kerasbn.tools._models import check_graph, config_of, warn_lost_classes, warn_nothing_to_do

# Options that `keras.layers.BatchNormalization` lacks, with their values if unused.
_OWN_OPTIONS = {
    "virtual_batch_size": None,
    "unbiased_variance": False,
    "debias": False,
    "statistics": "auto",
}


def from_keras(model: keras.Model) -> keras.Model:
    """Returns the model with a `kerasbn.BatchNorm` for every `keras.layers.BatchNormalization`.

    It swaps layers at any depth: in nested models, and in wrappers and blocks whose configuration
    contains their layers, such as `keras.layers.TimeDistributed`. Weights, names, shared layers,
    `trainable` flags and the state of random generators carry over, and the outputs are the same.
    Subclasses of `BatchNormalization` stay, because they may compute something else.

    The returned model and its layers are new, and `model` does not change. The new model is not
    compiled. Calling `compile` starts with a fresh optimizer.

    A custom model class stays, with its methods, if it can hold the new layers. Its constructor
    must take `name`, and must require `inputs` and `outputs`. A Sequential model may instead be
    empty at first. `get_config` must return the values of all other arguments. Other classes
    become plain Keras models, with a warning, because they make the layers in the constructor.
    Loading a saved model would bring the old batch norms back. To keep such a class, use
    `kerasbn.BatchNorm` in its code. Save the weights of the old model with `save_weights`, and
    read them into the new one with `kerasbn.load_weights`.

    Args:
        model: Built Sequential or functional model. It may contain nested models.

    Returns:
        The new model. If `model` has no `BatchNormalization`, `model` itself, with a warning.

    Raises:
        ValueError: If the model is not built or has its own `call`. If a layer cannot be cloned or
            creates its batch norms itself. If a `BatchNormalization` has an option that `BatchNorm`
            does not accept, such as `epsilon=0`.

    Examples:
        >>> import keras, kerasbn
        >>> layers = [keras.layers.Dense(8), keras.layers.BatchNormalization(name="bn")]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> kerasbn.from_keras(model).get_layer("bn").__class__
        <class 'kerasbn.batch_norm.BatchNorm'>
    """
    return _convert(model, keras.layers.BatchNormalization, _from_keras)


def to_keras(model: keras.Model) -> keras.Model:
    """Returns the model with a `keras.layers.BatchNormalization` for every `kerasbn.BatchNorm`.

    This is the inverse of `from_keras`, for environments without this package. It rebuilds the
    model in the same way. `to_keras(from_keras(model))` has the outputs and the configuration of
    `model`.

    Args:
        model: Built Sequential or functional model. It may contain nested models.

    Returns:
        The new model. If `model` has no `BatchNorm`, `model` itself, with a warning.

    Raises:
        ValueError: If the model is not built or has its own `call`. If a layer cannot be cloned or
            creates its batch norms itself. If a `BatchNorm` uses an option that Keras's layer
            lacks: several axes, `momentum=None`, `virtual_batch_size`, `unbiased_variance`,
            `debias` or `statistics`. If the model contains a subclass of `BatchNorm`.

    Examples:
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
    used = [f"{key}={config[key]!r}" for key, off in _OWN_OPTIONS.items() if config[key] != off]
    if config["momentum"] is None:
        used.append("momentum=None")
    axes = config["axis"] if isinstance(config["axis"], (list, tuple)) else [config["axis"]]
    if len(axes) > 1:
        used.append(f"axis={tuple(axes)}")
    if used:
        raise ValueError(
            f"Received: {', '.join(used)}. keras.layers.BatchNormalization has no such option. "
            "Build the model without it and copy the weights, or keep kerasbn.BatchNorm. "
            '(`statistics` can be set on the layer: statistics="auto" converts.)'
        )
    shared = {key: value for key, value in config.items() if key not in _OWN_OPTIONS}
    return keras.layers.BatchNormalization(**{**shared, "axis": axes[0]})


def _convert(
    model: keras.Model, source: type[keras.Layer], swap: Callable[[dict[str, Any]], keras.Layer]
) -> keras.Model:
    check_graph(model)
    if not any(type(layer) is source for layer in all_layers(model)):
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

    converted, pairs, lost = rebuild(model, make)
    for old, new in pairs:
        _check_none_left(new, source)
        copy_state(old, new)
    target = "kerasbn.BatchNorm" if source is not BatchNorm else "keras.layers.BatchNormalization"
    advice = f"Or use {target} in its code and copy the weights with kerasbn.load_weights."
    warn_lost_classes(lost, advice, stacklevel=4)
    return converted


def _swap_inside(config: Any, source: dict, swap: Callable[[dict], keras.Layer]) -> Any:
    """The configuration of a layer, with the batch norms inside it swapped."""
    if isinstance(config, (list, tuple)):
        return type(config)(_swap_inside(value, source, swap) for value in config)
    if not isinstance(config, dict):
        return config
    if config.items() >= source.items():
        return {**config, **keras.saving.serialize_keras_object(swap(config["config"]))}
    return {key: _swap_inside(value, source, swap) for key, value in config.items()}


def _identity(cls):
    """The entries by which a configuration identifies a layer of this class."""
    saved = keras.saving.serialize_keras_object(cls(name="unused"))
    return {key: saved[key] for key in ("module", "class_name", "registered_name")}


def _check_none_left(layer, source):
    for inner in all_layers(layer):
        if type(inner) is source:
            raise ValueError(
                f"Layer '{layer.name}' of the class {type(layer).__name__} makes its "
                f"{source.__name__} '{inner.name}' itself, so it cannot be swapped. Change the "
                "code of the class, or let it take the batch norm as an argument that `get_config` "
                "returns."
            )
        if source is BatchNorm and isinstance(inner, BatchNorm):
            raise ValueError(
                f"Layer '{inner.name}' is of the class {type(inner).__name__}, a subclass of "
                "BatchNorm. Keras has no counterpart for it. Replace it with a BatchNorm first."
            )
