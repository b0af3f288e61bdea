"""`recalibrate`: computes the inference statistics of batch norms from data."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from kerasbn.tools._arrays import is_finite
from kerasbn.tools._batches import input_batches
from kerasbn.tools._collecting import collecting, explained_errors
from kerasbn.tools._frozen import warn_frozen
from kerasbn.tools._models import (
    batch_norms,
    call_models_inside,
    check_call,
    check_weights,
    check_where,
    has_own_call,
    warn_none_chosen,
    warn_nothing_to_do,
)
from kerasbn.tools._population import PopulationSums, new_statistics
from kerasbn.tools._wording import listed


def recalibrate(
    model: keras.Model,
    batches: Any,
    steps: int | None = None,
    *,
    batch_size: int | None = None,
    where: Callable[[keras.Layer], bool] | None = None,
) -> None:
    """Replaces the inference statistics of a model's batch norms with those of the given data.

    During training, the moving averages lag behind the weights. With momentum 0.99, they still
    contain 37% of the initial statistics after 100 steps. `recalibrate` runs the data once through
    the current model. Each batch norm normalizes with the statistics of its batch, as in training,
    but without the r and d of `renorm`. Everything else, such as dropout, is in inference mode. If
    a batch has m values of a feature, the new statistics are

        moving_mean     = E[mean]               = sum m mean / sum m
        moving_variance = m/(m-1) E[variance]   = sum m variance / sum (m - 1)

    The first form is that of Ioffe & Szegedy (2015), for batches of equal size. The second form
    sums over batches of any sizes. Here m is the number of examples times the number of positions,
    without masked positions. If a layer is called several times, as in the cell of an RNN, each
    call counts as a batch. Keras calls stacked cells and functions in `keras.ops.map` once more and
    drops the output. These calls do not count. With `virtual_batch_size`, each ghost batch counts
    as a batch. If a `tf.distribute` strategy has split a batch, each part counts as a batch.

    `recalibrate` updates every `BatchNorm` and `keras.layers.BatchNormalization` at any depth,
    including layers in subclassed models. `where` limits it to some layers. The other batch norms
    are in inference mode and keep their statistics. In transfer learning, the frozen base then
    stays unchanged:

        recalibrate(model, x, where=lambda layer: layer.trainable)

    Without `where`, frozen batch norms are recalibrated too, with a warning. A batch norm counts as
    frozen if it has `trainable=False` or `statistics="frozen"`, or if all its calls in the model
    have `training=False`. (Such calls do not always freeze it, because `fit` overrides
    `training=False` in functional models.) A batch norm with `statistics="batch"` also gets new
    moving averages. It uses them if you set `statistics` to "auto" again.

    With `renorm`, `moving_stddev` changes too. Nothing else in the model changes. In particular,
    `update_count` and the averages used only in training (`renorm_mean` and `renorm_stddev`) stay.
    If an error or Ctrl-C ends the run, nothing changes at all.

    Use roughly the batch size of training and a few thousand examples. The run takes about as long
    as inference on these examples, and needs the memory of one batch. If statistics cannot leave
    the compiled model, as with a batch norm in `keras.ops.while_loop`, it runs eagerly and is
    slower. On a terminal, a progress bar is shown.

    Args:
        model: A built model of any kind. It is changed in place and must not be used elsewhere
            during the call.
        batches: Anything that `fit` or `predict` takes, as arrays or as an iterable of batches.
            Arrays hold all examples along their first axis, and are cut into batches. They may be
            dense, sparse or ragged, a DataFrame or a Series, or a structure (list, tuple,
            dictionary) with one array for each input of the model. The iterable may be a
            `tf.data.Dataset` (distributed or not), a `keras.utils.PyDataset`, a PyTorch
            `DataLoader`, a grain data set, a generator or a list. A tuple is `(x,)`, `(x, y)` or
            `(x, y, sample_weight)`, for all the data or for one batch. Targets and sample weights
            are ignored. The meaning of a list of arrays depends on the model. If it takes two
            inputs, `[a, b]` holds both. If it takes one input, `[a, b]` is two batches. `[x]` is
            one batch, or with `batch_size`, the array to cut. `iter([a, b])` is always two batches.
        steps: Number of batches to use. Endless iterables need it. Default `None`: all batches.
        batch_size: Number of examples per batch, for arrays only. The last batch may be smaller.
            Default `None`: 32, as in `fit`.
        where: Function that takes a batch norm and returns whether to recalibrate it. Default
            `None`: every batch norm is recalibrated.

    Raises:
        ValueError: If the model is not built or has no `call`, such as a GAN with its own
            `train_step`. If there are no batches, fewer batches than `steps`, or endless batches
            without `steps`. If a batch is empty or does not fit the model. If a batch has values
            that are not finite, or every batch has only one value per feature. If a subclass of a
            batch norm overrides `call`. If a batch norm is called inside a function that the
            backend vectorizes.

    Examples:
        >>> import keras, kerasbn, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), kerasbn.BatchNorm(name="bn")])
        >>> kerasbn.recalibrate(model, np.array([[1.0, 10.0], [2.0, 30.0], [3.0, 50.0]]))
        >>> np.round(keras.ops.convert_to_numpy(model.get_layer("bn").moving_variance), 3).tolist()
        [1.0, 400.0]

    References:
        Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167, algorithm 2, steps 8 to 10;
        Wu & Johnson 2021, https://arxiv.org/abs/2105.07576, section 3.
    """
    check_where(where, "recalibrate")
    check_call(model)
    check_weights(model)
    norms = batch_norms(model)
    if not norms:
        warn_nothing_to_do(model, "BatchNorm or BatchNormalization")
        return
    chosen = norms if where is None else [norm for norm in norms if where(norm)]
    if not chosen:
        warn_none_chosen(model, len(norms))
        return
    _check_own_call(chosen)
    sums = [PopulationSums() for _ in chosen]
    inputs = input_batches(model, batches, steps, batch_size, "Recalibrating")
    first = True
    with collecting(model, chosen) as collect, contextlib.closing(inputs):
        for number, x in inputs:
            with explained_errors("recalibrate", model, number, x):
                if first and where is None:
                    warn_frozen(model, norms, x)
                first = False
                collected = tree.map_structure(ops.convert_to_numpy, collect(x))
            for index, statistics in sorted(collected.items(), key=lambda item: int(item[0])):
                norm = chosen[int(index)]
                for each in statistics:
                    if not sums[int(index)].add(each, norm.moving_mean.shape):
                        raise _not_finite(norm, number, x)
    idle = [norm for norm, of_norm in zip(chosen, sums, strict=True) if not np.any(of_norm.m)]
    if idle:
        _warn_idle(model, chosen, idle)
    new: list[tuple[keras.Variable, np.ndarray]] = []
    for norm, of_norm in zip(chosen, sums, strict=True):
        new += [] if norm in idle else new_statistics(norm, of_norm)
    _assign_all(new)


def _assign_all(pairs):
    old = [(variable, np.array(ops.convert_to_numpy(variable))) for variable, _ in pairs]
    try:
        for variable, value in pairs:
            variable.assign(value)
    except BaseException:  # also after Ctrl-C, so that all variables change or none
        for variable, value in old:
            variable.assign(value)
        raise


def _not_finite(norm, number, x):
    """The error for statistics that are NaN or infinite."""
    if all(map(is_finite, tree.flatten(x))):
        advice = (
            "The data of this batch are finite. Look for NaN, infinite or very large values in the "
            "weights of the layers before the batch norm."
        )
    else:
        advice = "The data of this batch contain NaN or infinity. Replace or remove these values."
    return ValueError(
        f"Expected finite values. Received in batch {number}: inputs of batch norm '{norm.name}' "
        f"that are not finite. {advice}"
    )


def _warn_idle(model, norms, idle):
    names = listed(f"'{norm.name}'" for norm in idle)
    if len(idle) == 1:
        message = f"Batch norm {names} got no value from the batches and stays unchanged."
    else:
        message = (
            f"{len(idle)} batch norms got no value from the batches and stay unchanged: {names}."
        )
    if len(idle) == len(norms):
        message += f" The `call` of model '{model.name}' uses none. {call_models_inside(model)}"
    warnings.warn(message.rstrip(), stacklevel=3)


def _check_own_call(norms):
    for norm in norms:
        if has_own_call(norm):
            raise ValueError(
                f"Batch norm '{norm.name}' of the class {type(norm).__name__} has a `call` that "
                "overrides that of the batch norm, so it may use the statistics in another way. "
                "Use a kerasbn.BatchNorm."
            )
