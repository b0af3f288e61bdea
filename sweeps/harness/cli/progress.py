"""What a person sees while trials run, and the table at the end."""

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
    """A progress bar; yields the function that is told of each finished trial.

    On a terminal: trials done, the last one's outcome, the time left. Elsewhere (a log file): a
    line a trial.

    Args:
        name: Of the study.
        trials: All of its trials.
        done: How many of them were finished before.
    """
    total = len(trials)
    telling = telling_fields(trials)
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
        # The first trials wait for TensorFlow and are no measure of the time left.
        speed_estimate_period=3600,
    )
    with bar:
        task = bar.add_task(name, total=total, completed=done, last="starting TensorFlow")

        def tell(trial: Trial, result: dict[str, Any]) -> None:
            nonlocal done
            done += 1
            last = describe(trial, result, telling)
            bar.update(task, advance=1, last=last)
            if not out.is_terminal:
                out.print(f"{done}/{total} {last}", highlight=False, soft_wrap=True)

        yield tell


def through(name: str, work: Sequence[tuple[str, float, Callable[[], Any]]]) -> Iterator[Any]:
    """Does one thing after the other and yields what each returns.

    On a terminal: a bar with what is being done and the time left. Elsewhere: a line for each.

    Args:
        name: Of it all.
        work: What to do: in words, about how many seconds it takes, and a function that does it.
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
        speed_estimate_period=3600,  # the parts differ in how well their times are foretold
    )
    with bar:
        task = bar.add_task(name, total=sum(seconds for _, seconds, _ in work), doing="")
        for n, (doing, seconds, do) in enumerate(work):
            bar.update(task, doing=doing)
            if not out.is_terminal:
                out.print(f"{n + 1}/{len(work)} {doing}", highlight=False, soft_wrap=True)
            yield do()
            bar.advance(task, seconds)


def telling_fields(trials: Sequence[Trial]) -> list[str]:
    """The fields that tell trials of one depth, arm and seed apart."""
    alike: dict[tuple, list[Trial]] = {}
    for trial in trials:
        alike.setdefault((trial.depth, trial.batch_norm, trial.seed), []).append(trial)
    return [
        field.name
        for field in dataclasses.fields(Trial)
        if any(len({getattr(trial, field.name) for trial in group}) > 1 for group in alike.values())
    ]


def describe(trial: Trial, result: dict[str, Any], telling: Sequence[str] = ()) -> str:
    """A trial, with the fields that tell it from others, and its outcome in a few words."""
    steps = result.get("steps_to_target")
    if result["status"] != "done":
        outcome = result["status"]
    elif trial.target_accuracy is None:
        outcome = f"loss {result['final_loss']:.3g}"
    elif steps is None:
        outcome = f"not in {trial.max_steps} steps"
    else:
        outcome = f"{steps} steps"
    given = {name: getattr(trial, name) for name in telling}
    settings = [f"{name}={value}" for name, value in given.items() if value is not None]
    what = [f"{trial.depth} layers", trial.arm, *settings, f"seed {trial.seed}"]
    return f"{', '.join(what)}: {outcome}"


def print_table(frame: pd.DataFrame) -> None:
    """Prints a table of texts."""
    shown = table.Table(box=None, header_style="bold", pad_edge=False)
    for column in frame.columns:
        shown.add_column(str(column), justify="right")
    for row in frame.itertuples(index=False):
        shown.add_row(*map(str, row))
    console.Console().print(shown)
