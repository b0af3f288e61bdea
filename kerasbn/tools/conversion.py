"""`from_keras` and `to_keras`: swap Keras's batch norms for this package's, and back."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import keras
from keras import ops

from kerasbn._keras_private import all_layers
from kerasbn.batch_norm import BatchNorm
from kerasbn.moments import stddev_of
from kerasbn.tools._model_cloning import clone_layer, copy_state, rebuild
from kerasbn.tools._models import (
    check_graph,
    check_where,
    config_of,
    warn_lost_classes,
    warn_none_chosen,
    warn_nothing_to_do,
)

# Options that `keras.layers.BatchNormalization` lacks, with their values if unused.
_OWN_OPTIONS = {
    "virtual_batch_size": None,
    "unbiased_variance": False,
    "debias": False,
    "statistics": "auto",
}
# Arguments that decide which weights a layer has, so a conversion cannot change them.
_OF_WEIGHTS = ("axis", "center", "scale")
_OF_LAYER = ("name", "dtype", "trainable", "activity_regularizer")
_Where = Callable[[keras.Layer], bool]


def from_keras(model: keras.Model, *, where: _Where | None = None, **options: Any) -> keras.Model:
    """Returns the model with a `kerasbn.BatchNorm` for every `keras.layers.BatchNormalization`.

    It swaps layers at any depth: in nested models, and in wrappers and blocks whose configuration
    contains their layers, such as `keras.layers.TimeDistributed`. Weights, names, shared layers,
    `trainable` flags and the state of random generators carry over, and the outputs are the same.
    Subclasses of `BatchNormalization` stay, because they may compute something else.

    The returned model and its layers are new, and `model` does not change. The new model is not
    compiled. Calling `compile` starts with a fresh optimizer.

    `options` are arguments of `BatchNorm`. All converted layers get them, and keep their other
    options. With options, layers that are a `BatchNorm` already get them, too. So `from_keras` also
    changes the options of an existing network:

        from_keras(model, synchronized=True)
        from_keras(model, virtual_batch_size=32, where=lambda layer: layer.name.startswith("conv"))

    Two options add weights. `debias=True` and `momentum=None` start with an `update_count` of 0,
    so the first update replaces the moving averages. `renorm=True` starts with the carried-over
    averages: `renorm_mean` is `moving_mean`, and `moving_stddev` and `renorm_stddev` are
    sqrt(moving_variance + epsilon). `renorm=False` drops these weights.

    A custom model class stays, with its methods, if it can hold the new layers. Its constructor
    must take `name`, and must require `inputs` and `outputs`. A Sequential model may instead be
    empty at first. `get_config` must return the values of all other arguments. Other classes
    become plain Keras models, with a warning, because they make the layers in the constructor.
    Loading a saved model would bring the old batch norms back. To keep such a class, use
    `kerasbn.BatchNorm` in its code. Save the weights of the old model with `save_weights`, and
    read them into the new one with `kerasbn.load_weights`.

    Args:
        model: Built Sequential or functional model. It may contain nested models.
        where: Function that takes a batch norm of `model` and returns whether to convert it.
            Default `None`: every batch norm is converted.
        **options: Arguments of `BatchNorm` for the converted layers, except `axis`, `center` and
            `scale`, which decide on the weights. Each layer keeps its `name`, `dtype` and
            `trainable`.

    Returns:
        The new model. If there is nothing to convert, `model` itself, with a warning.

    Raises:
        ValueError: If an option is unknown or out of range. If the model is not built or has its
            own `call`. If a layer cannot be cloned or creates its batch norms itself. If a
            `BatchNormalization` has an option that `BatchNorm` does not accept, such as
            `epsilon=0`, or that excludes one of `options`.

    Examples:
        >>> import keras, kerasbn
        >>> layers = [keras.layers.Dense(8), keras.layers.BatchNormalization(name="bn")]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> kerasbn.from_keras(model).get_layer("bn").__class__
        <class 'kerasbn.batch_norm.BatchNorm'>
        >>> kerasbn.from_keras(model, momentum=0.9).get_layer("bn").momentum
        0.9
    """
    check_where(where, "convert")
    _check_options(options)
    kinds = (keras.layers.BatchNormalization, *([BatchNorm] if options else []))
    return _convert(model, kinds, lambda config: BatchNorm(**{**config, **options}), where, options)


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
    return _convert(model, (BatchNorm,), _to_keras)


def _check_options(options):
    known = [
        name
        for name, parameter in inspect.signature(BatchNorm).parameters.items()
        if parameter.kind != parameter.VAR_KEYWORD and name not in _OF_WEIGHTS
    ]
    for name, value in options.items():
        if name in _OF_WEIGHTS:
            raise ValueError(
                f"Expected options that keep the weights of the batch norms. Received: "
                f"{name}={value!r}. `axis`, `center` and `scale` decide which weights a batch norm "
                "has. To change them, build a new model."
            )
        if name in _OF_LAYER:
            raise ValueError(
                f"Expected options of batch normalization. Received: {name}={value!r}. Each "
                f"converted layer keeps its own `{name}`."
            )
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Choose from: {', '.join(known)}."
            raise ValueError(
                f"Expected arguments of kerasbn.BatchNorm. Received: {name}={value!r}. {hint}"
            )
    BatchNorm(**options, name="options")  # raises if a value is out of range


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
    model: keras.Model,
    kinds: tuple[type[keras.Layer], ...],
    swap: Callable[[dict[str, Any]], keras.Layer],
    where: _Where | None = None,
    options: Iterable[str] = (),
) -> keras.Model:
    """Rebuilds a model with `swap(config)` in place of each chosen layer of `kinds`.

    `options` are the names of the options that `swap` sets. They show whether a layer that makes
    its batch norms itself ignored the swap.
    """
    check_graph(model)
    norms = [layer for layer in all_layers(model) if type(layer) in kinds]
    if not norms:
        names = " or ".join(sorted(kind.__name__ for kind in kinds))
        warn_nothing_to_do(model, names, stacklevel=4)
        return model
    chosen = {id(norm) for norm in norms if where is None or where(norm)}
    if not chosen:
        warn_none_chosen(model, len(norms), stacklevel=4)
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
        if id(layer) in chosen:
            return named_swap(config)
        inside = _chosen_by_name(layer, kinds, chosen)
        return clone_layer(layer, _swap_inside(config, kinds, inside, named_swap))

    converted, pairs, lost = rebuild(model, make)
    for old, new in pairs:
        swapped = _swapped(old, new, chosen, named_swap, options)
        if kinds == (BatchNorm,):
            _check_no_subclass(new)
        copy_state(old, new, left_out=swapped)
        for source, target in swapped:
            _copy_weights(source, target)
    target = "keras.layers.BatchNormalization" if kinds == (BatchNorm,) else "kerasbn.BatchNorm"
    advice = f"Or use {target} in its code and copy the weights with kerasbn.load_weights."
    warn_lost_classes(lost, advice, stacklevel=4)
    return converted


def _chosen_by_name(layer, kinds, chosen):
    """Maps the name of each batch norm inside a layer to whether it is swapped.

    The layer's configuration identifies its inner layers only by name.
    """
    decisions: dict[str, bool] = {}
    for inner in all_layers(layer):
        if type(inner) in kinds:
            decision = id(inner) in chosen
            if decisions.setdefault(inner.name, decision) != decision:
                raise ValueError(
                    f"`where` returns true for one batch norm '{inner.name}' in layer "
                    f"'{layer.name}', and false for another one of this name. Give them different "
                    "names, or choose both."
                )
    return decisions


def _swap_inside(config: Any, kinds: tuple, chosen: dict[str, bool], swap: Callable) -> Any:
    """The configuration of a layer, with the chosen batch norms inside it swapped."""
    if isinstance(config, (list, tuple)):
        return type(config)(_swap_inside(value, kinds, chosen, swap) for value in config)
    if not isinstance(config, dict):
        return config
    if any(config.items() >= _identity(kind).items() for kind in kinds):
        if not chosen.get(config["config"].get("name"), True):
            return config
        return {**config, **keras.saving.serialize_keras_object(swap(config["config"]))}
    return {key: _swap_inside(value, kinds, chosen, swap) for key, value in config.items()}


@functools.cache
def _identity(cls):
    """The entries by which a configuration identifies a layer of this class."""
    saved = keras.saving.serialize_keras_object(cls(name="unused"))
    return {key: saved[key] for key in ("module", "class_name", "registered_name")}


def _swapped(old, new, chosen, swap, options):
    """The pairs of old and new batch norms in a layer and its clone."""
    layers = zip(all_layers(old), all_layers(new), strict=False)
    pairs = [(source, target) for source, target in layers if id(source) in chosen]
    for source, target in pairs:
        expected = swap(config_of(source))
        config, wanted = config_of(target), config_of(expected)
        as_wanted = all(config.get(name) == wanted[name] for name in options)
        if type(target) is not type(expected) or not as_wanted:
            raise ValueError(
                f"Layer '{old.name}' of the class {type(old).__name__} makes its "
                f"{type(source).__name__} '{source.name}' itself, so it cannot be swapped. Change "
                "the code of the class, or let it take the batch norm as an argument that "
                "`get_config` returns."
            )
    return pairs


def _check_no_subclass(layer):
    for inner in all_layers(layer):
        if isinstance(inner, BatchNorm):
            raise ValueError(
                f"Layer '{inner.name}' is of the class {type(inner).__name__}, a subclass of "
                "BatchNorm. Keras has no counterpart for it. Replace it with a BatchNorm first."
            )


def _copy_weights(old, new):
    """Copies the weights of a batch norm by name, because the new one may have more or fewer."""
    for weight in new.weights:
        source = getattr(old, weight.name, None)
        if source is not None:
            value = ops.copy(source.value)
        elif weight.name == "renorm_mean":
            value = ops.copy(old.moving_mean.value)
        elif weight.name in ("moving_stddev", "renorm_stddev"):
            value = stddev_of(old.moving_variance.value, new.epsilon)
        else:
            continue  # `update_count` starts at 0
        weight.assign(value)
