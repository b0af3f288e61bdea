"""`recalibrate`: batch norm's inference statistics from data, not from moving averages."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from kerasbn import kernels, moments
from kerasbn.batch_norm import BatchNorm
from kerasbn.tools._batches import input_batches, shapes_of
from kerasbn.tools._model_graph import batch_norms, check_built, warn_nothing_to_do


def recalibrate(
    model: keras.Model, batches: Any, steps: int | None = None, *, batch_size: int | None = None
) -> None:
    """Sets the statistics that a model's batch norms use in inference to those of the given data.

    The moving averages of training lag behind the weights: with momentum 0.99, after 100 steps 37 %
    of the initial statistics are still in them. Here the data passes once through the model as it
    is now: each batch norm normalizes with its batch's statistics, as in training, and everything
    else (dropout, say) is in inference mode. Then, for each feature, of which a batch has m values,

        moving_mean     = E[mean]               = sum m mean / sum m
        moving_variance = m/(m-1) E[variance]   = sum m variance / sum (m - 1)

    The middle is the paper's formula, for batches of one size. The right, with sums over batches,
    is the same for any sizes: E weighs a batch by its m, and the m of the factor is the mean one. m
    counts examples times positions, those masked out not. A layer that is called several times
    counts each call as a batch, and ghost batch norm (`virtual_batch_size`) each group.

    Every `BatchNorm` and `keras.layers.BatchNormalization` is recalibrated, at any depth, frozen
    ones and those in subclassed models too. With `renorm`, `moving_stddev` follows; the averages
    that only training uses stay, and so does `update_count`. Nothing else in the model changes, and
    nothing at all if an error or Ctrl-C ends the run.

    Use about the batch size of training, and some thousand examples. The cost is that of inference
    on them; on a terminal there is a progress bar.

    Args:
        model: A built model of any kind; changed in place. Not to be used elsewhere meanwhile.
        batches: The inputs, with or without targets, which are ignored, as for `fit`. Either
            arrays, which are cut into batches: one array, a dictionary of them, a list of one for
            each input of the model, or a tuple `(x, y)` or `(x, y, sample_weight)`. Or an iterable
            of batches, each an `x` or such a tuple: a `tf.data.Dataset`, a `keras.utils.PyDataset`,
            a PyTorch `DataLoader`, a generator, a list.
        steps: How many batches to use. Default `None`: all; needed if there is no end to them.
        batch_size: Size of the batches that arrays are cut into; the last one may be smaller. Only
            for arrays. Default `None`: 32, as in `fit`.

    Raises:
        ValueError: If the model is not built; if there are no batches, fewer than `steps`, or no
            end to them; if one is empty or does not fit the model; if a statistic is not finite or
            rests on batches of a single value; if a subclass of a batch norm has its own `call`.

    Example:

    >>> import keras, kerasbn, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), kerasbn.BatchNorm(name="bn")])
    >>> kerasbn.recalibrate(model, np.array([[1.0, 10.0], [2.0, 30.0], [3.0, 50.0]]))
    >>> np.round(keras.ops.convert_to_numpy(model.get_layer("bn").moving_variance), 3).tolist()
    [1.0, 400.0]

    References:
        Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167, algorithm 2, steps 8 to 10;
        Wu & Johnson 2021, https://arxiv.org/abs/2105.07576, section 3.
    """
    check_built(model)
    norms = batch_norms(model)
    if not norms:
        warn_nothing_to_do(model, "BatchNorm or BatchNormalization")
        return
    _check_own_call(norms)
    sums = [_Sums() for _ in norms]
    variables = model.variables
    with _collecting(norms) as found:
        step = _compiled(model, functools.partial(_collect, model, variables, found))
        inputs = input_batches(model, batches, steps, batch_size, "Recalibrating")
        for number, x in enumerate(inputs):
            with _explained_errors(model, number, x):
                collected = step([variable.value for variable in variables], _to_tensors(x))
            for index, statistics in collected.items():
                for each in statistics:
                    sums[int(index)].add(each, norms[int(index)].moving_mean.shape)
    new = []
    for norm, of_norm in zip(norms, sums, strict=True):
        new += _new_values(norm, of_norm)
    _assign_all(new)


class _Sums:
    """What is known of the population of one batch norm's inputs; float64, a value a feature."""

    def __init__(self):
        self.m = self.m_mean = self.m_variance = self.freedom = 0.0

    def add(self, statistics: moments.Moments, shape: tuple[int, ...]) -> None:
        """Adds one call; one more axis in front of the statistics is that of ghost batches."""
        arrays = (np.asarray(ops.convert_to_numpy(each), np.float64) for each in statistics)
        mean, variance, m = (each.reshape(-1, *shape) for each in np.broadcast_arrays(*arrays))
        self.m = self.m + m.sum(0)
        self.m_mean = self.m_mean + (m * mean).sum(0)
        self.m_variance = self.m_variance + (m * variance).sum(0)
        self.freedom = self.freedom + np.maximum(m - 1, 0).sum(0)


def _new_values(norm, sums):
    """The variables of a batch norm that change, each with its new value."""
    if not np.any(sums.m):
        warnings.warn(
            f"Batch norm '{norm.name}' got no value from the batches and is left as it is.",
            stacklevel=3,
        )
        return []
    seen = sums.m > 0  # false for features that are masked out throughout
    if np.any(seen & (sums.freedom == 0)):
        raise ValueError(
            f"Batch norm '{norm.name}' got batches of a single value for each feature, which have "
            "no variance. Use larger batches."
        )
    mean = sums.m_mean / np.maximum(sums.m, 1)
    variance = sums.m_variance / np.maximum(sums.freedom, 1)
    if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
        raise ValueError(
            f"Batch norm '{norm.name}' got inputs that are not finite. Look for NaN or infinite "
            "values in the batches and in the weights before it."
        )
    values = {"moving_mean": mean, "moving_variance": variance}
    if norm.renorm:
        values["moving_stddev"] = np.sqrt(variance + norm.epsilon)
    variables = [(getattr(norm, name), value) for name, value in values.items()]
    return [(v, np.where(seen, value, ops.convert_to_numpy(v))) for v, value in variables]


def _assign_all(pairs):
    old = [(variable, np.array(ops.convert_to_numpy(variable))) for variable, _ in pairs]
    try:
        for variable, value in pairs:
            variable.assign(value)
    except BaseException:  # Ctrl-C too: all or nothing
        for variable, value in old:
            variable.assign(value)
        raise


@contextlib.contextmanager
def _collecting(norms: list[keras.Layer]) -> Iterator[dict[str, list[moments.Moments]]]:
    """While it is open, each batch norm normalizes by its batch and leaves the statistics here.

    Each instance's `call` is shadowed. That reaches batch norms in subclassed models and wrappers,
    where nothing can be cloned; and `training` need not be true, which would switch on dropout and
    move the averages. No state of the layers is touched, so that there is none to restore.
    """
    found = {}

    def by_batch(index, norm, inputs, training=None, mask=None):
        outputs, statistics = _normalize_by_batch(norm, inputs, mask)
        found.setdefault(str(index), []).append(statistics)
        return outputs

    try:
        for index, norm in enumerate(norms):
            vars(norm)["call"] = functools.partial(by_batch, index, norm)
        yield found
    finally:
        for norm in norms:
            vars(norm).pop("call", None)


def _collect(model, variables, found, values, x):
    """The statistics of one batch; in a stateless scope, so that what layers assign is dropped."""
    found.clear()
    with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
        model(x, training=False)
    return dict(found)


def _normalize_by_batch(norm, inputs, mask):
    x = ops.cast(inputs, keras.backend.result_type(norm.compute_dtype, "float32"))
    rank = len(x.shape)
    axes = norm.axis if isinstance(norm.axis, tuple) else (norm.axis,)
    kept = {axis % rank for axis in axes}
    reduced = tuple(axis for axis in range(rank) if axis not in kept)
    mask = None if mask is None else moments.position_mask(mask)
    group = getattr(norm, "virtual_batch_size", None)
    if group is None:
        x_hat, batch = kernels.batch_normalize(
            x, None, None, axes=reduced, epsilon=norm.epsilon, mask=mask
        )
    else:
        groups, mask = moments.to_groups(x, group, mask)
        axes = tuple(axis + 1 for axis in reduced)
        x_hat, batch = kernels.batch_normalize(
            groups, None, None, axes=axes, epsilon=norm.epsilon, mask=mask
        )
        x_hat = moments.from_groups(x_hat, x)
    shape = [x.shape[axis] if axis in kept else 1 for axis in range(rank)]
    gamma, beta = (
        None if weight is None else ops.reshape(ops.cast(weight, x.dtype), shape)
        for weight in (norm.gamma, norm.beta)
    )
    y = ops.cast(kernels.scale_and_shift(x_hat, gamma, beta), norm.compute_dtype)
    return y, batch._replace(count=ops.cast(batch.count, x.dtype))


def _compiled(model, step: Callable) -> Callable:
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return torch.no_grad()(step)
    if backend == "tensorflow" and not model.run_eagerly:
        import tensorflow as tf

        return tf.function(step, reduce_retracing=True, autograph=False)
    if backend == "jax" and not model.run_eagerly:
        import jax

        return jax.jit(step)
    return step


@contextlib.contextmanager
def _explained_errors(model, number, x):
    try:
        yield
    except Exception as error:
        # TensorFlow's and JAX's words for a tensor that is taken out of a loop's body.
        if type(error).__name__ in ("InaccessibleTensorError", "UnexpectedTracerError"):
            raise ValueError(
                f"Model '{model.name}' has a batch norm inside a loop, such as the cell of an RNN, "
                "from where its statistics cannot be had. Build the RNN with unroll=True."
            ) from error
        error.add_note(f"In recalibrate, at batch {number}, of the shapes {shapes_of(x)}.")
        raise


def _to_tensors(x):
    def to_tensor(array):
        return array if ops.is_tensor(array) else ops.convert_to_tensor(np.asarray(array))

    return tree.map_structure(to_tensor, x)


def _check_own_call(norms):
    for norm in norms:
        if type(norm).call not in (BatchNorm.call, keras.layers.BatchNormalization.call):
            raise ValueError(
                f"Batch norm '{norm.name}' of the class {type(norm).__name__} has a `call` of its "
                "own, so that its use of the statistics is not known. Use a kerasbn.BatchNorm."
            )
