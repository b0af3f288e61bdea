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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sweeps.harness.results import intervals, labels, tables
from sweeps.harness.trial import arm_name

# Columns of the trials table to choose by. Their labels are in the page's template.
AXES = ("depth", "activation", "learning_rate", "bn_momentum")
_NORMALIZATION = ("batch_norm", "group_norm")  # and all columns that begin with "bn_"
_HIDDEN = ("dataset", "seed", "record", "record_steps", "options", "program", "depth")
# Columns that hold text, even if pandas could read all their values as numbers.
_TEXTS = ("trial_id", "hidden_units", "record", "record_steps", "options", "program")
_RESULTS = ("status", "steps_to_target", "final_accuracy", "best_accuracy", "final_step")
_DIGITS = 4


class Packed(NamedTuple):
    """The data of one data set, as text for the page.

    Attributes:
        text: JSON, compressed with gzip and written in base64.
        thinned: Names of the studies whose curves lost points.
    """

    text: str
    thinned: list[str]


def gather(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """The groups of one data set's studies, as values that JSON can represent.

    Args:
        folders: Results folders of the studies.

    Returns:
        The groups. Each has its `trials`, and a trial has its `curve` (steps and training losses)
        and its `accuracy` (steps and test accuracies) if they were recorded.
    """
    groups: list[dict[str, Any]] = []
    for folder in folders:
        trials = _read(folder / "trials.csv")
        if "status" in trials and (trials.status != "failed").any():
            curves = dict(list(_read(folder / "curves.csv.xz").groupby("trial_id")))
            groups += _groups(folder.name, trials, curves)
    return groups


def pack(groups: Iterable[Mapping[str, Any]], most: int | None = None) -> Packed:
    """Packs groups for the page.

    Args:
        groups: The groups, see `gather`.
        most: Largest number of points per curve. Longer curves keep every k-th point, the last one
            and all with a test accuracy. Default: all points.
    """
    thinned: dict[str, None] = {}
    packed = []
    for group in groups:
        trials = [_thin(trial, most) for trial in group["trials"]]
        if any(a is not b for a, b in zip(trials, group["trials"], strict=True)):
            thinned[group["study"]] = None
        packed.append({**group, "trials": [_in_stretches(trial) for trial in trials]})
    text = json.dumps(packed, separators=(",", ":"), allow_nan=False)
    compressed = gzip.compress(text.encode(), mtime=0)
    return Packed(base64.b64encode(compressed).decode(), list(thinned))


def _read(path):
    """A table with its text columns as text. An empty one if there is no such file."""
    if not path.exists():
        return pd.DataFrame({"trial_id": []})
    return pd.read_csv(path, dtype=dict.fromkeys(_TEXTS, str))


def _thin(trial, most):
    """A trial with at most about `most` points in its curve. The same trial if it has no more."""
    steps, losses = trial.get("curve", ((), ()))
    if most is None or len(steps) <= most:
        return trial
    stride = -(-len(steps) // most)
    evaluated = {steps[-1], *trial["accuracy"][0]}
    kept = [n for n, step in enumerate(steps) if n % stride == 0 or step in evaluated]
    return {**trial, "curve": ([steps[n] for n in kept], [losses[n] for n in kept])}


def _in_stretches(trial):
    """A trial with the steps of its curves as stretches."""
    curves = {name: trial[name] for name in ("curve", "accuracy") if name in trial}
    return {
        **trial,
        **{name: (_stretches(steps), numbers) for name, (steps, numbers) in curves.items()},
    }


def _groups(study, trials, curves):
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
                **dict.fromkeys(AXES),
                **{name: _plain(value) for name, value in zip(axes, place, strict=True)},
                "settings": _settings(group),
                "steps": _steps(group),
                "trials": [_trial(row, curves) for row in group.to_dict("records")],
            }


def _is_normalization(name):
    return name in _NORMALIZATION or name.startswith("bn_")


def _settings(group):
    """The settings of a group that are not blank, by the words for the column."""
    first = group.iloc[0]
    names = [name for name in tables.setting_columns(group) if name not in _HIDDEN]
    return {
        name.replace("bn_", "batch norm: ").replace("_", " "): _in_words(_plain(first[name]))
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


def _trial(row, curves):
    """A trial's results and its curve."""
    curve = curves.get(row["trial_id"])
    values = {name: _plain(row[name]) for name in _RESULTS if name in row}
    shown = {"id": row["trial_id"], "seed": int(row["seed"]), **values}
    if curve is not None:
        evaluated = curve[curve.test_accuracy.notna()]
        shown["curve"] = curve.step.tolist(), _numbers(curve.train_loss)
        shown["accuracy"] = evaluated.step.tolist(), _numbers(evaluated.test_accuracy)
    return shown


def _stretches(steps):
    """Steps as [first, distance, count] for each stretch of equal distances."""
    found: list[list[int]] = []
    for step in steps:
        if found and found[-1][2] == 1:
            found[-1] = [found[-1][0], step - found[-1][0], 2]
        elif found and step == found[-1][0] + found[-1][1] * found[-1][2]:
            found[-1][2] += 1
        else:
            found.append([step, 0, 1])
    return found


def _numbers(values):
    """Numbers with four significant digits. A blank or infinite value becomes None."""
    return [
        float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None
        for value in values.astype(float)
    ]


def _finite(value):
    return float(value) if np.isfinite(value) else None


def _in_words(value):
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _plain(value):
    """A cell of a table as a value that JSON can represent."""
    if pd.isna(value):
        return None
    if isinstance(value, np.generic):
        value = value.item()
    return int(value) if isinstance(value, float) and value.is_integer() else value
