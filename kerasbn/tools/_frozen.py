"""Finds frozen batch norms, the ones that training should leave unchanged."""

from __future__ import annotations

import contextlib
import functools
import warnings
from typing import Any

import keras
from keras import ops

from kerasbn._keras_private import all_layers, replaced_call
from kerasbn.tools._model_graph import traces
from kerasbn.tools._models import BATCH_NORMS, batch_norms, is_graph
from kerasbn.tools._wording import counted, listed

_REASONS = ("trainable=False", 'statistics="frozen"', "a call with training=False")


def warn_frozen(model: keras.Model, norms: list[keras.Layer], x: Any) -> None:
    """Warns once that `recalibrate` is about to change frozen batch norms, and names them.

    Args:
        model: Model that contains the batch norms.
        norms: Batch norms that `recalibrate` is about to change.
        x: A batch of inputs, as tensors.
    """
    why, paths = reasons_to_count_as_frozen(model, norms, x)
    frozen = [norm for norm in norms if why[id(norm)]]
    if not frozen:
        return
    order = {key: place for place, key in enumerate(paths)}
    frozen.sort(key=lambda norm: order.get(id(norm), len(order)))
    names = listed(paths.get(id(norm), norm.name) for norm in frozen)
    found = set(why.values())
    reasons = [reason for reason in _REASONS if reason in found]
    keep = "layer.trainable"
    if any(norm.trainable for norm in frozen):
        more = ["..."] if len(frozen) > 3 else []
        of_three = ", ".join([*(repr(norm.name) for norm in frozen[:3]), *more])
        keep = f"layer.name not in [{of_three}]"
    its, it = ("its", "it") if len(frozen) == 1 else ("their", "them")
    warnings.warn(
        f"recalibrate changes {counted(len(frozen), 'frozen batch norm')} of model "
        f"'{model.name}' ({' or '.join(reasons)}): {names}. To keep {its} statistics, choose "
        f"other layers: where=lambda layer: {keep}. To recalibrate {it} without this warning: "
        "where=lambda layer: True.",
        stacklevel=3,
    )


def reasons_to_count_as_frozen(
    model: keras.Model, norms: list[keras.Layer], x: Any
) -> tuple[dict[int, str], dict[int, str]]:
    """Why each batch norm counts as frozen, and the paths of layers, both by the layer's id.

    The reason is empty for a batch norm that is not frozen. Layers outside of graphs have no path.
    """
    in_inference, paths = _called_in_inference(model)
    in_inference |= _called_in_inference_by_code(model, norms, x)
    return {id(norm): _why_frozen(norm, id(norm) in in_inference) for norm in norms}, paths


def _why_frozen(norm, in_inference):
    is_so = (not norm.trainable, getattr(norm, "statistics", "auto") == "frozen", in_inference)
    return next((reason for reason, holds in zip(_REASONS, is_so, strict=True) if holds), "")


def _called_in_inference(model):
    """Returns ids of batch norms, and paths of layers.

    The ids are those of the batch norms that all graphs in the model call with `training=False`.
    The paths are those of the layers in these graphs, by id. Only Sequential and functional models
    have a graph that can be read.
    """
    modes: dict[int, list[bool]] = {}
    paths: dict[int, str] = {}
    for prefix, (calls, _, inside) in traces(model):
        paths.update({key: prefix + path for key, path in inside.items()})
        for call in calls:
            inference = call.training == {False}
            for layer in all_layers(call.layer) if isinstance(call.layer, keras.Layer) else []:
                modes.setdefault(id(layer), []).append(inference)
    return {key for key, found in modes.items() if all(found)}, paths


def _called_in_inference_by_code(model, norms, x):
    """The ids of the batch norms that Python code always calls with `training=False`.

    The code is the `call` of the user's layers and models. This function runs it once, in training
    mode, and records the calls.
    """
    layers = all_layers(model)
    # PyTorch modules have state that a stateless scope does not protect.
    unsafe = any(isinstance(layer, keras.layers.TorchModuleWrapper) for layer in layers)
    if unsafe or not any(map(_has_own_code, layers)):
        return set()
    modes: dict[int, list[bool]] = {}

    def record(norm, inputs, training=None, mask=None):
        modes.setdefault(id(norm), []).append(training)
        return ops.cast(inputs, norm.compute_dtype)

    def call(x):
        with keras.StatelessScope():  # drops all assignments to variables
            model(x, training=True)

    with contextlib.ExitStack() as stack:
        for norm in norms:
            stack.enter_context(replaced_call(norm, functools.partial(record, norm)))
        # If this run fails, `recalibrate` may still succeed, so it must not stop here.
        stack.enter_context(contextlib.suppress(Exception))
        _trace(call, x)
    return {key for key, found in modes.items() if all(each is False for each in found)}


def _has_own_code(layer):
    of_keras = type(layer).__module__.startswith("keras.")
    norm = isinstance(layer, BATCH_NORMS)
    return not (of_keras or norm or is_graph(layer)) and bool(batch_norms(layer))


def _trace(function, x):
    """Runs a function, and computes nothing if the backend can trace it."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.function(function, autograph=False).get_concrete_function(x)
    elif backend == "jax":
        import jax

        jax.eval_shape(function, x)
    else:
        import torch

        with torch.no_grad():
            function(x)
