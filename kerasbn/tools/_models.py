"""Questions about Keras models and the errors if a tool cannot use one."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras

from kerasbn._keras_private import all_layers, direct_layers, overrides_call
from kerasbn.batch_norm import BatchNorm
from kerasbn.tools._wording import described, listed

BATCH_NORMS = (BatchNorm, keras.layers.BatchNormalization)


def batch_norms(model: keras.Model) -> list[keras.Layer]:
    """Every BatchNorm and BatchNormalization in the model, at any depth, subclasses included."""
    return [layer for layer in all_layers(model) if isinstance(layer, BATCH_NORMS)]


def has_own_call(norm: keras.Layer) -> bool:
    """Whether the class of a batch norm overrides `call`, so it may use statistics another way."""
    return type(norm).call not in (BatchNorm.call, keras.layers.BatchNormalization.call)


def is_graph(layer: Any) -> bool:
    """Whether a layer is a Sequential or functional model that runs its graph and nothing else."""
    functional = isinstance(layer, keras.Model) and isinstance(layer, keras.Function)
    if not functional and not isinstance(layer, keras.Sequential):
        return False
    # A Sequential model gets its inputs together with its graph. On nested structures it gets none.
    return not overrides_call(layer) and hasattr(layer, "inputs")


def is_time_distributed(layer: Any) -> bool:
    """Whether a layer is a `TimeDistributed`. A subclass may compute something else."""
    return type(layer) is keras.layers.TimeDistributed


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


def check_weights(model: keras.Model) -> None:
    """Raises a ValueError unless `model` is a Keras model whose layers have their weights.

    A model that is never called itself, such as a GAN with its own `train_step`, is not `built`
    even after training. And a `built` model may lack weights, because `Model.build` of a subclass
    sets the flag without a call. Therefore the layers count.
    """
    _check_model(model)
    layers = all_layers(model)
    missing = [layer for layer in layers if not layer.built and _has_own_build(layer)]
    norms = [layer for layer in layers if isinstance(layer, BATCH_NORMS)]
    if not missing and len(layers) == 1 and not model.built:
        missing = [model]
    unused = model.built and (not norms or any(norm.built for norm in norms))
    if missing and not unused:  # a model that has been called may have layers that it never uses
        names = listed(repr(layer.name) for layer in missing if layer is not model)
        without = f" (layers without weights: {names})" if names else ""
        raise ValueError(
            f"Expected a built model. Received: model '{model.name}', which has no weights "
            f"yet{without}. {_how_to_build(model)}"
        )


def check_call(model: keras.Model) -> None:
    """Raises a ValueError unless `model` has a `call`, and so can run on a batch of inputs."""
    _check_model(model)
    if not _lacks_call(model):
        return
    raise ValueError(
        f"Expected a model that can be called on a batch. Received: model '{model.name}' of the "
        f"class {type(model).__name__}, which has no `call`. "
        + (call_models_inside(model) or "Implement `call`.")
    )


def call_models_inside(model: keras.Model) -> str:
    """Advice to pass the models inside a model one by one. Empty if none has a batch norm."""
    inside = models_inside(model, lambda each: bool(batch_norms(each)) and not _lacks_call(each))
    if not inside:
        return ""
    return f"Pass the models inside it one by one, each with its own inputs: {listed(inside)}."


def check_graph(model: keras.Model) -> None:
    """Raises a ValueError unless `model` is Sequential or functional, and has its weights."""
    _check_model(model)
    if is_graph(model):
        return
    if _becomes_graph(model):
        check_weights(model)
        raise ValueError(
            f"Expected a built model. Received: model '{model.name}', which has no graph of layer "
            f"calls. {_how_to_build(model)}"
        )
    inside = models_inside(model, lambda each: _becomes_graph(each) and bool(batch_norms(each)))
    advice = (
        f"Pass the models inside it one by one: {listed(inside)}."
        if inside
        else "Write it with the functional API, or pass the Sequential and functional models "
        "inside it one by one."
    )
    has = "no `call`" if _lacks_call(model) else "its own `call`"
    raise ValueError(
        "Expected a Sequential or functional model, whose graph of layer calls can be rebuilt. "
        f"Received: model '{model.name}' of the class {type(model).__name__}, which has {has} and "
        f"cannot be cloned. {advice}"
    )


def check_where(where: Any, verb: str) -> None:
    """Raises a ValueError unless `where` is a function or `None`.

    Args:
        where: Value of the argument.
        verb: Verb of the tool, such as "convert".
    """
    if where is not None and not callable(where):
        raise ValueError(
            "Expected where to be a function that takes a batch norm and returns whether to "
            f"{verb} it, or None. Received: {described(where)}. For example: "
            "where=lambda layer: layer.trainable"
        )


def models_inside(
    model: keras.Layer, accept: Callable[[keras.Model], bool], path: str = "model"
) -> list[str]:
    """The outermost models inside `model` that `accept` returns true for, as Python expressions.

    For a GAN, these are `model.discriminator` and `model.generator`.
    """
    found = []
    for name, layer in _children(model):
        if isinstance(layer, keras.Model) and accept(layer):
            found.append(path + name)
        else:
            found += models_inside(layer, accept, path + name)
    return list(dict.fromkeys(found))


def _check_model(model: Any) -> None:
    if isinstance(model, keras.Model):
        return
    if isinstance(model, keras.Layer):
        advice = "Put a single layer into keras.Sequential([keras.Input(shape), layer])."
    elif isinstance(model, type):
        advice = "Create a model of this class and call it once on a batch."
    elif isinstance(model, (str, os.PathLike)):
        advice = "Load the model from the file first, with keras.models.load_model."
    elif isinstance(model, (list, tuple, dict)):
        advice = "Pass one model at a time."
    elif callable(model):
        advice = "Call the function, and pass the model that it returns."
    else:
        advice = "Pass the model as the first argument."
    raise ValueError(f"Expected a built keras.Model. Received: {described(model)}. {advice}")


def _lacks_call(model: keras.Model) -> bool:
    return type(model).call is keras.Model.call


def _becomes_graph(model: keras.Model) -> bool:
    """Whether a model is a graph, or is a Sequential model that becomes one when it is built."""
    return is_graph(model) or (isinstance(model, keras.Sequential) and not overrides_call(model))


def _has_own_build(layer: keras.Layer) -> bool:
    containers = (keras.Layer.build, keras.Model.build, keras.Sequential.build)
    return type(layer).build not in containers


def _how_to_build(model: keras.Model) -> str:
    if isinstance(model, keras.Sequential):
        return "Give it an Input, call `model.build(input_shape)`, or call it once on a batch."
    return "Call it once on a batch."


def _children(layer: keras.Layer) -> Iterator[tuple[str, keras.Layer]]:
    """The layers directly inside a layer, each with the code that gets it from the outer one."""
    left = {id(inner): inner for inner in direct_layers(layer)}
    attributes = dict(vars(layer))
    if keras.backend.backend() == "torch":  # PyTorch's modules keep others outside `vars`
        attributes.update(layer.named_children())
    for name, value in attributes.items():
        if id(value) in left:
            yield f".{name}", left.pop(id(value))
        elif isinstance(value, (dict, list, tuple)) and not name.startswith("_"):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, each in items:
                if id(each) in left:
                    yield f".{name}[{key!r}]", left.pop(id(each))
    get = ".get_layer({!r})" if isinstance(layer, keras.Model) else "...{}"
    for inner in left.values():
        yield get.format(inner.name), inner


def warn_nothing_to_do(model: keras.Model, wanted: str, stacklevel: int = 3) -> None:
    """Warns that the model has no such layer.

    Args:
        model: Model without such a layer.
        wanted: Name of the layer's class.
        stacklevel: Stack level of `warnings.warn`. The default names the line that called the tool.
    """
    message = f"Model '{model.name}' has no {wanted} layer and stays unchanged."
    warnings.warn(message, stacklevel=stacklevel)


def warn_none_chosen(model: keras.Model, total: int, stacklevel: int = 3) -> None:
    """Warns that `where` is false for all batch norms, `total` in number."""
    norms = f"all {total} batch norms" if total > 1 else "the only batch norm"
    warnings.warn(
        f"`where` returns false for {norms} of model '{model.name}', which stays unchanged.",
        stacklevel=stacklevel,
    )


def warn_lost_classes(lost: list[keras.Model], advice: str = "", stacklevel: int = 3) -> None:
    """Warns that models become plain Keras models.

    Args:
        lost: Old models of custom classes. If it is empty, there is no warning.
        advice: Another way to keep the classes.
        stacklevel: Stack level of `warnings.warn`. The default names the line that called the tool.
    """
    if not lost:
        return
    names = listed(f"'{model.name}' ({type(model).__name__})" for model in lost)
    one = len(lost) == 1
    warnings.warn(
        f"The new model has a plain Keras model in place of {names}. It computes the same, but "
        f"lacks the methods of the {'class' if one else 'classes'}. To keep "
        f"{'it' if one else 'them'}, let the constructor require `inputs` and `outputs` (of a "
        "Sequential model: take `layers`) and take `name`, and let `get_config` return its other "
        f"arguments. {advice}".rstrip(),
        stacklevel=stacklevel,
    )
