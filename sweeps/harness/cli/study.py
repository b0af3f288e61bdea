"""Runs a study: flags -> trials -> pool -> store -> tables -> charts.

A study in two parts continues: tables -> trials -> pool -> store -> tables -> charts.

The top of this module imports nothing heavy, so that --help and bad flags answer at once.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags as absl_flags

from sweeps.harness.cli import command, flags, quick
from sweeps.harness.data import DataSize
from sweeps.harness.errors import UserError
from sweeps.harness.trial import Trial
from sweeps.harness.wording import counted

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.harness.data import Dataset
    from sweeps.harness.results.store import Store
    from sweeps.harness.results.tables import Tables

_PUBLISHED = Path(__file__).parents[3] / "results"  # in a checkout


@dataclasses.dataclass(frozen=True)
class Study:
    """The settings that a study varies, and the charts that it draws.

    Attributes:
        name: Name of its package and of its results folder.
        question: The question that it answers, in one sentence, for --help.
        trials: Function of (flag values, data size). Returns the trials, the longest first.
        varied: Columns that the study varies. The first one labels the rows of printed tables.
        draw: Function of (tables, folder). Draws the charts and returns their paths.
        follow_up: Function of (flag values, data size, table of finished trials). Returns the
            trials of a second part, which depend on results of the first. It leaves out those whose
            first trials are not all in the table. Default: no second part.
        captions: A sentence on what to see in each chart, by the pattern of its file name.
        defaults: Overrides for the shared flags' defaults. A list means that the study varies the
            setting; the flag then accepts several values, separated by commas.
        quick: Flag values of a demonstration (--quick) that takes less than a minute.
        without: Shared flags that mean nothing to the study, each with the reason. The reason is a
            sentence that names the flag to use instead, if there is one.
        helps: Overrides for the shared flags' help texts.
        define_flags: Function of (flag values). Defines the study's own flags. They replace shared
            flags of the same name.
        show: Function of (tables). Returns the table to print at the end. Default: the median
            steps to the target.
        animate: Function of (tables, folder). Writes the animations for --animate and returns
            their paths.
    """

    name: str
    question: str
    trials: Callable[[absl_flags.FlagValues, DataSize], list[Trial]]
    varied: Sequence[str]
    draw: Callable[[Tables, Path], list[Path]]
    follow_up: Callable[[absl_flags.FlagValues, DataSize, pd.DataFrame], list[Trial]] | None = None
    captions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    quick: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    without: Mapping[str, str] = dataclasses.field(default_factory=dict)
    helps: Mapping[str, str] = dataclasses.field(default_factory=dict)
    define_flags: Callable[[absl_flags.FlagValues], None] = lambda values: None
    show: Callable[[Tables], pd.DataFrame] | None = None
    animate: Callable[[Tables, Path], list[Path]] | None = None


def main(study: Study, argv: Sequence[str] | None = None) -> int:
    """Runs a study from its command line.

    Args:
        study: The study.
        argv: Command line, program name first. Default: `sys.argv`.

    Returns:
        The exit status.
    """

    study_command = command.Command(
        study.name,
        study.question,
        lambda values: _define_flags(study, values),
        lambda values: quick.run(values, study.quick, lambda values: run(study, values)),
        "Finished trials are kept. Run the same command again to continue.",
        without=study.without,
    )
    return command.main(study_command, argv)


def default_grid(
    study: Study, size: DataSize, seeds: int | None = None, table: pd.DataFrame | None = None
) -> dict[str, Trial]:
    """The trials that the study runs without any flags.

    Args:
        study: The study.
        size: Name and size of the data set.
        seeds: Number of seeds. Default: the study's own. A study in two parts always has its own
            number, because other seeds could lead to another second part.
        table: The trials table. Trials of a second part depend on it. Default: an empty one.

    Returns:
        The trials by their ids.
    """
    values = absl_flags.FlagValues()
    _define_flags(study, values)
    values([study.name])
    return _grid(study, values, size, seeds, table)


def default_ids(study: Study, records: Sequence[dict[str, Any]]) -> set[str]:
    """Ids of the study's default trials, for the data and the seeds of these records."""
    from sweeps.harness.results import tables

    sizes = {DataSize(r["trial"]["dataset"], r["train_size"]) for r in records if "train_size" in r}
    seeds = 1 + max((record["trial"]["seed"] for record in records), default=0)
    table = tables.trials_table(records)
    return {trial_id for size in sizes for trial_id in default_grid(study, size, seeds, table)}


def _define_flags(study, values):
    study.define_flags(values)
    flags.define(values, study.defaults, study.without, study.helps)
    quick.define(values)
    if study.animate:
        flags.define_animate(values)


def _grid(study, values, size, seeds, table):
    """The trials of these flags, in both arms, by their ids."""
    values = copy.deepcopy(values)
    if "batch_norm" in values:
        values["batch_norm"].value = None
    if seeds is not None and study.follow_up is None:
        values["seeds"].value = seeds
    trials = study.trials(values, size) + _follow_up(study, values, size, table)
    return {trial.id: trial for trial in trials}


def _follow_up(study, values, size, table):
    """The trials of the second part that the trials table allows."""
    if study.follow_up is None or table is None:
        return []
    return study.follow_up(values, size, table[table.status != "failed"])


def run(study: Study, values: absl_flags.FlagValues) -> int:
    """Runs the missing trials, then makes tables and charts of all finished ones.

    Args:
        study: The study.
        values: Values of its flags.

    Returns:
        The exit status.
    """
    from sweeps.harness import data
    from sweeps.harness.results import store, tables

    dataset = data.load(values.dataset, values.data_dir)
    trials = list(dict.fromkeys(study.trials(values, dataset.size)))
    _check_fits(trials, dataset)
    print(
        f"Data: {dataset.name} ({len(dataset.y_train):,} training and "
        f"{counted(len(dataset.y_test), 'test ' + dataset.unit)}) from {dataset.source}",
        flush=True,
    )
    folder = Path(values.results_dir) / dataset.name / study.name
    _check_nothing_is_lost(study, values, dataset.size, folder)
    results = store.Store(folder)
    parts = 1 if study.follow_up is None else 2
    ran, failed = _run_part(study, 1, parts, trials, dataset, results, values)
    if study.follow_up and not (failed and values.fail_fast):
        table = tables.trials_table(results.read())
        second = list(dict.fromkeys(_follow_up(study, values, dataset.size, table)))
        ran_second, failed_second = _run_part(study, 2, parts, second, dataset, results, values)
        trials, ran, failed = trials + second, ran + ran_second, failed + failed_second
    if not ran:
        finished = counted(len(trials), "trial")
        print(f"Nothing was left to run: {finished} of this command had finished before.")
    _report(study, dataset, results, values)
    return command.FAILED if failed else 0


def rebuild(
    study: Study, records: list[dict[str, Any]], folder: Path, shown: Collection[str]
) -> tuple[Tables, list[Path]]:
    """Makes a study's tables and charts from the records of its trials.

    The tables hold all trials. Charts of several settings at once would be hard to read, so they
    show a selection.

    Args:
        study: The study.
        records: All records in the study's store.
        folder: Folder for the tables and charts.
        shown: Ids of the trials to draw. If none of them is finished, all trials are drawn.

    Returns:
        The tables of the drawn trials, and the paths of all files written.
    """
    from sweeps.harness.results import tables

    made = tables.from_records(records, study.varied)
    paths = tables.write(made, folder)
    selected = tables.select(made, shown, study.varied)
    drawn = selected if _any_finished(selected) else made
    finished = drawn.trials.trial_id[drawn.trials.status != "failed"]
    if len(finished):
        paths += study.draw(tables.select(drawn, finished, study.varied), folder)
    return drawn, paths


def _any_finished(made):
    return bool((made.trials.status != "failed").any())


def _check_nothing_is_lost(study, values, size, folder):
    """Raises a UserError if new tables would lose trials of the present ones."""
    from sweeps.harness.results import tables

    table = tables.read_trials(folder)
    if table is None:
        return
    trials = study.trials(values, size) + _follow_up(study, values, size, table)
    count = len(tables.irreplaceable(folder, [trial.id for trial in trials]))
    if count:
        raise UserError(
            f"{folder}/trials.csv has {counted(count, 'trial')} without records in "
            f"{folder}/trials, like published results. New tables would lose them. Choose another "
            "--results_dir, or delete the folder to start over."
        )


def _check_fits(trials, dataset):
    for trial in trials:
        aside = trial.validation_examples or 0
        available = len(dataset.y_train) - aside
        if available < 1:
            raise UserError(
                f"--validation_examples={aside} leaves none of the "
                f"{counted(len(dataset.y_train), 'training ' + dataset.unit)} of {dataset.name} to "
                "train on. Choose fewer."
            )
        used = min(trial.train_examples or available, available)
        if trial.batch_size > used:
            raise UserError(
                f"--batch_size={trial.batch_size} is more than the "
                f"{counted(used, 'training ' + dataset.unit)} of {dataset.name}. "
                "Choose a smaller one."
            )
        if trial.eval_every > trial.max_steps:
            raise UserError(
                f"--eval_every={trial.eval_every} is more than --max_steps={trial.max_steps}, so "
                "the target would never be checked. Choose a smaller one."
            )


def _missing(
    trials: list[Trial],
    results: Store,
    dataset: Dataset,
    values: absl_flags.FlagValues,
) -> list[Trial]:
    """The trials to run.

    These are the trials without a result or, with --save_models, without a saved network. With
    --overwrite they are all trials.
    """
    from sweeps.harness.results import store

    if values.overwrite:
        return trials
    records = results.read()
    conflict = store.conflicts(records, dataset.fingerprint)
    if conflict and not values.mix_versions:
        raise UserError(
            f"finished trials in {results.folder} come from another version ({conflict}), so their "
            "numbers may not be comparable with new ones. Run them again (--overwrite), continue "
            "anyway (--mix_versions), or choose another --results_dir."
        )
    finished = {r["trial_id"] for r in records if r["status"] != "failed"}
    if _saves_models(values):
        finished = {trial_id for trial_id in finished if results.model_path(trial_id).exists()}
    return [trial for trial in trials if trial.id not in finished]


def _saves_models(values):
    """Whether --save_models is set. Studies that keep no network lack this flag."""
    return "save_models" in values and values.save_models


def _run_part(study, part, parts, trials, dataset, results, values):
    """Runs the missing trials of a part; returns the numbers of trials that ran and crashed."""
    pending = _missing(trials, results, dataset, values)
    if not pending:
        return 0, 0
    name = study.name
    if parts > 1:
        name = f"{name}, part {part} of {parts}"
        print(f"{name}: {counted(len(pending), 'trial')} to run", flush=True)
    return len(pending), _run_trials(study, name, trials, pending, dataset, results, values)


def _run_trials(study, name, trials, pending, dataset, results, values):
    """Runs the pending trials and stores each result at once; returns the number of crashes."""
    from sweeps.harness.cli import progress
    from sweeps.harness.engine import pool
    from sweeps.harness.results import provenance

    failed = 0
    commit = provenance.commit()
    finished = pool.run(
        pending,
        dataset,
        workers=flags.worker_count(values, len(pending)),
        threads=values.threads,
        scheduler=values.scheduler,
        save_models=_saves_models(values),
    )
    with progress.of_trials(name, trials, len(trials) - len(pending)) as show_finished:
        for result in finished:
            trial = Trial.from_json(result["trial"])
            model = result.pop("model", None)
            if model is not None:
                results.write_model(trial.id, model)
            origin = {
                "study": study.name,
                "commit": commit,
                "data": dataset.fingerprint,
                "train_size": dataset.size.train_size,
            }
            results.write({"trial_id": trial.id, **origin, **result})
            show_finished(trial, result)
            if result["status"] == "failed":
                failed += 1
                print(f"Trial {trial.id} failed: {trial}\n{result['traceback']}", file=sys.stderr)
                if values.fail_fast:
                    finished.close()
                    break
    if failed:
        print(
            f"{failed} of {counted(len(pending), 'trial')} failed. Run the same command again to "
            "retry.",
            file=sys.stderr,
        )
    return failed


def _report(study, dataset, results, values):
    """Makes tables and charts, prints a table of the trials with this run's settings, and lists
    the files.
    """
    from sweeps.harness.results import tables

    records = results.read()
    seeds = max((record["trial"]["seed"] for record in records), default=0) + 1
    shown = _grid(study, values, dataset.size, seeds, tables.trials_table(records))
    drawn, paths = rebuild(study, records, results.folder, shown)
    if _any_finished(drawn):
        _show(study, drawn)
        if study.animate and values.animate:
            paths += study.animate(drawn, results.folder)
    if values.tensorboard:
        from sweeps.harness.results import tensorboard

        paths.append(tensorboard.write(records, results.folder / "tensorboard"))
    print("Wrote", *[f"  {os.path.relpath(path)}" for path in paths], sep="\n")
    others = len(records) - len(drawn.trials)
    if others:
        print(
            f"The folder also holds {others} {'trial' if others == 1 else 'trials'} with other "
            "settings. They are in trials.csv and summary.csv. To see their table and charts, run "
            "the command with their flags again: finished trials do not run twice."
        )
    published = _PUBLISHED / dataset.name / study.name
    if published.is_dir() and published.resolve() != results.folder.resolve():
        print(f"The published results of this study are in {os.path.relpath(published)}.")


def _show(study, made):
    from sweeps.harness.cli import progress
    from sweeps.harness.results import tables

    if study.show:
        progress.print_table(study.show(made))
    else:
        print(tables.heading(made.trials))
        rows = [column for column in study.varied if column != "batch_norm"]
        progress.print_table(tables.side_by_side(made.trials, *rows))
