"""Runs a model over data, and measures its batch norms and its outputs for `diagnose`.

The first pass normalizes with the statistics of each batch, as in training, and measures these
statistics. Frozen batch norms use their moving averages, as in training. The second time through
the data, the model runs in inference mode: with its moving averages, with the statistics that
`recalibrate` would set, and with these statistics everywhere but in one batch norm. A stateless
scope gives the variables other values, so the model never changes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from kerasbn._keras_private import all_layers
from kerasbn.moments import Moments
from kerasbn.tools._arrays import is_finite
from kerasbn.tools._batches import batches_with_targets
from kerasbn.tools._collecting import (
    Recorder,
    compiled_or_eager,
    explained_errors,
    normalize_by_batch,
    run_with,
)
from kerasbn.tools._frozen import reasons_to_count_as_frozen
from kerasbn.tools._inputs import shapes_of
from kerasbn.tools._population import (
    PopulationSums,
    RunningMoments,
    as_groups,
    new_statistics,
)
from kerasbn.tools._scores import OutputChanges, Scorer, Scores, kept_metrics
from kerasbn.tools._surroundings import Surroundings, makes_mask, surroundings
from kerasbn.tools._wording import dtype_name


@dataclasses.dataclass
class NormMeasurement:
    """Measurements of one batch norm in the first pass.

    Attributes:
        norm: The batch norm.
        around: Surroundings of the batch norm in the graph, or `None` if it is in no graph.
        frozen: Why it counts as frozen. Empty if it does not.
        population: Sums of the statistics of its inputs over all calls.
        calls: Moments of its inputs by the number of the call, batch by batch.
        most_values: Number of values per feature in the largest batch.
        bad_batch: Number of the first batch in which its inputs are not finite although the data
            is.
        training: Values of `training` that its calls get in inference mode.
        masked: Whether its calls get a mask.
        shape: Shape of its inputs.
        dtype: Dtype of its inputs.
    """

    norm: keras.Layer
    around: Surroundings | None = None
    frozen: str = ""
    population: PopulationSums = dataclasses.field(default_factory=PopulationSums)
    calls: list[RunningMoments] = dataclasses.field(default_factory=list)
    most_values: float = 0.0
    bad_batch: int | None = None
    training: set[Any] = dataclasses.field(default_factory=set)
    masked: set[bool] = dataclasses.field(default_factory=set)
    shape: tuple[int | None, ...] = ()
    dtype: str = ""


@dataclasses.dataclass
class MaskMeasurement:
    """A layer that makes masks.

    Attributes:
        layer: The layer.
        positions: Number of positions per example, or `None` if it is unknown.
        masked: Share of the positions that are masked, over all batches.
    """

    layer: keras.Layer
    positions: int | None = None
    masked: RunningMoments = dataclasses.field(default_factory=RunningMoments)


@dataclasses.dataclass
class Measurements:
    """All that `diagnose` measures.

    Attributes:
        norms: Batch norms that were called, in the order of their first calls.
        linears: Second moment E[x^2] of the inputs of Dense and convolution layers, by `id(layer)`.
        masks: Layers that make masks, by `id(layer)`.
        batches: Number of batches.
        examples: Number of examples.
        bad_data: Numbers of the batches with NaN or infinity in the data. They are left out.
        scores: Scores by mode: "inference", "batch statistics", "recalibrated".
        gap: Change of the outputs between inference mode and the best known statistics.
        effects: Change of the outputs between the moving averages and the actual statistics of one
            batch norm, by `id(norm)`.
        passes: Number of times that the model ran on the data.
        notes: Sentences about everything that could not be measured.
    """

    norms: list[NormMeasurement]
    linears: dict[int, RunningMoments]
    masks: dict[int, MaskMeasurement]
    batches: int = 0
    examples: int = 0
    bad_data: list[int] = dataclasses.field(default_factory=list)
    scores: dict[str, Scores] = dataclasses.field(default_factory=dict)
    gap: float | None = None
    effects: dict[int, float] = dataclasses.field(default_factory=dict)
    passes: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)


def measure(
    model: keras.Model,
    norms: list[keras.Layer],
    data: Any,
    *,
    steps: int | None,
    batch_size: int | None,
    examine: Callable[[NormMeasurement, int], bool],
) -> Measurements:
    """Measures a model on data.

    Args:
        model: Model to run. It does not change.
        norms: Batch norms to measure.
        data: Arrays or an iterable of batches. See `recalibrate`.
        steps: Number of batches to use, or `None` for all.
        batch_size: Number of examples per batch, for arrays only.
        examine: Function of a measured batch norm and the number of examples. Returns whether to
            spend a pass on the effect of its moving averages on the outputs.
    """
    read_once = isinstance(data, Iterator)
    variables = model.variables

    def run(values, x):
        return run_with(model, variables, values, x)

    infer = compiled_or_eager(run, model.run_eagerly)
    batches = functools.partial(_finite_batches, model, data, steps, batch_size)
    with kept_metrics(model), _no_gradients():
        found = _first_pass(model, norms, batches, infer if read_once else None)
        if read_once:
            found.notes.append(
                "The data can be read only once, so the effect of recalibrate was not tried. Pass "
                "arrays or a data set that can be read again."
            )
        else:
            _second_pass(model, found, batches, infer, examine)
    return found


def _first_pass(model, norms, batches, infer):
    """Runs the model with batch statistics. With `infer`, also in inference mode, side by side."""
    around = surroundings(model)
    measured = [NormMeasurement(norm, around.get(id(norm))) for norm in norms]
    masks = [MaskMeasurement(layer) for layer in all_layers(model) if makes_mask(layer)]
    linears = {id(a.linear): a.linear for a in around.values() if a.linear is not None}
    order: dict[int, None] = {}
    calls = [
        *((m.norm, functools.partial(_norm_call, m, order)) for m in measured),
        *((m.layer, functools.partial(_mask_call, m)) for m in masks),
        *((layer, functools.partial(_linear_call, layer)) for layer in linears.values()),
    ]
    recorder = Recorder(model, calls, with_outputs=True)
    found = Measurements(
        norms=measured,
        linears={key: RunningMoments() for key in linears},
        masks={id(m.layer): m for m in masks},
        passes=1 if infer is None else 2,
    )
    by_batch, in_inference, changes = Scorer(model), Scorer(model), OutputChanges()
    values = _with_values(model.variables, {})
    for number, x, targets in batches(found, "Measuring statistics"):
        with explained_errors("diagnose", model, number, x):
            if found.batches == 0:
                reasons, _ = reasons_to_count_as_frozen(model, norms, x)
                for m in measured:
                    m.frozen = reasons[id(m.norm)]
            with recorder.hooks():
                outputs, records = recorder(x)
            if infer is not None:
                y = infer(values, x)
                changes.set_reference(outputs)
                changes.add("inference", y)
                in_inference.add(x, targets, y)
        by_batch.add(x, targets, outputs)
        found.batches += 1
        found.examples += shapes_of(x)[0][0] or 0
        for index, of_layer in records.items():
            _, call = calls[int(index)]
            _add(found, call.args[0], tree.map_structure(ops.convert_to_numpy, of_layer), number)
    found.scores["batch statistics"] = by_batch.scores
    if infer is not None and found.batches:
        found.scores["inference"] = in_inference.scores
        found.gap = changes.of("inference")
    if by_batch.error:
        found.notes.append(f"The loss could not be computed: {by_batch.error}")
    places = {key: place for place, key in enumerate(order)}
    found.norms = sorted(
        (m for m in measured if id(m.norm) in places), key=lambda m: places[id(m.norm)]
    )
    return found


def _second_pass(model, found, batches, infer, examine):
    """Runs the model in inference mode with several statistics, side by side."""
    variables = model.variables
    try:
        new = [
            (m, {id(v): value for v, value in new_statistics(m.norm, m.population)})
            for m in found.norms
            if m.bad_batch is None
        ]
    except ValueError:  # batches of one value have no variance
        new = []
    new = [(m, values) for m, values in new if np.any(m.population.m)]
    best = {key: value for m, values in new if not m.frozen for key, value in values.items()}
    modes = {"inference": _with_values(variables, {})}
    if best:
        modes["recalibrated"] = _with_values(variables, best)
    for m, values in new:
        if examine(m, found.examples):
            others = {key: value for key, value in best.items() if key not in values}
            switched = {**best, **values} if m.frozen else others
            modes[str(id(m.norm))] = _with_values(variables, switched)
    scorers = {mode: Scorer(model) for mode in ("inference", "recalibrated") if mode in modes}
    changes = OutputChanges()
    order = sorted(modes, key="recalibrated".__ne__)  # if it is there, it is the reference
    for number, x, targets in batches(None, "Trying other statistics"):
        with explained_errors("diagnose", model, number, x):
            for mode in order:
                outputs = infer(modes[mode], x)
                if mode in scorers:
                    scorers[mode].add(x, targets, outputs)
                if mode == order[0]:
                    changes.set_reference(outputs)
                else:
                    changes.add(mode, outputs)
    found.passes += len(modes)
    found.scores.update({mode: scorer.scores for mode, scorer in scorers.items()})
    if found.batches:
        found.gap = changes.of("inference") if best else None
        found.effects = {int(mode): changes.of(mode) for mode in modes if mode.isdigit()}


def _finite_batches(model, data, steps, batch_size, found, task):
    """The batches without NaN and infinity. Counts the others in `found`, if it is given."""
    batches = batches_with_targets(model, data, steps, batch_size, task)
    with contextlib.closing(batches):
        for number, x, targets in batches:
            if all(map(is_finite, tree.flatten(x))):
                yield number, x, targets
            elif found is not None:
                found.bad_data.append(number)


def _with_values(variables, new):
    """The values of all variables, some of them new. All are tensors, so a function compiles once.

    TensorFlow would compile another one if a value were a variable and not a tensor.
    """
    return [
        ops.convert_to_tensor(new[id(v)], v.dtype) if id(v) in new else ops.convert_to_tensor(v)
        for v in variables
    ]


@contextlib.contextmanager
def _no_gradients():
    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    with torch.no_grad():
        yield


def _norm_call(measurement, order, inputs, training=None, mask=None):
    """The call of a batch norm in the first pass."""
    m = measurement
    order.setdefault(id(m.norm))
    m.training.add(bool(training) if isinstance(training, (bool, int)) else None)
    m.masked.add(mask is not None)
    m.shape, m.dtype = tuple(inputs.shape), dtype_name(inputs)
    y, batch = normalize_by_batch(m.norm, inputs, training, mask)
    if m.frozen:
        y = type(m.norm).call(m.norm, inputs, training=False, mask=mask)
    return y, batch


def _mask_call(measurement, inputs):
    """The call of a layer that makes masks in the first pass."""
    layer = measurement.layer
    y = type(layer).call(layer, inputs)
    mask = ops.cast(layer.compute_mask(inputs), "float32")
    measurement.positions = y.shape[1] if len(y.shape) > 2 else None
    return y, ops.mean(1.0 - mask)


def _linear_call(layer, inputs, **options):
    """The call of a Dense or convolution layer in the first pass."""
    x = ops.cast(inputs, "float32")
    squares = ops.mean(ops.square(x), tuple(range(len(x.shape) - 1)))
    return type(layer).call(layer, inputs, **options), squares


def _add(found, subject, records, number):
    """Adds the records of a layer's calls on one batch."""
    if isinstance(subject, NormMeasurement):
        _add_statistics(subject, records, number)
    elif isinstance(subject, MaskMeasurement):
        for share in records:
            subject.masked.add(np.float64(share), 0.0, 1.0)
    else:
        for squares in records:
            found.linears[id(subject)].add(np.float64(squares), 0.0, 1.0)


def _add_statistics(measurement, records, number):
    m, shape = measurement, measurement.norm.moving_mean.shape
    for i, record in enumerate(records):
        statistics = Moments(*record)
        if not m.population.add(statistics, shape) and m.bad_batch is None:
            m.bad_batch = number
        if i == len(m.calls):
            m.calls.append(RunningMoments())
        for mean, variance, count in zip(*as_groups(statistics, shape), strict=True):
            m.calls[i].add(mean, variance, count)
            m.most_values = max(m.most_values, float(count.max()))
