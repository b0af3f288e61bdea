"""Shows progress while trials run, and prints tables."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich import console, progress, table

from sweeps.harness.trial import Trial

if TYPE_CHECKING:
    import pandas as pd


@contextlib.contextmanager
def of_trials(
    name: str, trials: Sequence[Trial], done: int
) -> Iterator[Callable[[Trial, dict[str, Any]], None]]:
    """Shows the progress of a study in a `with` block.

    A terminal shows a bar with the number of finished trials, the last outcome and the time left.
    Any other output, such as a log file, gets one line per trial.

    Args:
        name: Name of the study.
        trials: All trials of the study.
        done: Number of trials that were finished before.

    Yields:
        Function of (trial, result), to call after each trial.
    """
    total = len(trials)
    fields = distinguishing_fields(trials)
    out = console.Console(stderr=True)
    bar = progress.Progress(
        progress.TextColumn(name),
        progress.BarColumn(bar_width=30),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[last]}"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left"),
        console=out,
        disable=not out.is_terminal,
        # The first trials wait for TensorFlow, so a short period would overestimate the time left.
        speed_estimate_period=3600,
    )
    with bar:
        task = bar.add_task(name, total=total, completed=done, last="starting TensorFlow")

        def show_finished(trial: Trial, result: dict[str, Any]) -> None:
            nonlocal done
            done += 1
            last = describe(trial, result, fields)
            bar.update(task, advance=1, last=last)
            if not out.is_terminal:
                out.print(f"{done}/{total} {last}", highlight=False, soft_wrap=True)

        yield show_finished


def through(name: str, work: Sequence[tuple[str, float, Callable[[], Any]]]) -> Iterator[Any]:
    """Runs pieces of work one after another, shows the progress, and yields each result.

    A terminal shows a bar with the current piece and the time left. Any other output, such as a log
    file, gets one line per piece.

    Args:
        name: Name of the whole.
        work: The pieces, as (description, expected seconds, function that does it).
    """
    out = console.Console(stderr=True)
    bar = progress.Progress(
        progress.TextColumn(name),
        progress.BarColumn(bar_width=30),
        progress.TextColumn("{task.fields[doing]}"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left"),
        console=out,
        disable=not out.is_terminal,
        speed_estimate_period=3600,  # some pieces have better estimates than others
    )
    with bar:
        task = bar.add_task(name, total=sum(seconds for _, seconds, _ in work), doing="")
        for n, (doing, seconds, do) in enumerate(work):
            bar.update(task, doing=doing)
            if not out.is_terminal:
                out.print(f"{n + 1}/{len(work)} {doing}", highlight=False, soft_wrap=True)
            yield do()
            bar.advance(task, seconds)


def distinguishing_fields(trials: Sequence[Trial]) -> list[str]:
    """Names of the fields in which trials of the same depth, arm and seed differ."""
    alike: dict[tuple, list[Trial]] = {}
    for trial in trials:
        alike.setdefault((trial.depth, trial.batch_norm, trial.seed), []).append(trial)
    return [
        field.name
        for field in dataclasses.fields(Trial)
        if any(len({getattr(trial, field.name) for trial in group}) > 1 for group in alike.values())
    ]


def describe(trial: Trial, result: dict[str, Any], fields: Sequence[str] = ()) -> str:
    """Describes a trial and its outcome in a few words.

    Args:
        trial: The trial.
        result: Result of the trial.
        fields: Names of fields to mention besides depth, arm and seed.
    """
    steps = result.get("steps_to_target")
    if result["status"] != "done":
        outcome = result["status"]
    elif trial.target_accuracy is None:
        outcome = f"loss {result['final_loss']:.3g}"
    elif steps is None:
        outcome = f"not reached in {trial.max_steps} steps"
    else:
        outcome = f"{steps} steps"
    values = {name: getattr(trial, name) for name in fields}
    settings = [f"{name}={value}" for name, value in values.items() if value is not None]
    depth = f"{trial.depth} layer{'s' if trial.depth > 1 else ''}"
    parts = [depth, trial.arm, *settings, f"seed {trial.seed}"]
    return f"{', '.join(parts)}: {outcome}"


def print_table(frame: pd.DataFrame) -> None:
    """Prints a table whose cells are text or numbers."""
    printed = table.Table(box=None, header_style="bold", pad_edge=False)
    for column in frame.columns:
        printed.add_column(str(column), justify="right")
    for row in frame.itertuples(index=False):
        printed.add_row(*map(str, row))
    console.Console().print(printed)
