"""Gathers the trials of a results folder for the page's explorer.

The explorer shows single trials: their curves, their steps to the target and their settings.
Nothing is averaged over settings, and nothing is filled in.

A *group* holds the trials that differ in the seed only. Its place in the explorer is its depth,
activation, learning rate and momentum (`AXES`). Groups that share a study and all settings except
these and batch norm's are of one *experiment*, so the arms of an experiment can be compared.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sweeps.harness.results import intervals, labels, tables
from sweeps.harness.trial import arm_name

# Columns of the trials table to choose by. Their labels are in the page's template.
AXES = ("depth", "activation", "learning_rate", "bn_momentum")
_NORMALIZATION = ("batch_norm", "group_norm")  # and all columns that begin with "bn_"
_HIDDEN = ("dataset", "seed", "record", "record_steps", "options", "program", "depth")
_RESULTS = ("status", "steps_to_target", "final_accuracy", "best_accuracy", "final_step")
_DIGITS = 4


def gather(folders: Iterable[Path], most: int | None = None) -> dict[str, Any]:
    """The groups of one data set's studies, as values that JSON can represent.

    Args:
        folders: Results folders of the studies.
        most: Largest number of points per curve. Longer curves keep every k-th point and the last
            one. Default: all points.

    Returns:
        `groups` with the trials and their curves, and `thinned` with the names of the studies whose
        curves lost points.
    """
    groups, thinned = [], []
    for folder in folders:
        trials = tables.read_trials(folder)
        if trials is None or "status" not in trials or (trials.status == "failed").all():
            continue
        curves = _curves(folder)
        longest = curves.groupby("trial_id").size().max() if len(curves) else 0
        if most is not None and longest > most:
            thinned.append(folder.name)
        points = {key: _thin(rows, most) for key, rows in curves.groupby("trial_id")}
        groups += _groups(folder.name, trials, points)
    return {"groups": groups, "thinned": thinned}


def packed(values: dict[str, Any]) -> str:
    """JSON, compressed with gzip and written in base64."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _curves(folder):
    path = folder / "curves.csv.xz"
    if not path.exists():
        return pd.DataFrame({"trial_id": []})
    return pd.read_csv(path, dtype={"trial_id": str})


def _thin(rows, most):
    """Every k-th row and the last one, at most about `most` rows. Evaluated rows stay."""
    stride = 1 if most is None else -(-len(rows) // most)
    keep = np.arange(len(rows)) % stride == 0
    keep[-1] = True
    return rows[keep | rows.test_accuracy.notna().to_numpy()]


def _groups(study, trials, points):
    """Yields the groups of a study."""
    axes = [name for name in AXES if name in trials]
    for settings, chain in tables.series(trials, *axes):
        normalization = {k: v for k, v in settings.items() if _is_normalization(k)}
        other = {k: v for k, v in settings.items() if k not in normalization}
        for place, group in chain.groupby(axes, dropna=False):
            yield {
                "study": study,
                "experiment": labels.of_panel(other, exact=True),
                "arm": arm_name(normalization["batch_norm"]),
                "label": labels.of_series(normalization, exact=True),
                **{name: _plain(value) for name, value in zip(axes, place, strict=True)},
                "settings": _settings(group),
                "steps": _steps(group),
                "trials": [_trial(row, points) for row in group.to_dict("records")],
            }


def _is_normalization(name):
    return name in _NORMALIZATION or name.startswith("bn_")


def _settings(group):
    """The settings of a group that are not blank, by the words for the column."""
    first = group.iloc[0]
    names = [name for name in tables.setting_columns(group) if name not in _HIDDEN]
    return {
        name.replace("bn_", "batch norm: ").replace("_", " "): str(_plain(first[name]))
        for name in names
        if pd.notna(first[name])
    }


def _steps(group):
    """The median steps to the target with its interval, or None if there is no target."""
    if group.target_accuracy.isna().all():
        return None
    steps = tables.with_misses(group.steps_to_target)
    found = intervals.of_median(steps)
    budget = int(group.max_steps.max())
    known = found.seeds >= intervals.SEEDS_NEEDED
    return {
        "text": found.shown(infinite=f">{budget:,}"),
        "reached": int(np.isfinite(steps).sum()),
        "budget": budget,
        "target": tables.target(group),
        "median": _finite(found.estimate),
        "interval": known,
        "low": _finite(found.low) if known else None,
        "high": _finite(found.high) if known else None,
    }


def _trial(row, points):
    """A trial's results and its curve."""
    curve = points.get(row["trial_id"])
    values = {name: _plain(row[name]) for name in _RESULTS if name in row}
    shown = {"id": row["trial_id"], "seed": int(row["seed"]), **values}
    if curve is not None:
        evaluated = curve[curve.test_accuracy.notna()]
        shown["curve"] = [_runs(curve.step), _numbers(curve.train_loss)]
        shown["accuracy"] = [_runs(evaluated.step), _numbers(evaluated.test_accuracy)]
    return shown


def _runs(steps):
    """Steps as [first, distance, count] for each stretch of equal distances."""
    runs: list[list[int]] = []
    for step in steps.astype(int):
        if runs and runs[-1][2] == 1:
            runs[-1] = [runs[-1][0], int(step) - runs[-1][0], 2]
        elif runs and step == runs[-1][0] + runs[-1][1] * runs[-1][2]:
            runs[-1][2] += 1
        else:
            runs.append([int(step), 0, 1])
    return runs


def _numbers(values):
    """Numbers with four significant digits. A blank or infinite value becomes None."""
    return [
        float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None
        for value in values.astype(float)
    ]


def _finite(value):
    return float(value) if np.isfinite(value) else None


def _plain(value):
    """A cell of a table as a value that JSON can represent."""
    if pd.isna(value):
        return None
    if isinstance(value, (np.generic,)):
        value = value.item()
    return int(value) if isinstance(value, float) and value.is_integer() else value
