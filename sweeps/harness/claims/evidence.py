"""Reads a study's tables for the rules of claims, and summarizes them in numbers and words.

The evidence of a claim is the study's *default grid*: the trials that its command runs without any
flags. The tables may hold trials with other settings as well, but no rule sees them.
"""

from __future__ import annotations

import functools
import lzma
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sweeps.harness.claims.checks import sample
from sweeps.harness.claims.verdicts import UndecidedError
from sweeps.harness.data import DataSize
from sweeps.harness.errors import UserError
from sweeps.harness.results import intervals
from sweeps.harness.trial import Trial, arm_name
from sweeps.harness.wording import counted

CHANCE = 0.1  # the accuracy of guessing among ten classes
NEAR_CHANCE = 2 * CHANCE


# Function of (data size, number of seeds, trials table) that returns a study's default grid, as
# trials by id. None as the number of seeds means the study's default number.
Grid = Callable[[DataSize, int | None, pd.DataFrame], Mapping[str, Trial]]


class StudyTables:
    """A study's tables. A table is read from its file when a rule asks for it.

    Args:
        folder: The study's results folder, RESULTS_DIR/DATASET/STUDY.
        grids: Function of the study's name that returns its default grid, or None if rules should
            see all trials. Default: None for every study.
    """

    def __init__(self, folder: Path, grids: Callable[[str], Grid | None] = lambda study: None):
        self._folder, self._grids = folder, grids

    def of_study(self, study: str) -> StudyTables:
        """The tables of another study on the same data."""
        return StudyTables(self._folder.parent / study, self._grids)

    def require(self, needs: Callable[[Trial], bool]) -> None:
        """Checks that the trials of the default grid are finished, with every default seed.

        Args:
            needs: Function of a trial that returns whether the trial is needed.

        Raises:
            UndecidedError: If some of the needed trials are missing, or if they come from several
                versions of the code. The message describes them.
        """
        grid = self._grids(self._folder.name)
        if grid is None:
            return
        trials = self._table("trials")
        needed = [trial for trial in grid(self._size, None, trials).values() if needs(trial)]
        finished = set(trials.trial_id[trials.status != "failed"])
        missing = [trial for trial in needed if trial.id not in finished]
        if missing:
            raise UndecidedError(
                f"{len(missing)} of the {len(needed)} trials that the claim needs "
                f"{'is' if len(missing) == 1 else 'are'} missing"
                f"{_differences(missing, needed)}"
            )
        ids = {trial.id for trial in needed}
        if "code" in trials and trials.code[trials.trial_id.isin(ids)].nunique() > 1:
            raise UndecidedError("the trials come from several versions of the code")

    def read(self, name: str, *columns: str) -> pd.DataFrame:
        """Reads a table without trials that crashed or have other settings.

        Args:
            name: Name of the table, without ".csv".
            columns: Columns that the table must have.

        Raises:
            UndecidedError: If the table does not exist or is empty.
            UserError: If it cannot be read or lacks one of the columns.
        """
        frame = self._table(name, *columns)
        if name == "trials" and "status" in frame:
            frame = frame[frame.status != "failed"]
        if "trial_id" in frame and self._evidence is not None:
            frame = frame[frame.trial_id.isin(self._evidence)]
        if frame.empty:
            raise UndecidedError(
                f"{self._folder.name}/{name}.csv has no trials with the settings of the claim"
            )
        return frame

    @property
    def _size(self) -> DataSize:
        """The data set's name and size."""
        name = self._folder.parent.name
        known = DataSize.of(name)
        if known is not None:
            return known
        sizes = set(self._table("trials").get("train_size", pd.Series(dtype=float)).dropna())
        if len(sizes) != 1:
            raise UndecidedError(f"the trials do not show the number of {name} training images")
        return DataSize(name, int(sizes.pop()))

    @functools.cached_property
    def _evidence(self) -> frozenset[str] | None:
        """Ids of the trials that rules see, with any number of seeds. None means all trials."""
        grid = self._grids(self._folder.name)
        if grid is None:
            return None
        trials = self._table("trials")
        return frozenset(grid(self._size, int(trials.seed.max()) + 1, trials))

    def _table(self, name, *columns):
        """Reads all rows of a table."""
        paths = [self._folder / f"{name}.csv", self._folder / f"{name}.csv.xz"]
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            raise UndecidedError(f"there is no {self._folder.name}/{name}.csv")
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
        if frame.empty:
            raise UndecidedError(f"{self._folder.name}/{name}.csv is empty")
        return frame

    def trials(self, *columns: str) -> pd.DataFrame:
        """The trials table, with these columns and the ones that every rule reads."""
        common = ("trial_id", "status", "seed", "batch_norm", "max_steps", "target_accuracy")
        return self.read("trials", *common, *columns)

    def recorded(self, name: str, settings: tuple[str, ...], *columns: str) -> pd.DataFrame:
        """A recorder's table, or the curves, joined with settings from the trials table.

        Args:
            name: Name of the table, without ".csv".
            settings: Columns of the trials table to add.
            columns: Columns that the table must have.

        Raises:
            UndecidedError: If there are no rows, or if a run diverged before its recorder ran.
        """
        trials = self.trials(*settings)
        settings = tuple(dict.fromkeys(["trial_id", "seed", "batch_norm", *settings]))
        rows = self.read(name, "trial_id", "step", *columns)
        diverged = trials[(trials.status == "diverged") & ~trials.trial_id.isin(rows.trial_id)]
        if "record" in trials:
            lost = diverged.record.fillna("").map(lambda names: name in names.split("-"))
            if lost.any():
                raise UndecidedError(
                    f"{counted(int(lost.sum()), 'run')} diverged and left nothing in "
                    f"{self._folder.name}/{name}.csv"
                )
        return rows.merge(trials[list(settings)], on="trial_id")


def _differences(missing: Sequence[Trial], needed: Sequence[Trial]) -> str:
    """Words for the settings that distinguish the missing trials from the other needed ones."""

    def values(trials, name):
        return dict.fromkeys(trial.settings.get(name) for trial in trials)

    names = dict.fromkeys(name for trial in needed for name in trial.settings)
    words = []
    for name in names:
        found = values(missing, name)
        if name == "hidden_units" or set(found) in ({None}, set(values(needed, name))):
            continue
        shown = [arm_name(v) if name == "batch_norm" else "none" if v is None else v for v in found]
        words.append(f"{name.replace('_', ' ')} {', '.join(map(str, shown))}")
    return f" ({'; '.join(words)})" if words else ""


def pick(frame, **values):
    """The rows with these values. Raises an UndecidedError that names them if there are none."""
    for name, value in values.items():
        frame = frame[frame[name] == value]
    if frame.empty:
        words = ", ".join(f"{name}={value}" for name, value in values.items())
        raise UndecidedError(f"there are no results with {words}")
    return frame


def under(indexed, *key):
    """The entries under a key of an index. Raises an UndecidedError if there are none."""
    try:
        return indexed.loc[key if len(key) > 1 else key[0]]
    except KeyError as error:
        words = ", ".join(map(str, key))
        raise UndecidedError(f"there are no results for {words}") from error


def steps_by(tables, column, **values):
    """The trials by the values of a column. The median of some value must reach the target.

    Args:
        tables: The study's tables.
        column: Column to group by.
        values: Values of other columns. Only trials with these values count.
    """
    trials = pick(tables.trials(column, "steps_to_target"), **values)
    groups = dict(list(trials.groupby(column)))
    if len(groups) < 2:
        raise UndecidedError(f"the claim needs several values of {column}")
    if not any(np.isfinite(steps(group).median()) for group in groups.values()):
        raise UndecidedError("no run reached the target, or too few for a median")
    return groups


def steps(trials):
    """The steps to the target by seed, with infinity for a miss."""
    return sample(trials, "steps_to_target")


def in_steps(trials):
    """The median steps to the target, with interval and reached/total: "12 [11, 14] (6/6)"."""
    found = steps(trials)
    shown = intervals.of_median(found).shown(infinite=f">{trials.max_steps.max()}")
    return f"{shown} ({np.isfinite(found).sum()}/{len(found)})"


def first_step(rows, level, values=None):
    """The first step of each run at which a value is at least `level`. Infinity if none is.

    Args:
        rows: Rows with `trial_id`, `seed` and `step`.
        level: Value to reach: a number, or one for each row.
        values: Values of the rows. Default: their `test_accuracy`.

    Returns:
        The steps by seed.
    """
    values = rows.test_accuracy if values is None else values
    found = rows.step.where(values >= level, np.inf)
    return found.groupby([rows.trial_id, rows.seed]).min().astype(float).droplevel(0).sort_index()
