"""The first chart of the page: steps to the target by depth, in words and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sweeps import catalog
from sweeps.harness.claims import StudyTables, UndecidedError
from sweeps.harness.claims.evidence import Grid
from sweeps.harness.results import intervals, tables
from sweeps.harness.trial import arm_name
from sweeps.tuned import selection

PUBLISHED = f"published learning rate, {selection.PUBLISHED:g}"
TUNED = "learning rate tuned for each network"


class Headline(NamedTuple):
    """The headline chart.

    Attributes:
        title: Title of the chart.
        text: Paragraph that says what the chart shows.
        note: Sentence on what is missing. Empty if nothing is.
        points: One mapping per panel, depth and arm, with the median and the trials.
    """

    title: str
    text: str
    note: str
    points: Sequence[Mapping[str, Any]]


def find(
    folders: Mapping[str, Sequence[Path]],
    grids: Callable[[str], Grid | None] = catalog.grid,
) -> Headline | None:
    """The headline of a results folder.

    It shows the tuned study. Without results of that study, it shows the depth study, in which all
    networks have the same learning rate. Only trials of the default commands count.

    Args:
        folders: Results folders by study, see `document.studies`.
        grids: Function of a study's name that returns its default grid, see `StudyTables`.

    Returns:
        The headline. None if neither study has trials.
    """
    for folder in folders.get("tuned", ()):
        trials = _trials(folder, grids)
        frames = {} if trials is None else selection.reported(trials)
        if frames:
            panels = {PUBLISHED: frames["published"], TUNED: frames["tuned"]}
            return _headline(panels, folder, "")
    for folder in folders.get("depth", ()):
        trials = _trials(folder, grids)
        if trials is not None:
            missing = (
                "The study with tuned learning rates has no complete results here. So this chart "
                "shows the depth study, in which all networks have the same learning rate."
            )
            return _headline({PUBLISHED: trials}, folder, missing)
    return None


def _trials(folder, grids):
    """The trials of a study's default command that did not crash. None if there are none."""
    try:
        return StudyTables(folder, grids).trials("depth", "learning_rate", "steps_to_target")
    except UndecidedError:
        return None


def _headline(panels, folder, note):
    points = [
        _point(panel, depth, batch_norm, group)
        for panel, trials in panels.items()
        for (depth, batch_norm), group in trials.groupby(["depth", "batch_norm"])
    ]
    target = tables.target(pd.concat(panels.values()))
    title = f"Training steps to {target} test accuracy on {folder.parent.name}, by depth"
    return Headline(title, _text(points, target, folder.parent.name), note, points)


def _point(panel, depth, batch_norm, group):
    steps = tables.with_misses(group.steps_to_target)
    found = intervals.of_median(steps)
    budget = int(group.max_steps.max())
    known = found.seeds >= intervals.SEEDS_NEEDED
    return {
        "panel": panel,
        "depth": int(depth),
        "arm": arm_name(batch_norm),
        "rate": float(group.learning_rate.iloc[0]),
        "text": found.shown(infinite=f">{budget:,}"),
        "median": _finite(found.estimate),
        "low": _finite(found.low) if known else None,
        "high": _finite(found.high) if known else None,
        "interval": known,
        "reached": f"{np.isfinite(steps).sum()}/{len(steps)}",
        "budget": budget,
        "trials": [
            {"id": row.trial_id, "seed": int(row.seed), "steps": _finite(step)}
            for row, step in zip(group.itertuples(), steps, strict=True)
        ],
    }


def _text(points, target, dataset):
    """The paragraph, from the deepest networks that are in every panel and arm."""
    panels = list(dict.fromkeys(point["panel"] for point in points))
    by_place = {(p["panel"], p["depth"], p["arm"]): p for p in points}
    plain, normed = arm_name(False), arm_name(True)
    depths = [
        depth
        for depth in sorted({point["depth"] for point in points})
        if all((panel, depth, arm) in by_place for panel in panels for arm in (plain, normed))
    ]
    if not depths:
        return "The results do not hold both arms yet, so there is nothing to compare."
    deepest = depths[-1]

    def steps(panel, arm):
        return by_place[panel, deepest, arm]

    first = [steps(panels[0], arm) for arm in (plain, normed)]
    words = (
        f"A network with {deepest} hidden layers needs {_words(first[0])} training steps to reach "
        f"{target} test accuracy on {dataset}. With batch norm, it needs {_words(first[1])}. Both "
        f"numbers are for the learning rate that was published with this comparison."
    )
    if len(panels) == 1:
        return words
    second = [steps(panels[1], arm) for arm in (plain, normed)]
    words += (
        f" If every network has the learning rate that suits it best, the numbers are "
        f"{_words(second[0])} and {_words(second[1])}."
    )
    medians = [point["median"] for point in (*first, *second)]
    if None in medians or medians[0] <= medians[1]:
        return words
    share = np.clip(1 - (medians[2] - medians[3]) / (medians[0] - medians[1]), 0, 1)
    return (
        f"{words} So tuning the learning rates saves {share:.0%} of the steps that batch norm "
        "saves at the published rate."
    )


def _words(point):
    return f"{point['median']:g}" if point["median"] is not None else f"over {point['budget']:,}"


def _finite(value):
    return float(value) if np.isfinite(value) else None
