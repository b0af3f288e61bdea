"""A study and its `main`: flags -> trials -> pool -> store -> tables -> charts.

Nothing heavy is imported up here, so that --help and bad flags answer at once.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags as absl_flags

from sweeps.harness import command, flags
from sweeps.harness.errors import UserError
from sweeps.harness.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.harness.data import Dataset
    from sweeps.harness.tables import Tables


@dataclasses.dataclass(frozen=True)
class Study:
    """What a study varies, and what it draws.

    Attributes:
        name: Of its module and of its folder.
        question: What it answers, in a sentence, for --help.
        trials: (flag values, data set) -> the trials, the longest first.
        varied: Columns that it varies, first the one that tables have in their rows.
        draw: (tables, folder) -> paths of the charts that were written.
        defaults: Of common flags, where the protocol has others; a list where it varies them.
        without: Common flags that mean nothing to it.
        helps: Of common flags, where the protocol has reasons of its own.
        define_flags: Defines flags of its own.
        show: (tables) -> what a person sees at the end; default: median steps to target.
        animate: (tables, folder) -> paths of the animations, for --animate.
    """

    name: str
    question: str
    trials: Callable[[absl_flags.FlagValues, Dataset], list[Trial]]
    varied: Sequence[str]
    draw: Callable[[Tables, Path], list[Path]]
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    without: Sequence[str] = ()
    helps: Mapping[str, str] = dataclasses.field(default_factory=dict)
    define_flags: Callable[[absl_flags.FlagValues], None] = lambda values: None
    show: Callable[[Tables], pd.DataFrame] | None = None
    animate: Callable[[Tables, Path], list[Path]] | None = None


def main(study: Study, argv: Sequence[str] | None = None) -> int:
    """Runs a study from its command line; returns the exit status."""

    def define_flags(values):
        flags.define(values, study.defaults, study.without, study.helps)
        study.define_flags(values)
        if study.animate:
            flags.define_animate(values)

    return command.main(
        study.name,
        study.question,
        define_flags,
        lambda values: run(study, values),
        "Finished trials are kept: the same command goes on from here.",
        argv,
    )


def run(study: Study, values: absl_flags.FlagValues) -> int:
    """Runs the trials that are missing, then makes tables and charts of all there are."""
    from sweeps.harness import data, provenance, store

    dataset = data.load(values.dataset, values.data_dir)
    trials = list(dict.fromkeys(study.trials(values, dataset)))
    _check_fits(trials, dataset)
    print(
        f"Data: {dataset.name} ({len(dataset.y_train):,} training and {len(dataset.y_test):,} test "
        f"{dataset.unit}) from {dataset.source}",
        flush=True,
    )
    results = store.Store(Path(values.results_dir) / dataset.name / study.name)
    pending = _missing(trials, results, provenance.code_fingerprint(), dataset, values)
    failed = _run_trials(study, trials, pending, dataset, results, values) if pending else 0
    _report(study, results, values)
    return command.FAILED if failed else 0


def rebuild(study: Study, records: list[dict[str, Any]], folder: Path) -> tuple[Tables, list[Path]]:
    """Makes a study's tables and charts from its trials' records.

    Args:
        study: The study.
        records: What its store holds.
        folder: Where tables and charts go.

    Returns:
        The tables, and the paths of all that was written.
    """
    from sweeps.harness import tables

    made = tables.from_records(records, study.varied)
    paths = tables.write(made, folder)
    if _any_finished(made):
        paths += study.draw(made, folder)
    return made, paths


def _any_finished(made):
    return bool((made.trials.status != "failed").any())


def _check_fits(trials, dataset):
    for trial in trials:
        available = len(dataset.y_train)
        used = trial.train_examples or available
        if trial.batch_size > used:
            raise UserError(
                f"--batch_size={trial.batch_size} is more than the {used} training {dataset.unit} "
                f"of {dataset.name}. Choose a smaller one."
            )
        if trial.eval_every > trial.max_steps:
            raise UserError(
                f"--eval_every={trial.eval_every} is more than --max_steps={trial.max_steps}: the "
                "target would never be looked at. Choose a smaller one."
            )


def _missing(trials, results, code, dataset, values):
    """The trials to run: those without a result (or a kept net), or all with --overwrite."""
    from sweeps.harness import store

    if values.overwrite:
        return trials
    records = results.read()
    conflict = store.conflicts(records, code, dataset.fingerprint)
    if conflict and not values.mix_versions:
        raise UserError(
            f"finished trials in {results.folder} were made otherwise ({conflict}), so that "
            "numbers may not compare. Run them again (--overwrite), go on all the same "
            "(--mix_versions), or choose another --results_dir."
        )
    finished = {r["trial_id"] for r in records if r["status"] != "failed"}
    if values.save_models:
        finished = {trial_id for trial_id in finished if results.model_path(trial_id).exists()}
    return [trial for trial in trials if trial.id not in finished]


def _run_trials(study, trials, pending, dataset, results, values):
    """Runs those that are missing and stores each as it finishes; returns how many crashed."""
    from sweeps.harness import pool, progress, provenance

    failed = 0
    commit = provenance.commit()
    finished = pool.run(
        pending,
        dataset,
        workers=flags.worker_count(values, len(pending)),
        threads=values.threads,
        scheduler=values.scheduler,
        save_models=values.save_models,
    )
    with progress.of_trials(study.name, trials, len(trials) - len(pending)) as tell:
        for result in finished:
            trial = Trial.from_json(result["trial"])
            model = result.pop("model", None)
            if model is not None:
                results.write_model(trial.id, model)
            results.write(
                {
                    "trial_id": trial.id,
                    "study": study.name,
                    "commit": commit,
                    "data": dataset.fingerprint,
                    **result,
                }
            )
            tell(trial, result)
            if result["status"] == "failed":
                failed += 1
                print(f"Trial {trial.id} failed: {trial}\n{result['traceback']}", file=sys.stderr)
                if values.fail_fast:
                    finished.close()
                    break
    if failed:
        print(
            f"{failed} of {len(pending)} trials failed; the same command runs them again.",
            file=sys.stderr,
        )
    return failed


def _report(study, results, values):
    """Makes tables and charts of all trials there are, shows them, and says where they lie."""
    records = results.read()
    made, paths = rebuild(study, records, results.folder)
    if _any_finished(made):
        _show(study, made)
        if study.animate and values.animate:
            paths += study.animate(made, results.folder)
    if values.tensorboard:
        from sweeps.harness import tensorboard

        paths.append(tensorboard.write(records, results.folder / "tensorboard"))
    print("Wrote", *[f"  {os.path.relpath(path)}" for path in paths], sep="\n")


def _show(study, made):
    from sweeps.harness import progress, tables

    if study.show:
        progress.print_table(study.show(made))
    else:
        print(tables.heading(made.trials))
        rows = [column for column in study.varied if column != "batch_norm"]
        progress.print_table(tables.side_by_side(made.trials, *rows))
