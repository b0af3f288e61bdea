"""The charts of the noise study."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sweeps.harness import charts
from sweeps.harness.charts import looks, spreads
from sweeps.harness.charts.facets import Series
from sweeps.harness.results.tables import first_seed, target
from sweeps.harness.trial import arm_name
from sweeps.noise import measures

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def name_of(batch_norm: bool, noise: float) -> str:
    """The name of an arm, such as "batch norm with noise"."""
    if noise == 0:
        return arm_name(batch_norm)
    strength = "noise" if noise == 1 else f"{noise:g} times the noise"
    return f"{arm_name(batch_norm)} with {strength}"


def steps_to_target(trials: pd.DataFrame, path: Path) -> Path:
    """Draws the steps to the target of each arm."""
    every = _arms(trials)

    def draw(ax):
        for place, (name, group, look) in enumerate(every):
            placed = [Series(name, group.assign(place=place), look)]
            charts.steps_to_target(placed, ax, "place", joined=False)
        ax.set_xticks(range(len(every)), [name.replace(" with", "\nwith") for name, *_ in every])
        ax.set_xlim(-0.5, len(every) - 0.5)
        return ax

    title = f"Training steps to {target(trials)} test accuracy, with and without noise"
    return charts.save(path, draw, title, charts.settings(trials))


def landscape(trials: pd.DataFrame, recorded: pd.DataFrame, path: Path) -> Path:
    """Draws the range of the loss and the change of the gradient, by step."""
    found, every = _regular(measures.ranges(recorded), trials), _arms(trials)
    panels = {
        "range of the loss": ("loss_range", "largest minus smallest loss"),
        "change of the gradient": ("gradient_change", "largest change, Euclidean norm"),
    }
    return charts.save_panels(
        path,
        {
            title: functools.partial(_by_step, every, found, column=column, label=label)
            for title, (column, label) in panels.items()
        },
        "Change of loss and gradient along the gradient, by training step",
        f"{charts.settings(trials)} · along the gradient: 1/2 to 4 learning rates",
        columns=2,
        share=False,
        size=(4.2, 3.4),
    )


def percentiles(trials: pd.DataFrame, recorded: pd.DataFrame, path: Path) -> Path:
    """Draws the percentiles of a unit's inputs in each arm, from a single run."""
    first = first_seed(trials)

    def draw(rows, ax):
        charts.percentiles(rows, ax)
        ax.set_ylabel("input of the unit")
        return ax

    unit = _regular(recorded[recorded.unit == recorded.unit.min()], trials)
    return charts.save_panels(
        path,
        {
            name: functools.partial(draw, unit[unit.trial_id.isin(group.trial_id)])
            for name, group, _ in _arms(first)
        },
        "Inputs of a unit in the last hidden layer: 15th, 50th and 85th percentiles",
        charts.settings(first),
        columns=2,
        size=(3.8, 2.4),
    )


def _regular(recorded: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """The recordings at regular steps, without those that follow each of them one step later."""
    return recorded[recorded.step % trials.curve_every.max() == 0]


def _arms(trials: pd.DataFrame) -> list[Series]:
    """A series for each arm and strength of the noise, those without noise first."""
    finished = trials[trials.status != "failed"]
    groups = {
        name_of(batch_norm, noise): group
        for (noise, batch_norm), group in finished.groupby(["noise", "batch_norm"])
    }
    found = looks.of_series(list(groups))
    return [Series(*each, look) for each, look in zip(groups.items(), found, strict=True)]


def _by_step(every: Sequence[Series], found, ax: Axes, *, column: str, label: str) -> Axes:
    """Draws the medians of a column and their intervals against the step."""
    for name, trials, look in every:
        rows = found[found.trial_id.isin(trials.trial_id)]
        medians = spreads.medians(rows[column], rows.step)
        wide = spreads.draw_band(ax, medians, look["color"])
        ax.plot(
            [*medians],
            [each.estimate for each in medians.values()],
            label=f"{name} (median{f'; band: {spreads.NAME}' if wide else ''})",
            lw=2,
            markersize=4,
            markevery=looks.marker_every(len(medians)),
            **look,
        )
    ax.set_yscale("log")
    ax.set_xlabel("training step")
    ax.set_ylabel(label)
    return ax
