"""Runs a model on a batch and collects the statistics that its batch norms see."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
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
from kerasbn.tools._inputs import shapes_of
from kerasbn.tools._models import batch_norms, call_models_inside

Step = Callable[[Any], dict[str, list[Moments]]]
# Takes the arguments of a layer's call. Returns its output and a record of it.
RecordedCall = Callable[..., tuple[Any, Any]]


class VectorizedError(Exception):
    """A batch norm was called in a function that the backend vectorizes.

    JAX raises its own errors.
    """


# Names of errors of TensorFlow and JAX, because neither may be installed.
_TENSOR_LEFT_ITS_FUNCTION = (
    "InaccessibleTensorError",
    "UnexpectedTracerError",
    "TracerArrayConversionError",
)


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
    calls = [(norm, functools.partial(normalize_by_batch, norm)) for norm in norms]
    run = Recorder(model, calls)
    with run.hooks():
        yield lambda x: run(x)[1]


class Recorder:
    """Runs a model on batches, with other calls for some layers, and collects what they return.

    Use it in a `with` block of its `hooks`. It changes no variable.

    Args:
        model: Model to run, in inference mode.
        calls: Layers, each with the call to run instead.
        with_outputs: Whether to return the outputs of the model, too.
    """

    def __init__(
        self,
        model: keras.Model,
        calls: Sequence[tuple[keras.Layer, RecordedCall]],
        with_outputs: bool = False,
    ):
        self._model, self._calls, self._with_outputs = model, calls, with_outputs
        self._variables = model.variables
        self._loops = [each for each in all_layers(model) if _is_loop(each)]
        self._found: dict[str, list[Any]] = {}

        self._run = compiled_or_eager(self._collect, model.run_eagerly, retrace=bool(self._loops))

    def __call__(self, x: Any) -> tuple[Any, dict[str, list[Any]]]:
        """Runs the model on one batch of inputs.

        Returns:
            The outputs or `None`, and the records of each layer's calls. Their keys are the indices
            of the layers, as strings.
        """
        return self._run([variable.value for variable in self._variables], x)

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        """Replaces the calls in a `with` block."""
        with contextlib.ExitStack() as stack:
            for index, (layer, call) in enumerate(self._calls):
                stack.enter_context(replaced_call(layer, self._recorded(index, call)))
            stack.enter_context(without_remat(all_layers(self._model)))
            stack.enter_context(without_dropout_masks(self._loops))
            if keras.backend.backend() == "tensorflow":
                stack.enter_context(map_without_extra_call())
            stack.enter_context(_unrolled(self._loops))
            yield

    def _recorded(self, index, call):
        def recorded(*args, **kwargs):
            y, record = call(*args, **kwargs)
            self._found.setdefault(str(index), []).append(record)
            return y

        return recorded

    def _collect(self, values, x):
        self._found.clear()
        y = run_with(self._model, self._variables, values, x)
        if _is_vectorized(tree.flatten(self._found)):
            raise VectorizedError
        return y if self._with_outputs else None, dict(self._found)


def run_with(model: keras.Model, variables: list[keras.Variable], values: list[Any], x: Any) -> Any:
    """The outputs of a model in inference mode, with these values for its variables.

    The stateless scope drops all assignments to variables, so the model does not change.
    """
    with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
        return model(x, training=False)


@contextlib.contextmanager
def explained_errors(tool: str, model: keras.Model, number: int, x: Any) -> Iterator[None]:
    """Adds to the errors of a model where they happened, and what to do if that is known.

    Args:
        tool: Name of the function that runs the model.
        model: Model that runs in the `with` block.
        number: Number of the batch.
        x: Inputs of the batch.
    """
    try:
        yield
    except Exception as error:
        left = type(error).__name__ in _TENSOR_LEFT_ITS_FUNCTION
        if left or isinstance(error, VectorizedError):
            raise ValueError(
                f"Expected batch norms that run in Python. Received: model '{model.name}', which "
                "calls a batch norm inside a function that the backend transforms, such as that of "
                "keras.ops.vectorized_map. Its statistics cannot leave this function. Call the "
                "batch norm outside of it, or in a Python loop."
            ) from error
        if isinstance(error, NotImplementedError) and (advice := call_models_inside(model)):
            error.add_note(f"If model '{model.name}' is never called itself: {advice}")
        error.add_note(f"In {tool}, at batch {number} with the shapes {shapes_of(x)}.")
        raise


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


def compiled_or_eager(
    collect: Callable[[list[Any], Any], Any], eagerly: bool, retrace: bool = False
) -> Callable[[list[Any], Any], Any]:
    """Compiles a function of values and inputs. After a failure, it runs the function eagerly.

    Compilation fails if a batch norm is in a loop or a condition, because its statistics cannot
    leave it. If the eager function fails too, it raises the error that is easier to read.

    Args:
        collect: Function of the values of variables and of a batch of inputs.
        eagerly: Whether to run it eagerly from the start.
        retrace: Whether TensorFlow should compile it for each shape of the inputs.
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

        # TensorFlow counts the traces of all functions with the same code and warns of too many. A
        # `partial` has no code, so each is counted by itself.
        counted_alone = functools.partial(collect)
        # An unrolled RNN needs the number of time steps, but reduced retracing forgets it.
        return collect, tf.function(counted_alone, reduce_retracing=not retrace, autograph=False)
    if backend == "jax":
        import jax

        # Otherwise, `jax.lax` compiles loops even in eager code.
        return jax.disable_jit()(collect), jax.jit(collect)
    return collect, None


def normalize_by_batch(
    norm: keras.Layer, inputs: Any, training: Any = None, mask: Any = None
) -> tuple[Any, Moments]:
    """Normalizes with the batch's statistics. Returns y and the moments.

    It does so for either class of batch norm. With `renorm`, it leaves out r and d.
    """
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
