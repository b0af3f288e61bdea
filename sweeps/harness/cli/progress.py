"""Shows progress while trials run, and prints tables."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich import console, progress, table

from sweeps.harness.trial import Trial
from sweeps.harness.wording import counted

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
        name: Name of the study, and of its part if it has several.
        trials: All trials of the study or the part.
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
    """Names of the settings in which trials of the same depth, arm and seed differ."""
    alike: dict[tuple, list[Trial]] = {}
    for trial in trials:
        alike.setdefault((trial.depth, trial.batch_norm, trial.seed), []).append(trial)
    names = dict.fromkeys(name for trial in trials for name in trial.settings)
    return [
        name
        for name in names
        if any(len({trial.settings.get(name) for trial in group}) > 1 for group in alike.values())
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
    elif trial.target_accuracy is None and result["final_loss"] is None:
        outcome = "done"  # a study's own run may have no loss
    elif trial.target_accuracy is None:
        outcome = f"loss {result['final_loss']:.3g}"
    elif steps is None:
        outcome = f"not reached in {counted(trial.max_steps, 'step')}"
    else:
        outcome = counted(steps, "step")
    values = {name: trial.settings.get(name) for name in fields}
    settings = [f"{name}={value}" for name, value in values.items() if value is not None]
    parts = [counted(trial.depth, "layer"), trial.arm, *settings, f"seed {trial.seed}"]
    return f"{', '.join(parts)}: {outcome}"


def print_table(frame: pd.DataFrame) -> None:
    """Prints a table whose cells are text or numbers. It is never cut off at the terminal's edge.

    A table that is too wide is printed as blocks below each other, with the row labels in each. If
    its columns have two levels, each name of the first level becomes a block with that title.

    Args:
        frame: The table. Its row labels are its index, or its first column if the index has no
            name.
    """
    if frame.index.names == [None]:
        frame = frame.set_index(frame.columns[0])
    out = console.Console(highlight=False)
    for title, block in _blocks(frame, out):
        if title:
            out.print(f"\n{title}", style="bold", markup=False)
        out.print(_table(block))


def _blocks(frame, out):
    """Divides a table into (title, table) so that each fits the terminal, if a column does."""
    if _fits(frame, out):
        return [("", frame)]
    if frame.columns.nlevels > 1:
        names = frame.columns.unique(0)
        return [block for name in names for block in _titled(name, frame[name], out)]
    blocks, start = [], 0
    while start < frame.shape[1]:
        end = start + 1
        while end < frame.shape[1] and _fits(frame.iloc[:, start : end + 1], out):
            end += 1
        blocks.append(("", frame.iloc[:, start:end]))
        start = end
    return blocks


def _titled(name, frame, out):
    (_, first), *rest = _blocks(frame, out)
    return [(name, first), *rest]


def _fits(frame, out):
    unlimited = out.options.update(width=sys.maxsize)
    return out.measure(_table(frame), options=unlimited).maximum <= out.width


def _table(frame):
    printed = table.Table(box=None, header_style="bold", pad_edge=False)
    for name in frame.index.names:
        # The names of row labels are in the second header line if there are two.
        title = "\n" * (frame.columns.nlevels - 1) + str(name)
        printed.add_column(title, justify="right", overflow="fold")
    before = None
    for column in frame.columns:
        title = str(column)
        if frame.columns.nlevels > 1:  # the series is above its first column only
            title = f"{'' if column[0] == before else column[0]}\n{column[1]}"
            before = column[0]
        printed.add_column(title, justify="right", overflow="fold")
    for labels, row in zip(frame.index, frame.itertuples(index=False), strict=True):
        keys = labels if isinstance(labels, tuple) else (labels,)
        printed.add_row(*map(str, [*keys, *row]))
    return printed
