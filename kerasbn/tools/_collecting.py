"""Runs a model on a batch and collects the statistics that its batch norms see."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops, tree

from kerasbn._inputs import to_dense
from kerasbn._keras_private import (
    all_layers,
    map_without_extra_call,
    replaced_call,
    without_dropout_masks,
    without_remat,
)
from kerasbn._normalization import Axes, broadcastable, cast, normalize_batch, statistics_dtype
from kerasbn.moments import Moments
from kerasbn.tools._models import batch_norms

Step = Callable[[Any], dict[str, list[Moments]]]


class VectorizedError(Exception):
    """A batch norm was called in a function that the backend vectorizes.

    JAX raises its own errors.
    """


@contextlib.contextmanager
def collecting(model: keras.Model, norms: list[keras.Layer]) -> Iterator[Step]:
    """Makes batch norms normalize by their batch, in a `with` block.

    It replaces their `call`, which leaves the state of the layers alone. A call of the model with
    `training=True` would also switch on dropout and move the averages.

    Args:
        model: Model that contains the batch norms.
        norms: Batch norms whose statistics to collect. The others are in inference mode.

    Yields:
        A function that runs the model on one batch of inputs. It returns the statistics of each
        call of each batch norm, by the index of the batch norm as a string. It changes no variable.
    """
    found: dict[str, list[Moments]] = {}
    variables = model.variables
    loops = [each for each in all_layers(model) if _is_loop(each)]

    def normalize(index, norm, inputs, training=None, mask=None):
        y, batch = _normalize_by_batch(norm, inputs, mask)
        found.setdefault(str(index), []).append(batch)
        return y

    def collect(values, x):
        found.clear()  # the stateless scope drops all assignments to variables
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            model(x, training=False)
        if _is_vectorized(tree.flatten(found)):
            raise VectorizedError
        return dict(found)

    run = _compiled_or_eager(collect, model.run_eagerly, retrace=bool(loops))
    with contextlib.ExitStack() as stack:
        for index, norm in enumerate(norms):
            stack.enter_context(replaced_call(norm, functools.partial(normalize, index, norm)))
        stack.enter_context(without_remat(all_layers(model)))
        stack.enter_context(without_dropout_masks(loops))
        if keras.backend.backend() == "tensorflow":
            stack.enter_context(map_without_extra_call())
        stack.enter_context(_unrolled(loops))
        yield lambda x: run([variable.value for variable in variables], x)


def _is_vectorized(tensors):
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from kerasbn._tensorflow_private import vectorized
    elif backend == "torch":
        from kerasbn._torch_private import vectorized
    else:
        return False
    return vectorized(tensors)


def _is_loop(layer):
    """Whether a layer is an RNN with a batch norm in its cell."""
    return isinstance(layer, keras.layers.RNN) and bool(batch_norms(layer))


@contextlib.contextmanager
def _unrolled(loops):
    """Unrolls RNNs, because statistics cannot leave the loop of a compiled step.

    In an eager loop, Keras would call the cell one more time, to find the shape of its output.
    """
    old = [layer.unroll for layer in loops]
    for layer in loops:
        layer.unroll = True
    try:
        yield
    finally:
        for layer, unroll in zip(loops, old, strict=True):
            layer.unroll = unroll


def _compiled_or_eager(collect, eagerly, retrace):
    """Compiles a function of values and inputs. After a failure, it runs the function eagerly.

    Compilation fails if a batch norm is in a loop or a condition, because its statistics cannot
    leave it. If the eager function fails too, it raises the error that is easier to read.
    """
    eager, compiled = _eager_and_compiled(collect, retrace)
    failed = eagerly or compiled is None

    def run(values, x):
        nonlocal failed
        if not failed:
            try:
                return compiled(values, x)
            except Exception:
                failed = True
        return eager(values, x)

    return run


def _eager_and_compiled(collect, retrace):
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return torch.no_grad()(collect), None
    if backend == "tensorflow":
        import tensorflow as tf

        # An unrolled RNN needs the number of time steps, but reduced retracing forgets it.
        return collect, tf.function(collect, reduce_retracing=not retrace, autograph=False)
    if backend == "jax":
        import jax

        # Otherwise, `jax.lax` compiles loops even in eager code.
        return jax.disable_jit()(collect), jax.jit(collect)
    return collect, None


def _normalize_by_batch(norm, inputs, mask):
    """Normalizes as either class of batch norm does in training. Returns y and the moments."""
    dtype = statistics_dtype(norm.compute_dtype)
    group_size = getattr(norm, "virtual_batch_size", None)
    x, mask, in_form_of_inputs = to_dense(inputs, mask, dtype, keep_examples=group_size is not None)
    axes = Axes.of(norm.axis, x.shape)
    y, batch = normalize_batch(
        x,
        broadcastable(norm.gamma, axes, dtype),
        broadcastable(norm.beta, axes, dtype),
        axes=axes,
        epsilon=norm.epsilon,
        mask=mask,
        group_size=group_size,
    )
    count = ops.convert_to_tensor(batch.count, dtype)  # a Python number cannot leave `jax.jit`
    return in_form_of_inputs(cast(y, norm.compute_dtype)), batch._replace(count=count)
