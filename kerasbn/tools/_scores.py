"""Loss, accuracy and outputs of a model in several modes, as running sums over batches."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from kerasbn.tools._arrays import as_arrays, as_tensors
from kerasbn.tools._inputs import shapes_of
from kerasbn.tools._population import RunningMoments


@dataclasses.dataclass(frozen=True)
class Scores:
    """Loss and accuracy of a model on the data.

    Attributes:
        loss: Loss as `model.evaluate` returns it. `None` without targets or a compiled loss.
        accuracy: Share of the targets that are predicted. It ignores masks and sample weights.
            `None` unless the loss is a cross-entropy and the model has one output.
    """

    loss: float | None = None
    accuracy: float | None = None


class Scorer:
    """Sums the loss and the correct predictions of a compiled model.

    Args:
        model: Model whose outputs are scored.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._loss = self._examples = self._correct = self._labels = 0.0
        self.error: str | None = None

    def add(self, x: Any, targets: tuple, outputs: Any) -> None:
        """Adds a batch. Without targets or a compiled loss, it does nothing."""
        if self.error or not targets or targets[0] is None:
            return
        if not self._model.compiled or not self._model.loss:
            return
        examples = shapes_of(x)[0][0] or 0
        try:
            y, weight = (*(as_tensors(as_arrays(each, 0)) for each in targets), None)[:2]
            loss = self._model.compute_loss(
                x=x, y=y, y_pred=outputs, sample_weight=weight, training=False
            )
            self._loss += float(ops.convert_to_numpy(loss)) * examples
            self._examples += examples
        except Exception as error:  # the rest of a diagnosis needs no loss
            self.error = f"{type(error).__name__}: {error}".splitlines()[0]
            return
        if len(tree.flatten(outputs)) == len(tree.flatten(y)) == 1:
            (y,), (p,) = tree.flatten(y), tree.flatten(outputs)
            correct = _correct(self._model.loss, _float64(y), _float64(p))
            self._correct += 0 if correct is None else correct.sum()
            self._labels += 0 if correct is None else correct.size

    @property
    def scores(self) -> Scores:
        """The scores of all batches so far."""
        return Scores(
            loss=self._loss / self._examples if self._examples and not self.error else None,
            accuracy=float(self._correct / self._labels) if self._labels else None,
        )


@contextlib.contextmanager
def kept_metrics(model: keras.Model) -> Iterator[None]:
    """Restores the state of a model's metrics after a `with` block.

    With several outputs, `compute_loss` also updates the metrics of the losses.
    """
    before = [(v, np.array(ops.convert_to_numpy(v))) for v in model.metrics_variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


class OutputChanges:
    """How far outputs of a model are from reference outputs, relative to the reference's spread."""

    def __init__(self):
        self._reference: list[np.ndarray] = []
        self._spread: list[RunningMoments] = []
        self._squares: dict[str, list[float]] = {}

    def set_reference(self, outputs: Any) -> None:
        """Adds the reference outputs of the next batch."""
        self._reference = _floats(outputs)
        self._spread = self._spread or [RunningMoments() for _ in self._reference]
        for spread, y in zip(self._spread, self._reference, strict=True):
            spread.add(y.mean(0), y.var(0), len(y))

    def add(self, name: str, outputs: Any) -> None:
        """Adds other outputs of the same batch."""
        sums = self._squares.setdefault(name, [0.0] * len(self._reference))
        for i, (y, other) in enumerate(zip(self._reference, _floats(outputs), strict=True)):
            sums[i] += np.square(other - y).sum()

    def of(self, name: str) -> float:
        """Root mean square difference over standard deviation of the output that changes most.

        It is infinite for outputs that are not finite.
        """
        changes = [0.0]
        for spread, squares in zip(self._spread, self._squares[name], strict=True):
            variance = np.mean(spread.variance)
            square = squares / (np.max(spread.count) * np.size(spread.mean))
            if not np.isfinite(square + variance):
                return float("inf")
            if square > 0:
                changes.append(float(np.sqrt(square / variance)) if variance else float("inf"))
        return max(changes)


def _floats(outputs):
    """The real outputs as float64 arrays of the shape (positions, features)."""
    dense = [getattr(tensor, "flat_values", tensor) for tensor in tree.flatten(outputs)]
    arrays = [_float64(tensor) for tensor in dense if "float" in str(tensor.dtype)]
    return [y.reshape(-1, y.shape[-1] if y.ndim > 1 else 1) for y in arrays]


def _float64(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), np.float64)


def _correct(loss, y, p):
    """Whether each prediction is the target's class. `None` if the loss is no cross-entropy."""
    loss = keras.losses.get(loss) if isinstance(loss, str) else loss  # also short names like "bce"
    name = str(getattr(loss, "name", getattr(loss, "__name__", ""))).replace("_", "").lower()
    if "crossentropy" not in name:
        return None
    if y.ndim == p.ndim - 1 and p.shape[-1] == 1:
        y = y[..., None]
    if "binary" in name and y.shape == p.shape:
        return (p > (0.0 if getattr(loss, "from_logits", False) else 0.5)) == (y > 0.5)
    if y.ndim == p.ndim and y.shape[-1] == 1:
        y = y[..., 0]
    if p.ndim < 2 or p.shape[-1] < 2 or y.shape not in (p.shape, p.shape[:-1]):
        return None
    return p.argmax(-1) == (y.argmax(-1) if y.shape == p.shape else y)
