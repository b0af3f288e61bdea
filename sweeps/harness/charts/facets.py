"""Divides trials into the series of a chart and, where there are many, into panels by setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from sweeps.harness.charts import looks
from sweeps.harness.results import labels, tables

MOST = 4  # series in one panel, before settings get panels of their own


class Series(NamedTuple):
    """One line of a chart.

    Attributes:
        label: Name for the legend.
        trials: The trials along the line.
        look: Colour, marker and line style.
    """

    label: str
    trials: pd.DataFrame
    look: dict[str, str]


def series(trials: pd.DataFrame, *x: str) -> list[Series]:
    """The lines of a chart with one panel, however many they are.

    Args:
        trials: The trials table.
        x: Columns along the line.
    """
    found = tables.by_series(trials, *x)
    every = looks.of_series([label for label, _ in found])
    return [Series(label, group, look) for (label, group), look in zip(found, every, strict=True)]


def facets(trials: pd.DataFrame, *x: str, by: Sequence[str] = ()) -> dict[str, list[Series]]:
    """The lines of a chart's panels, by the panel's title.

    Up to four lines share a panel. If there are more, every setting gets its panel, and the lines
    in it are the kinds of normalization. Plain networks are in every panel that differs in batch
    norm's options only.

    Args:
        trials: The trials table.
        x: Columns along the lines.
        by: Columns whose values get panels in any case.

    Returns:
        The lines of each panel. A single panel's title is empty unless `by` names it.
    """
    found = tables.series(trials, *x, by=by)
    settings = [each for each, _ in found]
    split = list(by)
    panels = _panels(settings, split)
    if any(sum(_in_panel(each, panel) for each in settings) > MOST for panel in panels):
        split = [name for name in settings[0] if name in by or not _is_kind(name, settings)]
        panels = _panels(settings, split)
    exact = labels.ambiguous(settings)
    names = [
        labels.of_series({k: v for k, v in each.items() if k not in split}, exact=exact)
        for each in settings
    ]
    shown = list(dict.fromkeys(names))
    look_of = dict(zip(shown, looks.of_series(shown), strict=True))
    return {
        labels.of_panel(panel, exact=exact): [
            Series(name, group, look_of[name])
            for name, (each, group) in zip(names, found, strict=True)
            if _in_panel(each, panel)
        ]
        for panel in panels
    }


def _is_kind(name, settings):
    """Whether a field names the kind of normalization and not an option of it."""
    if name in ("bn_renorm", "bn_virtual_batch_size"):
        return len({each[name] for each in settings if pd.notna(each[name])}) == 1
    return name in ("batch_norm", "group_norm")


def _panels(settings, split):
    """The settings of each panel: all values of these fields that occur together.

    A plain network has no options of batch norm, so it only gets a panel if there is none for
    batch norm with the same other settings.
    """
    ordered = sorted(settings, key=lambda each: not each["batch_norm"])
    panels: list[dict] = []
    for each in ordered:
        if each["batch_norm"] or not any(_in_panel(each, panel) for panel in panels):
            panel = {name: each[name] for name in split}
            if not any(_equal(panel, other) for other in panels):
                panels.append(panel)
    first = [next(n for n, each in enumerate(settings) if _in_panel(each, p)) for p in panels]
    return [panels[n] for n in np.argsort(first, kind="stable")]


def _in_panel(settings, panel):
    """Whether a series with these settings is in a panel."""
    shared = panel if settings["batch_norm"] else [n for n in panel if not n.startswith("bn_")]
    return _equal(*({name: each[name] for name in shared} for each in (settings, panel)))


def _equal(settings, others):
    """Whether settings are equal. A blank equals another blank."""
    pairs = [(value, others[name]) for name, value in settings.items()]
    return all(pd.isna(a) == pd.isna(b) and (pd.isna(a) or a == b) for a, b in pairs)
