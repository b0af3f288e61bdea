"""The report of `diagnose`: its data, and the ways to look at it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from kerasbn.tools._findings import Finding
from kerasbn.tools._scores import Scores

# A change of the outputs below this share of their standard deviation is not worth a sentence.
_SMALL_GAP = 0.05
# The largest effect stands out if it is this many times the next one.
_STANDS_OUT = 1.5


@dataclasses.dataclass(frozen=True, eq=False)
class LayerDiagnosis:
    """The measurements of one batch norm.

    Attributes:
        layer: Path of the layer.
        features: Number of features.
        calls: Number of calls for each batch.
        values_per_batch: Number of values per feature in the largest batch.
        frozen: Why the batch norm counts as frozen. Empty if it does not.
        momentum: Weight of the old average in an update. `None` means a cumulative average.
        epsilon: Number added to the variance.
        updates: Number of updates of the moving averages, from `update_count` or from the
            optimizer. `None` if it is unknown.
        old_share: Share of the values from before training in the moving averages. `None` if it is
            unknown.
        drift: Root mean square error of normalized values in inference mode, in standard
            deviations.
        mean_shift: Moving mean minus actual mean in actual standard deviations, typical for the
            features (root mean square).
        variance_ratio: Moving over actual variance, each plus epsilon, typical for the features.
        effect: Change of the model's outputs, relative to their standard deviation, between the
            moving averages and the actual statistics of this batch norm alone. All others use the
            actual statistics, except for frozen ones. `None` if it was not tried, because the
            drift is small.
        mean: Actual mean of each feature, as `recalibrate` would set it.
        variance: Actual variance of each feature, as `recalibrate` would set it.
        moving_mean: Moving mean of each feature.
        moving_variance: Moving variance of each feature.
    """

    layer: str
    features: int
    calls: int
    values_per_batch: float
    frozen: str
    momentum: float | None
    epsilon: float
    updates: int | None
    old_share: float | None
    drift: float
    mean_shift: float
    variance_ratio: float
    effect: float | None
    mean: np.ndarray
    variance: np.ndarray
    moving_mean: np.ndarray
    moving_variance: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """The report of `kerasbn.diagnose`. `print(report)` shows it as a table.

    Attributes:
        model: Name of the model.
        findings: Faults, the most severe first.
        layers: Measurements of each batch norm, in the order of their calls.
        inference: Loss and accuracy in inference mode, with the moving averages.
        batch_statistics: Loss and accuracy with the statistics of each batch, as in training.
        recalibrated: Loss and accuracy in inference mode after `recalibrate` on this data, with
            the statistics of frozen batch norms as they are. `None` if it was not tried.
        gap: Change of the outputs through `recalibrate`, relative to their standard deviation. If
            the data can be read only once, change between batch statistics and inference mode.
            `None` if it was not measured.
        cause: Path of the layer whose moving averages change the outputs most. `None` if no change
            is larger than 5%.
        batches: Number of batches.
        examples: Number of examples.
        passes: Number of times that the model ran on the data.
        notes: Sentences about everything that could not be seen or measured.
    """

    model: str
    findings: tuple[Finding, ...]
    layers: tuple[LayerDiagnosis, ...]
    inference: Scores
    batch_statistics: Scores
    recalibrated: Scores | None
    gap: float | None
    cause: str | None
    batches: int
    examples: int
    passes: int
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The gap between the modes in one or two sentences."""
        return " ".join(filter(None, (self._gap_in_words(), self._cause_in_words())))

    def _gap_in_words(self):
        now, best = self.inference, self.recalibrated or self.batch_statistics
        then = "after recalibrate" if self.recalibrated else "with batch statistics"
        if None not in (now.accuracy, best.accuracy):
            if f"{now.accuracy:.1%}" == f"{best.accuracy:.1%}":
                return f"Accuracy is {now.accuracy:.1%} in inference mode and the same {then}."
            return (
                f"Accuracy is {now.accuracy:.1%} in inference mode and would be "
                f"{best.accuracy:.1%} {then}."
            )
        if None not in (now.loss, best.loss):
            if f"{now.loss:.4g}" == f"{best.loss:.4g}":
                return f"Loss is {now.loss:.4g} in inference mode and the same {then}."
            return f"Loss is {now.loss:.4g} in inference mode and would be {best.loss:.4g} {then}."
        if self.gap is None:
            return ""
        if np.isinf(self.gap):
            return "The outputs in inference mode are NaN, infinite or constant."
        verb = "recalibrate changes" if self.recalibrated else "Batch statistics change"
        return f"{verb} the outputs by {self.gap:.0%} of their standard deviation."

    def _cause_in_words(self):
        effects = sorted((e.effect for e in self.layers if e.effect is not None), reverse=True)
        if self.cause is None or len(effects) == 0:
            return ""
        if len(effects) > 1 and effects[0] < _STANDS_OUT * effects[1]:
            return f"No layer stands out. The largest effect is that of '{self.cause}'."
        return f"Most of the difference comes from '{self.cause}'."

    def frame(self) -> Any:
        """The measurements as a pandas DataFrame, with one row per batch norm.

        The columns are the attributes of `LayerDiagnosis`, without the arrays, and `faults`.

        Raises:
            ImportError: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "report.frame() needs pandas: pip install pandas. Without it, use report.layers."
            ) from error
        names = [f.name for f in dataclasses.fields(LayerDiagnosis)]
        arrays = ("mean", "variance", "moving_mean", "moving_variance")
        rows = [
            {
                **{name: getattr(layer, name) for name in names if name not in arrays},
                "faults": ", ".join(f.fault for f in self.findings if f.layer == layer.layer),
            }
            for layer in self.layers
        ]
        return pd.DataFrame(rows).set_index("layer")

    def plot(self, ax: Any = None) -> Any:
        """Draws the drift of each batch norm as a bar, and marks the layer that causes the gap.

        Args:
            ax: matplotlib axis to draw on. Default `None`: a new figure.

        Returns:
            The axis.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        from kerasbn.tools import _diagnosis_chart

        return _diagnosis_chart.draw(self, ax)

    def __rich__(self) -> Any:
        """The table for `rich.print`."""
        from kerasbn.tools import _diagnosis_table

        return _diagnosis_table.table(self)

    def __str__(self) -> str:
        """The table as text, at most as wide as the terminal."""
        from rich.console import Console

        console = Console(color_system=None)  # a file or a log cannot show colors
        with console.capture() as captured:
            console.print(self, highlight=False)
        return captured.get().rstrip()

    __repr__ = __str__


def cause_of(layers: list[LayerDiagnosis]) -> str | None:
    """The layer with the largest effect, if it is worth a sentence."""
    tried = [layer for layer in layers if layer.effect is not None]
    largest = max(tried, key=lambda layer: layer.effect or 0, default=None)
    if largest is None or (largest.effect or 0) < _SMALL_GAP:
        return None
    return largest.layer


def by_severity(findings: list[Finding]) -> tuple[Finding, ...]:
    """The findings with the most severe first, otherwise in their order."""
    severities = ["error", "warning", "info"]
    return tuple(sorted(findings, key=lambda finding: severities.index(finding.severity)))


def grouped(findings: tuple[Finding, ...]) -> list[list[Finding]]:
    """The findings of the same fault together, in their order."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.fault, []).append(finding)
    return list(groups.values())
