"""Derives the numbers of one batch norm's diagnosis from its measurements and its weights."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasbn.tools import _findings
from kerasbn.tools._diagnosis_measurements import NormMeasurement
from kerasbn.tools._report import LayerDiagnosis

# Share of the squared difference that initial values must explain. If they explain less, other
# data is just as plausible.
_EXPLAINED = 0.98


def diagnosis_of(
    m: NormMeasurement, path: str, steps: int | None, effect: float | None
) -> LayerDiagnosis:
    """The diagnosis of one batch norm.

    Args:
        m: Measurements of the batch norm.
        path: Path of the batch norm.
        steps: Number of steps of the optimizer, or `None` if it is unknown.
        effect: Change of the model's outputs by its moving averages, or `None`.
    """
    norm = m.norm
    moving_mean, moving_variance = value_of(norm.moving_mean), value_of(norm.moving_variance)
    seen = m.population.m > 0
    mean = np.where(seen, m.population.mean, moving_mean)
    variance = np.where(seen, m.population.variance, moving_variance)
    updates = _updates(norm, steps, len(m.calls))
    drift, shift, ratio = _distances(mean, variance, moving_mean, moving_variance, norm.epsilon)
    return LayerDiagnosis(
        layer=path,
        features=int(moving_mean.size),
        calls=len(m.calls),
        values_per_batch=m.most_values,
        frozen=m.frozen,
        momentum=norm.momentum,
        epsilon=norm.epsilon,
        updates=None if m.frozen else updates,
        old_share=None if m.frozen else _old_share(norm, updates, mean, variance),
        drift=drift,
        mean_shift=shift,
        variance_ratio=ratio,
        effect=effect,
        mean=mean,
        variance=variance,
        moving_mean=moving_mean,
        moving_variance=moving_variance,
    )


def _distances(mean, variance, moving_mean, moving_variance, epsilon):
    """The error of normalized values, the shift of the mean and the ratio of the variances.

    With s^2 = variance + epsilon, a value x becomes (x - mean) / s with the right statistics. The
    error has the mean (mean - moving_mean) / moving_s and the variance
    variance (1 / moving_s - 1 / s)^2.
    """
    with np.errstate(all="ignore"):
        padded, moving_padded = variance + epsilon, moving_variance + epsilon
        s, moving_s = np.sqrt(padded), np.sqrt(moving_padded)
        offset = (mean - moving_mean) / moving_s
        drift = np.sqrt(np.mean(offset**2 + variance * (1 / moving_s - 1 / s) ** 2))
        shift = np.sqrt(np.mean(((moving_mean - mean) / s) ** 2))
        logs = np.log(moving_padded / padded)
        ratio = np.exp(np.copysign(np.sqrt(np.mean(logs**2)), np.mean(logs)))
    return float(drift), float(shift), float(ratio)


def is_suspicious(m: NormMeasurement, examples: int) -> bool:
    """Whether to try the moving averages of a batch norm alone, given the number of examples."""
    layer = diagnosis_of(m, "", None, None)
    return not layer.drift <= _findings.limit(examples) / 2


def _updates(norm, steps, calls):
    """The number of updates of the moving averages, or `None` if it is unknown."""
    if getattr(norm, "update_count", None) is not None:
        return int(value_of(norm.update_count).max())
    return None if steps is None else steps * calls


def optimizer_steps(model: keras.Model) -> int | None:
    """The number of steps of the model's optimizer, or `None` if it has counted none."""
    optimizer = getattr(model, "optimizer", None) if model.compiled else None
    steps = int(ops.convert_to_numpy(optimizer.iterations)) if optimizer is not None else 0
    return steps or None  # a model that was loaded or compiled again has counted none


def _old_share(norm, updates, mean, variance):
    """The share of the values from before training in the moving averages."""
    if norm.momentum is None or getattr(norm, "debias", False):
        return 0.0 if updates else 1.0
    if updates is not None:
        return float(norm.momentum**updates)
    return _estimated_old_share(norm, mean, variance)


def _estimated_old_share(norm, mean, variance):
    """The r of moving = r initial + (1 - r) actual by least squares. `None` if it fits badly."""
    initial = [
        _initial_value(norm.moving_mean_initializer),
        _initial_value(norm.moving_variance_initializer),
    ]
    if None in initial:
        return None
    scale = variance + norm.epsilon
    actual = np.concatenate([(mean / np.sqrt(scale)).ravel(), (variance / scale).ravel()])
    first = np.concatenate([(initial[0] / np.sqrt(scale)).ravel(), (initial[1] / scale).ravel()])
    moving = np.concatenate(
        [
            (value_of(norm.moving_mean) / np.sqrt(scale)).ravel(),
            (value_of(norm.moving_variance) / scale).ravel(),
        ]
    )
    if not np.isfinite([actual, first, moving]).all() or not np.any(first - actual):
        return None
    share = np.dot(moving - actual, first - actual) / np.dot(first - actual, first - actual)
    rest = moving - actual - share * (first - actual)
    explained = 1 - np.dot(rest, rest) / max(np.dot(moving - actual, moving - actual), 1e-12)
    return float(share) if explained > _EXPLAINED and 0 < share <= 1.05 else None


def _initial_value(initializer):
    if isinstance(initializer, keras.initializers.Zeros):
        return 0.0
    if isinstance(initializer, keras.initializers.Ones):
        return 1.0
    if isinstance(initializer, keras.initializers.Constant):
        return initializer.value
    return None


def value_of(weight: Any) -> np.ndarray:
    """The value of a weight in float64."""
    with contextlib.suppress(AttributeError):
        weight = weight.value
    return np.asarray(ops.convert_to_numpy(weight), np.float64)
