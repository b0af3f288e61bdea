"""From stored records to pandas tables. Censoring is decided here, and nowhere else.

A trial that did not reach the target within its budget is censored: `reached` is false and
`steps_to_target` is blank, never a number. Medians, minima and maxima of the summary count it as
infinite, and stand beside `reached` and `total`. A diverged trial is a miss like any other; a
failed one (it crashed) is no result and is in no summary.
"""

from __future__ import annotations

import dataclasses
import lzma
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sweeps.harness.errors import UserError
from sweeps.harness.results.store import write_whole
from sweeps.harness.trial import Trial, arm_name

_TRIAL_FIELDS = [f.name for f in dataclasses.fields(Trial)]
_BEFORE = ["trial_id", "study", "dataset", "status", "seed", "depth"]
_RESULTS = {
    "reached": "boolean",
    "steps_to_target": "Int64",
    "seconds_to_target": "Float64",
    "final_step": "Int64",
    "final_accuracy": "Float64",
    "best_accuracy": "Float64",
    "final_loss": "Float64",
    "seconds_per_step": "Float64",
    "seconds_total": "Float64",
}
_ENVIRONMENT = ["threads", "tensorflow", "keras", "kerasbn", "code", "cpu"]
_NULLABLE = {
    "seed": "Int64",
    "depth": "Int64",
    "bn_logits": "boolean",
    "bn_renorm": "boolean",
    "bn_virtual_batch_size": "Int64",
    "group_norm": "Int64",
    "train_examples": "Int64",
}
TRIAL_COLUMNS = [
    *_BEFORE,
    *[name for name in _TRIAL_FIELDS if name not in _BEFORE],
    *_RESULTS,
    *_ENVIRONMENT,
    "commit",
    "finished_at",
]


class Tables(NamedTuple):
    """The tables of a study; see the README for their columns.

    Attributes: trials: One row a trial. curves: One row a step of a trial. summary: One row a point
        of the grid. recorded: What was measured besides, by the name of its recorder, whose columns
        follow on `trial_id` and `step`; see `sweeps.harness.training.recorders`.
    """

    trials: pd.DataFrame
    curves: pd.DataFrame
    summary: pd.DataFrame
    recorded: Mapping[str, pd.DataFrame] = MappingProxyType({})


def from_records(records: Iterable[dict[str, Any]], varied: Sequence[str]) -> Tables:
    """The tables of a study.

    Args:
        records: What the store holds.
        varied: The columns that the study varies, most important first. Columns in which the trials
            differ besides are found and added to the summary.
    """
    records = list(records)
    trials = trials_table(records)
    summary = summary_table(trials, varied)
    return Tables(trials, curves_table(records), summary, recorded_tables(records))


def trials_table(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row a trial, in the order of the configurations."""
    frame = pd.DataFrame([_row(r) for r in records], columns=TRIAL_COLUMNS).astype(_RESULTS)
    frame = frame.astype(_NULLABLE)
    return frame.sort_values(["depth", "batch_norm", *_other_fields(frame), "seed", "trial_id"])


def curves_table(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row a step; `test_accuracy` is blank where the test set was not evaluated in full."""
    rows = [
        (record["trial_id"], *point)
        for record in sorted(records, key=lambda r: r["trial_id"])
        for point in record.get("curve", [])
    ]
    frame = pd.DataFrame(rows, columns=["trial_id", "step", "train_loss", "test_accuracy"])
    return frame.astype({"step": "Int64", "train_loss": "Float64", "test_accuracy": "Float64"})


def recorded_tables(records: Sequence[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """A table for each recorder, with the rows of all trials, by trial and step."""
    rows: dict[str, list] = {}
    columns: dict[str, list[str]] = {}
    for record in sorted(records, key=lambda r: r["trial_id"]):
        for name, recorded in record.get("recorded", {}).items():
            columns[name] = ["trial_id", "step", *recorded["columns"]]
            rows.setdefault(name, []).extend([record["trial_id"], *row] for row in recorded["rows"])
    return {name: pd.DataFrame(rows[name], columns=columns[name]) for name in rows}


def summary_table(trials: pd.DataFrame, varied: Sequence[str]) -> pd.DataFrame:
    """One row a point of the grid: how many of its seeds reached the target, and how soon."""
    finished = trials[trials.status != "failed"]
    by = varying_columns(finished, varied)
    rows = [
        dict(zip(by, key, strict=True)) | _summarize(group)
        for key, group in finished.groupby(by, dropna=False, sort=True)
    ]
    columns = [*by, *_summarize(finished.head(0))]
    return pd.DataFrame(rows, columns=columns)


def varying_columns(trials: pd.DataFrame, varied: Sequence[str]) -> list[str]:
    """`varied`, then each field of `Trial` that still differs where all of those agree."""
    by = list(varied)
    for name in _TRIAL_FIELDS:
        if name in by or name == "seed" or name not in trials:
            continue
        if (trials.groupby(by, dropna=False)[name].nunique(dropna=False) > 1).any():
            by.append(name)
    return by


def by_series(trials: pd.DataFrame, *x: str) -> list[tuple[str, pd.DataFrame]]:
    """The trials that belong on one line of a chart, with its label; failed ones left out.

    Args:
        trials: The trials table.
        x: Columns along the line.
    """
    finished = trials[trials.status != "failed"]
    arms = [c for c in varying_columns(finished, [*x, "batch_norm"]) if c not in x]
    return [
        (_label(dict(zip(arms, key, strict=True))), group)
        for key, group in finished.groupby(arms, dropna=False, sort=True)
    ]


def side_by_side(trials: pd.DataFrame, *x: str) -> pd.DataFrame:
    """The summary for a person: a row for each value of `x`, the series side by side, as texts.

    What its numbers are stands in `heading`, so that the table fits a narrow terminal.
    """
    columns = {}
    for label, group in by_series(trials, *x):
        cells = {
            # A blank is equal to itself only as a text.
            tuple("" if pd.isna(value) else value for value in key): (
                _summarize(part),
                part.max_steps.max(),
            )
            for key, part in group.groupby(list(x), dropna=False)
        }
        columns[label] = {
            key: f"{_steps(cell['median_steps'], budget)} ({cell['reached']}/{cell['total']})"
            for key, (cell, budget) in cells.items()
        }
        columns["seconds" + " " * len(columns)] = {  # blanks tell columns of one title apart
            key: "-" if np.isinf(cell["median_seconds"]) else f"{cell['median_seconds']:.2f}"
            for key, (cell, _) in cells.items()
        }
    rows = {key for column in columns.values() for key in column}
    lines = [
        [*key, *(column.get(key, "") for column in columns.values())]
        for key in sorted(rows, key=lambda row: [(value != "", value) for value in row])
    ]
    return pd.DataFrame(lines, columns=[*(name.replace("_", " ") for name in x), *columns])


def heading(trials: pd.DataFrame) -> str:
    """What the numbers of `side_by_side` are."""
    every = trials.eval_every.max()
    exactness = "" if every == 1 else f"\nThe target is looked at every {every} steps."
    return (
        f"Median steps to {target(trials)} test accuracy (seeds that got there), median seconds"
        f"{exactness}"
    )


def target(trials: pd.DataFrame) -> str:
    """The trials' target accuracy in print, such as "90%"."""
    return f"{100 * trials.target_accuracy.iloc[0]:g}%"


def first_seed(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials of the lowest seed, for charts of single runs; failed ones are left out."""
    return trials[(trials.seed == trials.seed.min()) & (trials.status != "failed")]


def write(tables: Tables, folder: Path) -> list[Path]:
    """Writes all tables and returns their paths.

    The trials and the summary are plain CSV files in full precision. The curves and the recorders'
    tables, most of the bytes, are compressed CSV files (`pandas.read_csv` reads them as they are)
    with nine significant digits, which identify every float32 number.
    """
    paths = []
    for name in ("trials", "summary"):
        paths.append(folder / f"{name}.csv")
        write_whole(paths[-1], getattr(tables, name).to_csv(index=False).encode())
    for name, frame in {"curves": tables.curves, **tables.recorded}.items():
        paths.append(folder / f"{name}.csv.xz")
        text = frame.to_csv(index=False, float_format="%.9g")
        write_whole(paths[-1], lzma.compress(text.encode()))
        (folder / f"{name}.csv").unlink(missing_ok=True)  # the form of older versions
    return paths


def with_misses(values: pd.Series) -> np.ndarray:
    """Steps or seconds to target as floats, a miss as infinity."""
    return values.astype("Float64").fillna(np.inf).to_numpy(float)


def median(values: np.ndarray) -> float:
    """Median that takes infinities; blank (NaN) of nothing."""
    if len(values) == 0:
        return float("nan")
    ordered = np.sort(values)
    middle = ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]
    return float(middle.sum() / len(middle))


def _summarize(group):
    steps = with_misses(group.steps_to_target)
    return {
        "reached": int(group.reached.fillna(False).sum()),
        "total": len(group),
        "median_steps": median(steps),
        "min_steps": min(steps, default=np.nan),
        "max_steps": max(steps, default=np.nan),
        "median_seconds": median(with_misses(group.seconds_to_target)),
        "median_final_accuracy": median(group.final_accuracy.dropna().to_numpy(float)),
    }


def _steps(median_steps, budget):
    return f">{budget}" if np.isinf(median_steps) else f"{median_steps:g}"


def _label(arm):
    arm = dict(arm)
    name = arm_name(arm.pop("batch_norm"))
    if not pd.isna(arm.get("group_norm")):
        name, arm["groups"] = "group norm", arm.pop("group_norm")
    details = [
        f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}"
        for k, v in arm.items()
        if not pd.isna(v)
    ]
    return f"{name} ({', '.join(details)})" if details else name


def _row(record):
    trial = _trial(record)
    fields = dataclasses.asdict(trial)
    return {
        **record,
        **{k: "-".join(map(str, v)) if isinstance(v, tuple) else v for k, v in fields.items()},
        "depth": trial.depth,
        **{name: record["environment"].get(name) for name in _ENVIRONMENT},
    }


def _trial(record):
    try:
        return Trial.from_json(record["trial"])
    except TypeError as error:
        raise UserError(
            f"trials/{record['trial_id']}.json of {record['study']} was written by another version "
            f"({error}). Move it away, or choose another --results_dir."
        ) from error


def _other_fields(frame):
    return [name for name in _TRIAL_FIELDS if name not in ("batch_norm", "seed")]
