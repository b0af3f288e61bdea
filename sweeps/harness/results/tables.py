"""Makes pandas tables from stored records, and decides how censored trials count.

A trial that did not reach the target within its budget is censored: `reached` is false and
`steps_to_target` is blank, never a number. In the summary, medians, minima and maxima count it as
infinite, and the columns `reached` and `total` show how many trials are censored. A diverged trial
is a miss like any other. A failed trial crashed, so it has no result and is in no summary.
"""

from __future__ import annotations

import dataclasses
import lzma
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sweeps.harness.errors import UserError
from sweeps.harness.results import labels
from sweeps.harness.results.store import write_whole
from sweeps.harness.trial import Trial

_TRIAL_FIELDS = [f.name for f in dataclasses.fields(Trial)]
_JOIN = "-"  # joins the entries of a list in a cell
_FIRST_COLUMNS = ["trial_id", "study", "dataset", "status", "seed", "depth"]
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
# Fields that name the kind of normalization, like the arm.
_KINDS = ["group_norm", "bn_renorm", "bn_virtual_batch_size"]
# Fields that change no result: how often a trial measures itself.
_MEASUREMENTS = ["curve_every", "record", "record_steps"]
_ENVIRONMENT = [
    "threads",
    "tensorflow",
    "keras",
    "kerasbn",
    "code",
    "cpu",
    "kernel",
    "program_code",
]
_NULLABLE = {
    "seed": "Int64",
    "depth": "Int64",
    "bn_logits": "boolean",
    "bn_renorm": "boolean",
    "bn_virtual_batch_size": "Int64",
    "group_norm": "Int64",
    "train_examples": "Int64",
    "validation_examples": "Int64",
    "train_size": "Int64",
}
# Newer columns come last, so that the older ones keep their places.
_NEWER_COLUMNS = [
    *("train_size", "validation_examples", "evaluated_on", "exact_until", "kernel"),
    *("program", "program_code", "options"),
]
_OLDER_COLUMNS = dict.fromkeys(
    [*_FIRST_COLUMNS, *_TRIAL_FIELDS, *_RESULTS, *_ENVIRONMENT, "commit", "finished_at"]
)
TRIAL_COLUMNS = [*(c for c in _OLDER_COLUMNS if c not in _NEWER_COLUMNS), *_NEWER_COLUMNS]


class Tables(NamedTuple):
    """The tables of a study.

    Attributes:
        trials: One row per trial: its configuration, result and provenance.
        curves: One row per recorded step of a trial: training loss and test accuracy.
        summary: One row per point of the grid: medians over the seeds.
        recorded: Tables of the recorders, by the recorder's name. Their first columns are
            `trial_id` and `step`; see `sweeps.harness.training.recorders`.
    """

    trials: pd.DataFrame
    curves: pd.DataFrame
    summary: pd.DataFrame
    recorded: Mapping[str, pd.DataFrame] = MappingProxyType({})


def from_records(records: Iterable[dict[str, Any]], varied: Sequence[str]) -> Tables:
    """Makes the tables of a study.

    Args:
        records: All records in the study's store.
        varied: Columns that the study varies, most important first. The summary also gets every
            other column in which the trials differ.
    """
    records = list(records)
    trials = trials_table(records)
    summary = summary_table(trials, varied)
    return Tables(trials, curves_table(records), summary, recorded_tables(records))


def select(tables: Tables, trial_ids: Collection[str], varied: Sequence[str]) -> Tables:
    """The tables of some of the trials.

    Args:
        tables: Tables of all trials.
        trial_ids: Ids of the trials to keep.
        varied: Columns that the study varies.
    """

    def keep(frame):
        return frame[frame.trial_id.isin(list(trial_ids))]

    trials = keep(tables.trials)
    recorded = {name: keep(frame) for name, frame in tables.recorded.items()}
    return Tables(trials, keep(tables.curves), summary_table(trials, varied), recorded)


def read_trials(folder: Path) -> pd.DataFrame | None:
    """The trials table in a study's results folder. `None` if there is none."""
    path = folder / "trials.csv"
    return pd.read_csv(path, dtype={"trial_id": str}) if path.exists() else None


def irreplaceable(folder: Path, about_to_run: Collection[str] = ()) -> set[str]:
    """Ids of the trials that new tables would lose: they are in trials.csv but have no record.

    Args:
        folder: The study's results folder.
        about_to_run: Ids of the trials of this run. A folder with records may lack some of these,
            because the run makes them again. A folder without any record holds published results,
            in which every trial counts.
    """
    path = folder / "trials.csv"
    if not path.exists():
        return set()
    # The record of a damaged file keeps its name, with another ending.
    records = {record.name.partition(".")[0] for record in (folder / "trials").glob("*.json*")}
    lost = set(pd.read_csv(path, usecols=["trial_id"], dtype=str).trial_id) - records
    return lost - set(about_to_run) if records else lost


def trials_table(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row per trial, sorted by configuration. The options of programs are the last columns."""
    options = sorted({name for r in records for name in r["trial"].get("options", {})})
    frame = pd.DataFrame([_row(r) for r in records], columns=[*TRIAL_COLUMNS, *options])
    frame = frame.astype(_RESULTS).astype(_NULLABLE)
    return frame.sort_values(["depth", "batch_norm", *_other_fields(frame), "seed", "trial_id"])


def curves_table(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row per step. `test_accuracy` is blank unless the whole test set was evaluated."""
    rows = [
        (record["trial_id"], *point)
        for record in sorted(records, key=lambda r: r["trial_id"])
        for point in record.get("curve", [])
    ]
    frame = pd.DataFrame(rows, columns=["trial_id", "step", "train_loss", "test_accuracy"])
    return frame.astype({"step": "Int64", "train_loss": "Float64", "test_accuracy": "Float64"})


def recorded_tables(records: Sequence[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """One table per recorder with the rows of all trials, sorted by trial and step."""
    rows: dict[str, list] = {}
    columns: dict[str, list[str]] = {}
    for record in sorted(records, key=lambda r: r["trial_id"]):
        for name, recorded in record.get("recorded", {}).items():
            columns[name] = ["trial_id", "step", *recorded["columns"]]
            rows.setdefault(name, []).extend([record["trial_id"], *row] for row in recorded["rows"])
    return {name: pd.DataFrame(rows[name], columns=columns[name]) for name in rows}


def summary_table(trials: pd.DataFrame, varied: Sequence[str]) -> pd.DataFrame:
    """One row per point of the grid: how many seeds reached the target, and how soon."""
    finished = trials[trials.status != "failed"]
    by = varying_columns(finished, varied)
    rows = [
        dict(zip(by, key, strict=True)) | _summarize(group)
        for key, group in finished.groupby(by, dropna=False, sort=True)
    ]
    columns = [*by, *_summarize(finished.head(0))]
    return pd.DataFrame(rows, columns=columns)


def setting_columns(trials: pd.DataFrame) -> list[str]:
    """The columns of a trials table that hold settings: fields of `Trial`, and options."""
    cells = trials.options.dropna().unique() if "options" in trials else []
    options = dict.fromkeys(name for cell in cells for name in cell.split(_JOIN) if name)
    return [*(name for name in _TRIAL_FIELDS if name in trials), *options]


def varying_columns(trials: pd.DataFrame, varied: Sequence[str]) -> list[str]:
    """`varied`, then every setting that differs among trials with equal `varied`."""
    by = list(varied)
    for name in setting_columns(trials):
        if name in by or name == "seed":
            continue
        if (trials.groupby(by, dropna=False)[name].nunique(dropna=False) > 1).any():
            by.append(name)
    return by


def series(
    trials: pd.DataFrame, *x: str, by: Sequence[str] = ()
) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Groups trials into the lines of a chart. Failed trials are left out.

    Trials of a line differ only in `x`, in settings that `x` determines, and in the seed. So no
    median over the trials at a point mixes settings. Networks of different depths share a line if
    the shallower one has the first layers of the deepest.

    Args:
        trials: The trials table.
        x: Columns along the line.
        by: Columns to group by, even if they are the same in all trials.

    Returns:
        The settings that tell each line apart, by field, and the line's trials.
    """
    finished = _once_per_seed(trials[trials.status != "failed"])
    kinds = [name for name in _KINDS if name in finished and finished[name].notna().any()]
    names = varying_columns(
        finished.drop(columns=_MEASUREMENTS, errors="ignore"), [*x, *by, "batch_norm", *kinds]
    )
    names = [name for name in names if name not in x]
    chained = "hidden_units" in names and "depth" in x
    if chained:
        names.remove("hidden_units")
    found = []
    # Series without an option come before those with it.
    groups = sorted(
        finished.groupby(names, dropna=False),
        key=lambda each: [(pd.notna(value), 0 if pd.isna(value) else value) for value in each[0]],
    )
    for key, group in groups:
        settings = dict(zip(names, key, strict=True))
        if not chained:
            found.append((settings, group))
            continue
        for units in _longest(group.hidden_units.unique()):
            chain = group[[_begins_with(units, each) for each in group.hidden_units]]
            found.append(({**settings, "hidden_units": units}, chain))
    return found


def by_series(trials: pd.DataFrame, *x: str) -> list[tuple[str, pd.DataFrame]]:
    """The label and the trials of each line of a chart; see `series`."""
    found = series(trials, *x)
    exact = labels.ambiguous([settings for settings, _ in found])
    return [(labels.of_series(settings, exact=exact), group) for settings, group in found]


def side_by_side(trials: pd.DataFrame, *x: str) -> pd.DataFrame:
    """The summary for printing: a row for each value of `x`, with the series side by side.

    `heading` explains the numbers, so that the table fits into a narrow terminal.

    Args:
        trials: The trials table.
        x: Columns that label the rows. They become the index.

    Returns:
        A table with two levels of columns: the series, and "steps" and "seconds".
    """
    columns = {}
    for label, group in by_series(trials, *x):
        points = _points(group, x)
        columns[label, "steps"] = {key: _steps_cell(point) for key, point in points.items()}
        columns[label, "seconds"] = {key: _seconds_cell(point) for key, point in points.items()}
    keys = sorted({key for column in columns.values() for key in column}, key=_blanks_first)
    return pd.DataFrame(
        [[column.get(key, "") for column in columns.values()] for key in keys],
        index=pd.MultiIndex.from_arrays(
            [[key[level] for key in keys] for level in range(len(x))],
            names=[name.replace("_", " ") for name in x],
        ),
        columns=pd.MultiIndex.from_arrays([[name[level] for name in columns] for level in (0, 1)]),
    )


def heading(trials: pd.DataFrame) -> str:
    """Explains the numbers in `side_by_side`."""
    least, most = trials.eval_every.min(), trials.eval_every.max()
    exactness = "" if most == 1 else f"\nThe target is checked every {most} steps."
    if least < most:
        exactness = f"\nThe target is checked every {least} to {most} steps."
    return (
        f"Median steps to {target(trials)} test accuracy (seeds that reached it), median seconds"
        f"{exactness}"
    )


def target(trials: pd.DataFrame) -> str:
    """The trials' target accuracy as text, such as "90%", or "80% or 90%" if they differ."""
    return " or ".join(f"{100 * each:g}%" for each in sorted(trials.target_accuracy.unique()))


def first_seed(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials of each setting's lowest seed, for charts of single runs.

    Failed trials are left out.
    """
    finished = trials[trials.status != "failed"]
    settings = [name for name in setting_columns(finished) if name != "seed"]
    lowest = finished.groupby(settings, dropna=False).seed.transform("min")
    return finished[finished.seed == lowest]


def write(tables: Tables, folder: Path) -> list[Path]:
    """Writes all tables.

    The trials and the summary are plain CSV files in full precision. The curves and the recorders'
    tables hold most of the bytes, so they become compressed CSV files, which `pandas.read_csv`
    reads directly. Their numbers have nine significant digits, enough to identify every float32.

    Args:
        tables: The tables.
        folder: Folder for the files.

    Returns:
        The paths of all files written.
    """
    paths = []
    for name in ("trials", "summary"):
        paths.append(folder / f"{name}.csv")
        write_whole(paths[-1], getattr(tables, name).to_csv(index=False).encode())
    for name, frame in {"curves": tables.curves, **tables.recorded}.items():
        paths.append(folder / f"{name}.csv.xz")
        text = frame.to_csv(index=False, float_format="%.9g")
        write_whole(paths[-1], lzma.compress(text.encode()))
        (folder / f"{name}.csv").unlink(missing_ok=True)  # older versions wrote this file
    return paths


def with_misses(values: pd.Series) -> np.ndarray:
    """Steps or seconds to the target as floats, with infinity for a miss."""
    return values.astype("Float64").fillna(np.inf).to_numpy(float)


def median(values: np.ndarray) -> float:
    """The median of numbers that may be infinite. NaN if there are no numbers."""
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


def _points(trials, x):
    """The trials of each point along `x`, by the point's values. A blank value becomes "".

    NaN would not do, because it is not equal to itself.
    """
    return {
        tuple("" if pd.isna(value) else value for value in key): point
        for key, point in trials.groupby(list(x), dropna=False)
    }


def _steps_cell(trials):
    """Median steps and reached/total, as text."""
    cell = _summarize(trials)
    steps = cell["median_steps"]
    shown = f">{trials.max_steps.max()}" if np.isinf(steps) else f"{steps:g}"
    return f"{shown} ({cell['reached']}/{cell['total']})"


def _seconds_cell(trials):
    """Median seconds, as text. "-" for a miss."""
    seconds = median(with_misses(trials.seconds_to_target))
    return "-" if np.isinf(seconds) else f"{seconds:.2f}"


def _blanks_first(key):
    """Sort key that puts blanks before numbers, with which they cannot be compared."""
    return [(value != "", value) for value in key]


def _once_per_seed(trials):
    """The trials without those that repeat another one and only measure less along the way."""
    found = [name for name in _MEASUREMENTS if name in trials]
    if not found:
        return trials
    measured = trials.assign(
        records=trials.record_steps.fillna("").str.count("-"),
        points=-trials.curve_every.replace(0, np.iinfo(np.int64).max),
    )
    ordered = measured.sort_values(["records", "points"], kind="stable")
    same = [name for name in setting_columns(trials) if name not in found]
    return trials[trials.trial_id.isin(ordered.drop_duplicates(same, keep="last").trial_id)]


def _begins_with(units, others):
    """Whether a network with these hidden units begins with the layers of another one."""
    return f"{units}-".startswith(f"{others}-")


def _longest(every):
    """The lists of hidden units that are not the beginning of another list."""
    return [
        units
        for units in every
        if not any(_begins_with(other, units) for other in every if other != units)
    ]


def _row(record):
    trial = _trial(record)
    return {
        **record,
        **{name: _cell(value) for name, value in trial.settings.items()},
        **{name: record["environment"].get(name) for name in _ENVIRONMENT},
    }


def _cell(value):
    return _JOIN.join(map(str, value)) if isinstance(value, tuple) else value


def _trial(record):
    try:
        return Trial.from_json(record["trial"])
    except TypeError as error:
        raise UserError(
            f"trials/{record['trial_id']}.json of {record['study']} was written by another version "
            f"({error}). Move the file away, or choose another --results_dir."
        ) from error


def _other_fields(frame):
    return [name for name in setting_columns(frame) if name not in ("batch_norm", "seed")]
