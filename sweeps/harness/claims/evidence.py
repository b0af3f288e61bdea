"""What rules read: a study's tables, and what they come to, as numbers and in words."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pandas as pd

from sweeps.harness.claims.verdicts import NotRunError
from sweeps.harness.errors import UserError
from sweeps.harness.results.tables import median, with_misses

NEAR_CHANCE = 0.2  # accuracy: twice that of a guess among ten classes


class StudyTables:
    """A study's tables, read as they are asked for.

    Args:
        folder: RESULTS_DIR/DATASET/STUDY.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def beside(self, study: str) -> StudyTables:
        """The tables of another study on the same data."""
        return StudyTables(self._folder.parent / study)

    def read(self, name: str, *columns: str) -> pd.DataFrame:
        """A table that has these columns; of the trials, those that did not crash.

        Raises:
            NotRunError: If there is no such table, or nothing in it.
            UserError: If it cannot be read or lacks one of the columns.
        """
        paths = [self._folder / f"{name}.csv", self._folder / f"{name}.csv.xz"]
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            raise NotRunError(f"there is no {self._folder.name}/{name}.csv")
        again = f"Run python -m sweeps.{self._folder.name} again, or move it away."
        try:
            frame = pd.read_csv(path, dtype={"trial_id": str})
        except (ValueError, OSError, EOFError, lzma.LZMAError) as error:
            raise UserError(f"{path} cannot be read as a table ({error}). {again}") from error
        missing = [column for column in columns if column not in frame]
        if missing:
            raise UserError(
                f"{path} lacks the column {', '.join(missing)}: another version made it. {again}"
            )
        if name == "trials" and "status" in frame:
            frame = frame[frame.status != "failed"]
        if frame.empty:
            raise NotRunError(f"{self._folder.name}/{name}.csv is empty")
        return frame

    def trials(self, *columns: str) -> pd.DataFrame:
        """The trials table, with what every rule reads."""
        common = ("trial_id", "status", "seed", "batch_norm", "max_steps", "target_accuracy")
        return self.read("trials", *common, *columns)

    def recorded(self, name: str, settings: tuple[str, ...], *columns: str) -> pd.DataFrame:
        """A recorder's table (or the curves), with settings of each row's trial beside."""
        trials = self.trials(*settings)
        settings = tuple(dict.fromkeys(["trial_id", "seed", "batch_norm", *settings]))
        rows = self.read(name, "trial_id", "step", *columns)
        return rows.merge(trials[list(settings)], on="trial_id")


def pick(frame, **values):
    """The rows with these values; a NotRunError that names them if there are none."""
    for name, value in values.items():
        frame = frame[frame[name] == value]
    if frame.empty:
        raise NotRunError(", ".join(f"{name}={value}" for name, value in values.items()))
    return frame


def under(indexed, *key):
    """What is under the first levels of an index; a NotRunError if nothing is."""
    try:
        return indexed.loc[key if len(key) > 1 else key[0]]
    except KeyError as error:
        raise NotRunError(f"{key}") from error


def median_steps(trials):
    """Median steps to the target."""
    return median(with_misses(trials.steps_to_target))


def in_steps(trials):
    """Median steps with reached/total."""
    steps = with_misses(trials.steps_to_target)
    middle = median(steps)
    shown = f"{middle:g}" if np.isfinite(middle) else f">{trials.max_steps.max()}"
    return f"{shown} ({np.isfinite(steps).sum()}/{len(steps)})"


def steps_by(tables, column, **values):
    """Median steps by a column, as numbers and in words."""
    trials = pick(tables.trials(column, "steps_to_target"), **values)
    groups = dict(list(trials.groupby(column)))
    if len(groups) < 2:
        raise NotRunError(f"several values of {column}")
    medians = pd.Series({value: median_steps(group) for value, group in groups.items()})
    return medians, ", ".join(f"{value}: {in_steps(group)}" for value, group in groups.items())


def within(steps, bound):
    """Whether the target is reached at all, and in at most so many steps."""
    return bool(np.isfinite(steps) and steps <= bound)


def median_percent(values):
    """The median of shares, in words."""
    return f"{values.median():.1%}"


def or_never(steps):
    """Steps in words."""
    return f"{steps:g}" if np.isfinite(steps) else "never"


def first_step(rows, level, values=None):
    """For each run, the first step whose accuracy (or other value) is at least the level."""
    values = rows.test_accuracy if values is None else values
    steps = rows.step.where(values >= level, np.inf)
    return steps.groupby(rows.trial_id).min().to_numpy(float)
