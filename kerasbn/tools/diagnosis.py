"""`diagnose`: finds out what is wrong with the batch norms of a model."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kerasbn.tools import _findings
from kerasbn.tools._diagnosis_measurements import (
    MaskMeasurement,
    Measurements,
    NormMeasurement,
    measure,
)
from kerasbn.tools._findings import Finding
from kerasbn.tools._layer_numbers import diagnosis_of, is_suspicious, optimizer_steps, value_of
from kerasbn.tools._models import (
    batch_norms,
    call_models_inside,
    check_call,
    check_weights,
    has_own_call,
)
from kerasbn.tools._report import Diagnosis, LayerDiagnosis, by_severity, cause_of
from kerasbn.tools._scores import Scores
from kerasbn.tools._wording import counted, listed

__all__ = ["Diagnosis", "Finding", "LayerDiagnosis", "Scores", "diagnose"]


def diagnose(
    model: keras.Model,
    data: Any,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
) -> Diagnosis:
    """Finds out what is wrong with the batch norms of a model, and what would help.

    It answers the question why a model is good in training and bad in evaluation. It runs the data
    through the model with the statistics of each batch, as in training, and in inference mode.
    Then it tries the statistics that `recalibrate` would set, and switches single batch norms
    back to their moving averages, to see which one changes the outputs. Dropout is off in all of
    these passes.

    The model stays as it is: weights, moving averages, seeds, optimizer and metrics do not change,
    also if an error or Ctrl-C ends the run. The run takes as long as three inference passes, and
    one more for each batch norm whose moving averages are suspicious. It needs the memory of
    one batch.

    Faults that it finds:

        not finite, inputs not finite     NaN or infinity in statistics, weights or inputs
        training=True                     batch statistics in inference mode, by mistake
        batch statistics in inference     the same by the option `statistics="batch"`
        frozen on other data              frozen statistics that are not those of the data
        shared                            one batch norm for calls with different statistics
        small batches                     too few values per feature for a variance
        dropout before norm               variance that dropout raises in training only
        lagging averages                  moving averages with values from before training
        other statistics                  moving averages that are not those of the data
        mask ignored                      padding that counts in the statistics
        dead channels                     gamma near zero
        variance near zero                features that hardly vary, so epsilon decides
        large offset                      inputs far from zero, compared with their spread
        useless bias                      bias right before a batch norm
        gap                               many small differences that add up
        data not finite                   NaN or infinity in the given data

    `docs/diagnose.md` explains each of them. Dropout, masks, biases and `training=True` in a graph
    are seen in Sequential and functional models, at any depth. For batch norms in the `call` of
    a subclassed model or of a custom layer, the report says what it cannot see.

    Args:
        model: A built model of any kind. Compile it to see loss and accuracy.
        data: Anything that `fit` or `predict` takes, as in `recalibrate`: arrays or an iterable of
            batches. With targets, as `(x, y)` or `(x, y, sample_weight)`, the report compares loss
            and accuracy. Use data like that of training, roughly a thousand examples or more.
        batch_size: Number of examples per batch, for arrays only. Use that of training. Default
            `None`: 32, as in `fit`.
        steps: Number of batches to use. Endless iterables need it. Default `None`: all batches.

    Returns:
        The report. `print(report)` shows it, `report.findings` and `report.layers` hold the data,
        `report.frame()` is a pandas DataFrame, and `report.plot()` draws it.

    Raises:
        ValueError: If the model has no batch norm, is not built or has no `call`, or if all its
            batch norms override `call` or are not used by it. If there is no data, if it does not
            fit the model, or if every batch has NaN or infinity. If there are fewer batches than
            `steps`, or endless ones without `steps`. If `batch_size` is given for batches.

    Examples:
        >>> import keras, kerasbn, numpy as np
        >>> model = keras.Sequential([keras.Input((3,)), kerasbn.BatchNorm(name="bn")])
        >>> x = np.random.default_rng(0).normal(5.0, 1.0, (1000, 3))
        >>> report = kerasbn.diagnose(model, x)
        >>> [(finding.fault, finding.layer) for finding in report.findings]
        [('lagging averages', 'bn')]
        >>> kerasbn.recalibrate(model, x)
        >>> kerasbn.diagnose(model, x).findings
        ()

    References:
        Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167;
        Li et al. 2019 (dropout before batch norm), https://arxiv.org/abs/1801.05134.
    """
    check_call(model)
    check_weights(model)
    every = batch_norms(model)
    norms = [norm for norm in every if not has_own_call(norm)]
    if not norms:
        raise ValueError(_without_norms(model, every))
    found = measure(model, norms, data, steps=steps, batch_size=batch_size, examine=is_suspicious)
    if not found.batches:
        raise ValueError(
            "Expected data with finite values. Received: NaN or infinity in each of the "
            f"{len(found.bad_data)} batches. Replace or remove these values."
        )
    if not found.norms:
        raise ValueError(
            f"Expected a model that uses its batch norms. Received: model '{model.name}', whose "
            f"`call` uses none of {len(norms)}. {call_models_inside(model)}".rstrip()
        )
    return _report(model, every, found)


def _report(model: keras.Model, every: list[keras.Layer], found: Measurements) -> Diagnosis:
    paths = _paths(found.norms)
    updates = optimizer_steps(model)
    layers: list[LayerDiagnosis] = []
    findings: list[Finding | None] = [_findings.data_not_finite(found.bad_data)]
    spoiled = False  # a batch norm before this one has inputs that are not finite
    for m in found.norms:
        layer = diagnosis_of(m, paths[id(m.norm)], updates, found.effects.get(id(m.norm)))
        layers.append(layer)
        findings += [] if spoiled else _of_layer(m, layer, found)
        spoiled |= m.bad_batch is not None
    cause = cause_of(layers)
    known = [finding for finding in findings if finding is not None]
    if all(finding.severity == "info" for finding in known):
        gap = found.gap if "recalibrated" in found.scores else None
        finding = _findings.gap_without_cause(gap, _findings.limit(found.examples), cause)
        known += [] if finding is None else [finding]
    return Diagnosis(
        model=model.name,
        findings=by_severity(known),
        layers=tuple(layers),
        inference=found.scores.get("inference", Scores()),
        batch_statistics=found.scores.get("batch statistics", Scores()),
        recalibrated=found.scores.get("recalibrated"),
        gap=found.gap,
        cause=cause,
        batches=found.batches,
        examples=found.examples,
        passes=found.passes,
        notes=tuple(found.notes + _unseen(model, every, found)),
    )


def _of_layer(
    m: NormMeasurement, layer: LayerDiagnosis, found: Measurements
) -> list[Finding | None]:
    """The findings of one batch norm. A drift that has an explanation is reported once."""
    name, norm, around = layer.layer, m.norm, m.around
    averages = (layer.moving_mean, layer.moving_variance)
    weights = [value_of(w) for w in (norm.gamma, norm.beta) if w is not None]
    broken = [
        _findings.inputs_not_finite(name, m.bad_batch),
        _findings.not_finite(name, averages, weights),
    ]
    if any(broken):
        return broken
    largest = _findings.limit(found.examples)
    of_calls = [call for call in m.calls if np.any(call.count)]
    causes = [
        _findings.training_mode(
            name,
            at_runtime=True in m.training,
            in_graph=around is not None and around.always_training,
            option=getattr(norm, "statistics", "auto") == "batch",
        ),
        _findings.frozen(name, layer.frozen, layer.drift, largest),
    ]
    lagging = _findings.lagging(
        name, layer.drift, largest, layer.old_share, layer.updates, layer.momentum
    )
    if not any(causes) and layer.updates is not None:
        causes.append(lagging)
    causes += [
        _findings.shared(
            name,
            np.array([call.mean for call in of_calls]),
            np.array([call.variance for call in of_calls]),
            layer.epsilon,
        ),
        None if layer.frozen else _dropout(m, layer, found),
    ]
    explained = any(causes)  # otherwise the drift is reported, too
    if not layer.frozen:
        small = _findings.small_batch(name, layer.values_per_batch, layer.features, len(m.shape))
        causes.append(small)
        # Few values shift a variance, but not by as much as a severe drift. One value has none.
        mild = layer.drift <= _findings.SEVERE_DRIFT or layer.values_per_batch < 2
        explained |= small is not None and mild
    if not explained:
        causes.append(
            lagging
            or _findings.drifted(name, layer.drift, largest, layer.mean_shift, layer.variance_ratio)
        )
    return [
        *causes,
        _mask(m, layer, found),
        _findings.dead_channels(name, None if norm.gamma is None else value_of(norm.gamma)),
        _findings.constant_features(name, layer.variance, layer.epsilon),
        _findings.large_offset(name, layer.mean, layer.variance, layer.epsilon, m.dtype),
        _findings.useless_bias(name, None if around is None or layer.frozen else around.biased),
    ]


def _dropout(m, layer, found):
    around = m.around
    if around is None or around.dropout is None:
        return None
    rate = around.dropout.rate
    if around.linear is None:
        moment = np.square(layer.mean) + layer.variance
    else:
        kernel = value_of(around.linear.kernel)
        squares = found.linears[id(around.linear)].mean
        if np.shape(squares) != kernel.shape[-2:-1]:  # grouped convolution, or channels first
            return None
        moment = np.square(kernel).reshape(-1, *kernel.shape[-2:]).sum(0).T @ squares
    if np.shape(moment) != layer.variance.shape:
        return None
    return _findings.dropout(
        layer.layer,
        around.dropout.name,
        rate,
        _findings.dropout_shift(layer.variance, moment, rate),
        1 / layer.variance_ratio,
    )


def _mask(m: NormMeasurement, layer: LayerDiagnosis, found: Measurements) -> Finding | None:
    """The mask of a layer before the batch norm that does not arrive at it."""
    if True in m.masked or len(m.shape) < 3:
        return None
    if m.around is None:
        makers: list[MaskMeasurement] = list(found.masks.values())
    else:
        makers = [
            found.masks[id(maker)] for maker in m.around.makes_mask if id(maker) in found.masks
        ]
    for maker in makers:
        # Otherwise the positions are not those of the mask, or their number is unknown.
        if maker.positions is not None and maker.positions == m.shape[1]:
            dropping = m.around.drops_mask if m.around else None
            return _findings.mask_ignored(
                layer.layer,
                maker.layer.name,
                None if dropping is None else dropping.name,
                float(np.mean(maker.masked.mean)),
            )
    return None


def _paths(norms: list[NormMeasurement]) -> dict[int, str]:
    """A name for each batch norm: its path in the graph, or its name if it is in none."""
    names = [m.around.path if m.around else m.norm.name for m in norms]
    return {
        id(m.norm): name if names.count(name) == 1 else str(m.norm.path or name)
        for m, name in zip(norms, names, strict=True)
    }


def _unseen(model: keras.Model, every: list[keras.Layer], found: Measurements) -> list[str]:
    """Sentences about the parts of the model that a diagnosis cannot see."""
    notes = []
    if _findings.limit(found.examples) > _findings.DRIFT:
        notes.append(
            f"{counted(found.examples, 'example')} give rough statistics, so small differences "
            "were ignored. Use a thousand or more."
        )
    outside = [m.norm.name for m in found.norms if m.around is None]
    if outside:
        notes.append(
            f"The layers before {listed(map(repr, outside))} are in Python code and not in a "
            "graph, so dropout and biases before them were not looked for."
        )
    own = [norm.name for norm in every if has_own_call(norm)]
    if own:
        notes.append(f"{listed(map(repr, own))} overrides `call`, and was not examined.")
    called = {id(m.norm) for m in found.norms}
    idle = [n.name for n in every if id(n) not in called and not has_own_call(n)]
    if idle:
        notes.append(f"{listed(map(repr, idle))} was not called, and was not examined.")
    return notes


def _without_norms(model, every):
    if every:
        return (
            f"Expected a BatchNorm or BatchNormalization with Keras's own `call`. Received: model "
            f"'{model.name}', in which each batch norm overrides it. Use kerasbn.BatchNorm."
        )
    return (
        "Expected a model with at least one BatchNorm or BatchNormalization. Received: model "
        f"'{model.name}' without any. diagnose looks at batch norms only."
    )
