"""Prints the report of `diagnose` with rich."""

from __future__ import annotations

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kerasbn.tools._report import Diagnosis, LayerDiagnosis, grouped
from kerasbn.tools._scores import Scores
from kerasbn.tools._wording import counted, listed

_STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}
_MOST_ROWS = 12  # of healthy layers; those with findings are always shown


def table(report: Diagnosis) -> Group:
    """The whole report for `rich.print`."""
    norms, batches = counted(len(report.layers), "batch norm"), report.batches
    title = (
        f"Model '{report.model}': {norms}, measured on {counted(report.examples, 'example')} in "
        f"{counted(batches, 'batch', 'batches')}"
    )
    parts = [Text(title, "bold"), _scores(report), Text(report.summary), _layers(report)]
    parts += [_finding(group) for group in grouped(report.findings)]
    if not report.findings:
        parts.append(Text("No fault found.", "green"))
    parts += [Text(f"Note: {note}") for note in report.notes]
    return Group(*(part for part in parts if part))


def _scores(report: Diagnosis) -> Table | None:
    rows = {
        "inference mode": report.inference,
        "batch statistics": report.batch_statistics,
        "after recalibrate": report.recalibrated or Scores(),
    }
    if report.inference == report.batch_statistics == Scores():
        return None
    shown = Table(box=None, pad_edge=False)
    shown.add_column("")
    shown.add_column("loss", justify="right")
    shown.add_column("accuracy", justify="right")
    for name, scores in rows.items():
        if scores != Scores():
            shown.add_row(name, _number(scores.loss), _percent(scores.accuracy, 1))
    return shown


def _layers(report: Diagnosis) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    shown.add_column("layer", overflow="fold")
    for title in ("drift", "mean off by", "variance", "old values", "values", "effect"):
        shown.add_column(title, justify="right")
    marked = {finding.layer for finding in report.findings if finding.severity != "info"}
    healthy = [layer for layer in report.layers if layer.layer not in marked]
    hidden = set(map(id, healthy[_MOST_ROWS:]))
    for layer in report.layers:
        if id(layer) not in hidden:
            shown.add_row(*_cells(layer), style="bold" if layer.layer in marked else "")
    if hidden:
        shown.add_row(f"and {len(hidden)} more without findings")
    return shown


def _cells(layer: LayerDiagnosis) -> list[str]:
    return [
        layer.layer,
        _number(layer.drift),
        _number(layer.mean_shift),
        f"x {_number(layer.variance_ratio)}",
        _percent(layer.old_share),
        _number(layer.values_per_batch),
        _percent(layer.effect),
    ]


def _finding(group) -> Text:
    first = group[0]
    layer = f"{first.layer}: " if first.layer else ""
    text = Text.assemble((f"{first.severity}  ", _STYLES[first.severity]), (layer, "bold"))
    text.append(first.sentence)
    if len(group) > 1:
        names = listed(f.layer for f in group[1:])
        text.append(f" The same fault in {counted(len(group) - 1, 'more layer')}: {names}.")
    return text.append("\n    " + first.remedy, "green")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if 100 <= abs(value) < 1e5 else f"{value:.3g}"


def _percent(value: float | None, digits: int = 0) -> str:
    if value is None:
        return ""
    return "inf" if np.isinf(value) else f"{value:.{digits}%}"
