"""The faults that `diagnose` knows: one function for each, from measured numbers to a `Finding`.

A function returns `None` if the numbers are those of a healthy batch norm.
"""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np

from kerasbn.tools._wording import counted

# Normalized values that are off by a quarter of their standard deviation. The mean of a batch of 16
# values is as far from the mean of all values, and networks train well with this noise.
DRIFT = 0.25
# From here on, the error is as large as the signal.
SEVERE_DRIFT = 1.0
# Correct statistics of n independent values drift by sqrt(1 / n + 1 / (2 n)) = 1.22 / sqrt(n), by
# chance. A healthy drift is hardly ever above 2 / sqrt(n).
CHANCE = 2.0
# If a moving variance is much too large, all normalized values are near 0, and the drift is 1. So
# the limit has to stay well below 1.
LARGEST_LIMIT = 0.6
# Share of the old values in a moving average. A moving mean that starts one standard deviation away
# is then off by 0.05.
OLD_SHARE = 0.05
# With fewer values, the variance of a batch is off by more than a third: sqrt(2 / 15) = 0.37.
FEW_VALUES = 16
# |gamma| relative to the largest one. Such a channel adds a thousandth of the strongest channel.
DEAD_GAMMA = 1e-3
# Variance relative to epsilon. Below it, outputs have a standard deviation below 0.3, not 1.
SMALL_VARIANCE = 0.1
# |mean| / standard deviation. Rounding an input of this size to its dtype costs 5% of the standard
# deviation in float16 and bfloat16. In float32, a variance that is computed as a difference of
# squares is off by 6%, and 1% of an old moving mean is off by 10 standard deviations.
LARGE_OFFSET = {"float16": 100.0, "bfloat16": 13.0, "float32": 1e3, "float64": 1e6}
# Inference variance over training variance, on which dropout has an effect: 0.8 in variance is 10%
# in the standard deviation.
DROPOUT_RATIO = 0.8
# Means of two calls, in standard deviations, or ratio of their variances. The average of two means
# is then off by half a standard deviation. The average of the variances v and 4 v is 2.5 v, so the
# standard deviations are off by factors of 1.6 and 1.3.
CALLS_APART = 1.0
CALLS_RATIO = 4.0


@dataclasses.dataclass(frozen=True)
class Finding:
    """A fault that `diagnose` found.

    Attributes:
        severity: "error" (outputs in inference mode are wrong), "warning" (they may be) or "info"
            (they are right, but something is wasted).
        fault: Short name of the fault, such as "lagging averages".
        layer: Path of the layer. `None` if the fault is in the data or in the model as a whole.
        sentence: The fault in plain words.
        remedy: A line of code that helps.
    """

    severity: str
    fault: str
    layer: str | None
    sentence: str
    remedy: str


_RECALIBRATE = "kerasbn.recalibrate(model, x_train)"
_GO_BACK = "model.load_weights(path)  # of an earlier checkpoint, then use a lower learning rate"


def limit(examples: int) -> float:
    """The drift above which moving averages are wrong, given the number of examples."""
    return max(DRIFT, min(LARGEST_LIMIT, CHANCE / math.sqrt(max(examples, 1))))


def not_finite(
    layer: str, averages: tuple[np.ndarray, np.ndarray], weights: list[np.ndarray]
) -> Finding | None:
    """NaN or infinity in the moving averages, or in gamma and beta."""
    finite = np.isfinite(averages).all(0)
    if not all(np.isfinite(each).all() for each in weights):
        return Finding(
            "error",
            "not finite",
            layer,
            "gamma or beta is NaN or infinite, so training has diverged.",
            _GO_BACK,
        )
    if finite.all():
        return None
    return Finding(
        "error",
        "not finite",
        layer,
        f"The moving averages of {np.sum(~finite)} of {counted(finite.size, 'feature')} are NaN or "
        "infinite. A single batch with such a value is enough, because they never recover.",
        _RECALIBRATE,
    )


def inputs_not_finite(layer: str, batch: int | None) -> Finding | None:
    """NaN or infinity in the inputs of a batch norm, although the data is finite."""
    if batch is None:
        return None
    return Finding(
        "error",
        "inputs not finite",
        layer,
        f"Its inputs in batch {batch} are NaN or infinite, although the data is finite. The "
        "weights of the layers before it are NaN, infinite or very large.",
        _GO_BACK,
    )


def data_not_finite(batches: list[int]) -> Finding | None:
    """NaN or infinity in the data."""
    if not batches:
        return None
    more = f" and in {counted(len(batches) - 1, 'more batch', 'more batches')}"
    return Finding(
        "error",
        "data not finite",
        None,
        f"There is NaN or infinity in batch {batches[0]} of the data{more * (len(batches) > 1)}. "
        "diagnose left this data out. In training, it would spoil all moving averages.",
        "x = x[np.isfinite(x).all(axis=tuple(range(1, x.ndim)))]",
    )


def training_mode(layer: str, *, at_runtime: bool, in_graph: bool, option: bool) -> Finding | None:
    """Batch statistics in inference mode."""
    if option:
        return Finding(
            "warning",
            "batch statistics in inference",
            layer,
            'It has statistics="batch". An output then depends on the other examples in the batch.',
            f'{code_of(layer)}.statistics = "auto"',
        )
    if not at_runtime and not in_graph:
        return None
    where = (
        "Even predict and evaluate normalize with the statistics of each batch, and move the "
        "averages."
        if at_runtime
        else "model(x) and exported functions normalize with the statistics of each batch, while "
        "predict and evaluate do not."
    )
    return Finding(
        "error",
        "training=True",
        layer,
        f"It is called with training=True. {where}",
        "y = norm(x)  # without training=True, because Keras passes the right value",
    )


def frozen(layer: str, reason: str, drift: float, largest: float) -> Finding | None:
    """Frozen statistics that come from other data."""
    if not reason or not drift > largest:
        return None
    return Finding(
        _severity(drift),
        "frozen on other data",
        layer,
        f"It is frozen ({reason}) and its moving averages come from other data: normalized values "
        f"are off by {drift:.2g} standard deviations.",
        "kerasbn.recalibrate(model, x_train, where=lambda layer: True)  # then train on",
    )


def shared(layer: str, means: np.ndarray, variances: np.ndarray, epsilon: float) -> Finding | None:
    """A batch norm whose calls get different statistics.

    Args:
        layer: Path of the layer.
        means: Means of the inputs, (calls, features).
        variances: Variances of the inputs, (calls, features).
        epsilon: Number added to the variance.
    """
    if len(means) < 2:
        return None
    spread = np.sqrt(variances.mean(0) + epsilon)
    apart = _rms(np.ptp(means, axis=0) / spread)
    padded = variances + epsilon
    ratio = math.exp(_rms(np.log(padded.max(0) / padded.min(0))))
    if not (apart > CALLS_APART or ratio > CALLS_RATIO):
        return None
    return Finding(
        "warning",
        "shared",
        layer,
        f"It is called {len(means)} times for each batch, and its inputs differ between the calls: "
        f"the means by {apart:.2g} standard deviations, the variances by a factor of {ratio:.2g}. "
        "One moving average cannot fit them all.",
        f"norms = [kerasbn.BatchNorm() for _ in range({len(means)})]  # one for each call",
    )


def small_batch(layer: str, values: float, channels: int, rank: int) -> Finding | None:
    """Too few values per feature in a batch.

    Args:
        layer: Path of the layer.
        values: Values per feature in the largest batch.
        channels: Number of features.
        rank: Rank of the inputs.
    """
    if values >= FEW_VALUES:
        return None
    groups = math.gcd(channels, 32)
    remedy = "LayerNormalization()" if rank == 2 else f"GroupNormalization(groups={groups})"
    if values < 2:
        error = "One value has no variance"
    else:
        error = (
            f"The variance of a batch is off by {math.sqrt(2 / (values - 1)):.0%}, and on average "
            f"it is {(values - 1) / values:.2f} times that of the data"
        )
    return Finding(
        "warning",
        "small batches",
        layer,
        f"A batch has {counted(round(values), 'value')} per feature. {error}.",
        f"norm = keras.layers.{remedy}  # or use larger batches",
    )


def dropout(
    layer: str, name: str, rate: float, predicted: np.ndarray | None, measured: float
) -> Finding | None:
    """Dropout that raises the variance of a batch norm's inputs in training.

    Args:
        layer: Path of the layer.
        name: Name of the dropout layer.
        rate: Rate of the dropout.
        predicted: Variance in inference over that in training for each feature, or `None` if it is
            unknown. See `dropout_shift`.
        measured: Actual variance over moving variance, typical for the features.
    """
    if predicted is None or not (ratio := _geometric_mean(predicted)) < DROPOUT_RATIO:
        return None
    return Finding(
        "warning",
        "dropout before norm",
        layer,
        f"Dropout '{name}' (rate {rate:g}) comes before it and raises the variance in training. In "
        f"inference, the variance is {ratio:.2f} times as large (predicted; the data has "
        f"{measured:.2f} times the moving variance).",
        f"{_RECALIBRATE}  # or move '{name}' after the last batch norm",
    )


def dropout_shift(variance: np.ndarray, second_moment: np.ndarray, rate: float) -> np.ndarray:
    """Variance in inference over variance in training, after dropout.

    Inputs with the mean c and the variance v are kept with the probability p and divided by p. This
    adds (1/p - 1) (c^2 + v) to the variance, so the ratio is v / ((c^2 + v) / p - c^2), as in
    Li et al. (2019), https://arxiv.org/abs/1801.05134, equation 4.

    Args:
        variance: Variance v of each feature in inference.
        second_moment: c^2 + v for each feature. After a linear layer y = W x, it is the sum of
            W^2 E[x^2].
        rate: Rate of the dropout, 1 - p.
    """
    added = rate / (1 - rate) * second_moment
    return np.divide(variance, variance + added, out=np.ones_like(variance), where=added > 0)


def lagging(
    layer: str,
    drift: float,
    largest: float,
    old_share: float | None,
    updates: int | None,
    momentum: float | None,
) -> Finding | None:
    """Moving averages with much of the values that they had before training.

    Args:
        layer: Path of the layer.
        drift: Error of normalized values, in standard deviations.
        largest: Largest drift of a healthy batch norm.
        old_share: Share of the old values, from the number of updates or estimated.
        updates: Number of updates, if it is known.
        momentum: Weight of the old average in an update, or `None` for the cumulative average.
    """
    if old_share is None or old_share < OLD_SHARE or not drift > largest:
        return None
    faster = ""
    if updates is None:
        since = f"About {old_share:.0%} of their initial values is left in the moving averages."
    elif updates == 0:
        since = "No training step has updated the moving averages."
    else:
        since = (
            f"After {counted(updates, 'update')} with momentum {momentum:g}, {old_share:.0%} of "
            "the values from before training is left in the moving averages."
        )
        quicker = _quicker(updates)
        faster = f"  # or train with momentum={quicker}" if quicker else "  # or train longer"
    return Finding(
        _severity(drift),
        "lagging averages",
        layer,
        f"{since} Normalized values are off by {drift:.2g} standard deviations.",
        _RECALIBRATE + faster,
    )


def drifted(layer: str, drift: float, largest: float, shift: float, ratio: float) -> Finding | None:
    """Moving averages that differ from the statistics of the data, without a known reason.

    Args:
        layer: Path of the layer.
        drift: Error of normalized values, in standard deviations.
        largest: Largest drift of a healthy batch norm.
        shift: Moving mean minus actual mean, in standard deviations, typical for the features.
        ratio: Moving variance over actual variance, typical for the features.
    """
    if not drift > largest:
        return None
    return Finding(
        _severity(drift),
        "other statistics",
        layer,
        f"Its moving averages are not those of the data: the mean is off by {shift:.2g} standard "
        f"deviations, and the variance is {ratio:.2g} times as large. The data differs from "
        "training, or the averages lag behind the weights.",
        _RECALIBRATE,
    )


def mask_ignored(layer: str, maker: str, dropping: str | None, share: float) -> Finding | None:
    """Padding that counts in the statistics."""
    if not share > 0:
        return None
    lost = f", because '{dropping}' drops the mask" if dropping else ""
    return Finding(
        "warning",
        "mask ignored",
        layer,
        f"'{maker}' masks {share:.0%} of the positions, but no mask arrives here{lost}. So padding "
        "counts in the statistics.",
        f"y = norm(y, mask=model.get_layer({maker!r}).compute_mask(x))",
    )


def dead_channels(layer: str, gamma: np.ndarray | None) -> Finding | None:
    """Channels that gamma multiplies by almost nothing."""
    if gamma is None:
        return None
    size = np.abs(gamma)
    threshold = max(DEAD_GAMMA * size.max(), 1e-12)
    dead = size <= threshold
    if not dead.any():
        return None
    first = tuple(int(i) for i in np.argwhere(dead)[0])
    return Finding(
        "warning",
        "dead channels",
        layer,
        f"{np.sum(dead)} of {counted(dead.size, 'channel')} {'is' if dead.sum() == 1 else 'are'} "
        f"dead: gamma is near zero (channel {first[0] if len(first) == 1 else first}: "
        f"{gamma[first]:.2g}). A dead channel passes on nothing but beta.",
        f"gamma.assign(keras.ops.where(abs(gamma) > {threshold:.1g}, gamma, 1.0))  # and train on",
    )


def constant_features(layer: str, variance: np.ndarray, epsilon: float) -> Finding | None:
    """Features whose variance is small compared with epsilon."""
    small = variance < SMALL_VARIANCE * epsilon
    if not small.any():
        return None
    least = variance.min()
    stddev = math.sqrt(least / (least + epsilon))
    return Finding(
        "warning",
        "variance near zero",
        layer,
        f"{np.sum(small)} of {counted(small.size, 'feature')} hardly "
        f"{'varies' if small.sum() == 1 else 'vary'} (variance {least:.2g}, epsilon {epsilon:g}). "
        f"So epsilon decides the scale, and the outputs have a standard deviation of {stddev:.2g} "
        "and not 1.",
        "norm = kerasbn.BatchNorm(epsilon=1e-5)  # or remove constant features",
    )


def large_offset(
    layer: str, mean: np.ndarray, variance: np.ndarray, epsilon: float, dtype: str
) -> Finding | None:
    """Inputs that are far from zero compared with their spread."""
    varies = variance >= SMALL_VARIANCE * epsilon  # otherwise see `constant_features`
    offset = np.where(varies, np.abs(mean) / np.sqrt(variance + epsilon), 0)
    worst = offset.max(initial=0)
    if not worst > LARGE_OFFSET.get(dtype, LARGE_OFFSET["float32"]):
        return None
    return Finding(
        "warning",
        "large offset",
        layer,
        f"Its inputs are up to {worst:.2g} standard deviations from zero. In {dtype}, this costs "
        f"digits, and a moving mean that is 1% off is off by {worst / 100:.2g} standard "
        "deviations.",
        "x = x - x_train.mean(axis=0)  # or a keras.layers.Normalization before it",
    )


def useless_bias(layer: str, biased: keras.Layer | None) -> Finding | None:
    """A bias that the batch norm after it removes."""
    if biased is None:
        return None
    return Finding(
        "info",
        "useless bias",
        layer,
        f"The bias of '{biased.name}' has no effect, because this layer subtracts the mean right "
        "after it.",
        f"keras.layers.{type(biased).__name__}(..., use_bias=False)  # '{biased.name}'",
    )


def gap_without_cause(gap: float | None, largest: float, cause: str | None) -> Finding | None:
    """Outputs that change a lot although no single batch norm drifted."""
    if gap is None or not gap > largest:
        return None
    return Finding(
        "warning",
        "gap",
        cause,
        f"No batch norm is far off, but together they change the outputs by {gap:.0%} of their "
        "standard deviation.",
        _RECALIBRATE,
    )


def code_of(path: str) -> str:
    """Python code for the layer with this path."""
    return "model" + "".join(f".get_layer({name!r})" for name in path.split("/"))


def _severity(drift):
    return "error" if drift > SEVERE_DRIFT else "warning"


def _quicker(updates):
    """A momentum at which less than `OLD_SHARE` is left after this many updates, or `None`."""
    return next((m for m in (0.99, 0.95, 0.9, 0.8, 0.5) if m**updates < OLD_SHARE), None)


def _rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def _geometric_mean(values):
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-12)))))
