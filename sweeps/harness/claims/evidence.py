"""Reads a study's tables for the rules of claims, and sums them up in numbers and words."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pandas as pd

from sweeps.harness.claims.verdicts import NotRunError
from sweeps.harness.errors import UserError
from sweeps.harness.results.tables import median, with_misses

NEAR_CHANCE = 0.2  # twice the accuracy of guessing among ten classes


class StudyTables:
    """A study's tables. Each is read from its file when a rule asks for it.

    Args:
        folder: The study's results folder, RESULTS_DIR/DATASET/STUDY.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def of_study(self, study: str) -> StudyTables:
        """The tables of another study on the same data."""
        return StudyTables(self._folder.parent / study)

    def read(self, name: str, *columns: str) -> pd.DataFrame:
        """Reads a table. Crashed trials are left out of the trials table.

        Args:
            name: Name of the table, without ".csv".
            columns: Columns that the table must have.

        Raises:
            NotRunError: If the table does not exist or is empty.
            UserError: If it cannot be read or lacks one of the columns.
        """
        paths = [self._folder / f"{name}.csv", self._folder / f"{name}.csv.xz"]
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            raise NotRunError(f"there is no {self._folder.name}/{name}.csv")
        remedy = f"Run python -m sweeps.{self._folder.name} again, or move the file away."
        try:
            frame = pd.read_csv(path, dtype={"trial_id": str})
        except (ValueError, OSError, EOFError, lzma.LZMAError) as error:
            raise UserError(f"{path} cannot be read as a table ({error}). {remedy}") from error
        missing = [column for column in columns if column not in frame]
        if missing:
            raise UserError(
                f"{path} lacks the column {', '.join(missing)}. Another version of this project "
                f"wrote it. {remedy}"
            )
        if name == "trials" and "status" in frame:
            frame = frame[frame.status != "failed"]
        if frame.empty:
            raise NotRunError(f"{self._folder.name}/{name}.csv is empty")
        return frame

    def trials(self, *columns: str) -> pd.DataFrame:
        """The trials table, with these columns and the ones that every rule reads."""
        common = ("trial_id", "status", "seed", "batch_norm", "max_steps", "target_accuracy")
        return self.read("trials", *common, *columns)

    def recorded(self, name: str, settings: tuple[str, ...], *columns: str) -> pd.DataFrame:
        """A recorder's table, or the curves, joined with settings of each row's trial.

        Args:
            name: Name of the table, without ".csv".
            settings: Columns of the trials table to add.
            columns: Columns that the table must have.
        """
        trials = self.trials(*settings)
        settings = tuple(dict.fromkeys(["trial_id", "seed", "batch_norm", *settings]))
        rows = self.read(name, "trial_id", "step", *columns)
        return rows.merge(trials[list(settings)], on="trial_id")


def pick(frame, **values):
    """The rows with these values. Raises a NotRunError that names the values if there are none."""
    for name, value in values.items():
        frame = frame[frame[name] == value]
    if frame.empty:
        raise NotRunError(", ".join(f"{name}={value}" for name, value in values.items()))
    return frame


def under(indexed, *key):
    """The entries under the first levels of an index. Raises a NotRunError if there are none."""
    try:
        return indexed.loc[key if len(key) > 1 else key[0]]
    except KeyError as error:
        raise NotRunError(f"{key}") from error


def median_steps(trials):
    """The median number of steps to the target."""
    return median(with_misses(trials.steps_to_target))


def in_steps(trials):
    """The median number of steps to the target and reached/total, in words: "12 (5/5)"."""
    steps = with_misses(trials.steps_to_target)
    middle = median(steps)
    shown = f"{middle:g}" if np.isfinite(middle) else f">{trials.max_steps.max()}"
    return f"{shown} ({np.isfinite(steps).sum()}/{len(steps)})"


def steps_by(tables, column, **values):
    """The median number of steps for each value of a column, as numbers and in words.

    Args:
        tables: The study's tables.
        column: Column to group by.
        values: Values of other columns. Only trials with these values count.
    """
    trials = pick(tables.trials(column, "steps_to_target"), **values)
    groups = dict(list(trials.groupby(column)))
    if len(groups) < 2:
        raise NotRunError(f"several values of {column}")
    medians = pd.Series({value: median_steps(group) for value, group in groups.items()})
    return medians, ", ".join(f"{value}: {in_steps(group)}" for value, group in groups.items())


def within(steps, bound):
    """Whether the target is reached in at most `bound` steps. A miss never is."""
    return bool(np.isfinite(steps) and steps <= bound)


def median_percent(values):
    """The median of shares, as a percentage in words."""
    return f"{values.median():.1%}"


def or_never(steps):
    """A number of steps in words: "12", or "never" for infinity."""
    return f"{steps:g}" if np.isfinite(steps) else "never"


def first_step(rows, level, values=None):
    """The first step of each run at which a value is at least `level`; infinity if none is.

    Args:
        rows: Rows with `trial_id` and `step`.
        level: Value to reach.
        values: Values of the rows. Default: their `test_accuracy`.
    """
    values = rows.test_accuracy if values is None else values
    steps = rows.step.where(values >= level, np.inf)
    return steps.groupby(rows.trial_id).min().to_numpy(float)
