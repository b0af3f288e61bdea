"""The charts of the study of networks in which only batch norm trains."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sweeps.harness import charts
from sweeps.harness.charts import figures, looks, spreads
from sweeps.harness.claims.evidence import CHANCE
from sweeps.only_batch_norm import measures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOK_OF = dict(zip(["output", "batch_norm", "random", "all"], looks.LOOKS, strict=False))


def accuracy(trials: pd.DataFrame, parameters: pd.DataFrame, path: Path) -> Path:
    """Draws the final accuracy of runs without a penalty, by the number of trained parameters."""
    counts = measures.at_end(parameters).set_index("trial_id").parameters
    every = _finished(trials).assign(parameters=lambda each: each.trial_id.map(counts))
    every = every[every.gamma_l2 == every.gamma_l2.min()]
    return charts.save_panels(
        path,
        {name: functools.partial(_accuracy, group) for name, group in _by_network(every).items()},
        f"Test accuracy after {trials.max_steps.max():,} steps, by number of trained parameters",
        charts.settings(every),
        columns=2,
        share="row",
        size=(4.2, 3.4),
    )


def gammas(trials: pd.DataFrame, recorded: pd.DataFrame, path: Path) -> Path:
    """Draws the share of gammas below each size, at the start and at the end of training."""
    every = _finished(trials)
    every = every[every.trained.isin(["all", "batch_norm"])]
    found = recorded.assign(size=recorded.gamma.abs())
    return charts.save_panels(
        path,
        {
            name: functools.partial(_shares, group, found)
            for name, group in _by_network(every).items()
        },
        "Share of batch norm's gammas below a size, at the end of training",
        charts.settings(every),
        columns=2,
        share="row",
        size=(4.2, 3.4),
    )


def _finished(trials):
    return trials[trials.status != "failed"]


def _by_network(trials):
    """The trials of each network, by the panel's title."""
    return {measures.NETWORKS[network]: group for network, group in trials.groupby("architecture")}


def _accuracy(trials, ax: Axes) -> Axes:
    """Draws a dot per seed, and a large one with the interval for each median."""
    for trained, title in measures.TRAINED.items():
        group = trials[trials.trained == trained]
        if group.empty:
            continue
        look = _LOOK_OF[trained] | {"linestyle": "none"}
        values = group.final_accuracy.astype(float).fillna(0.0)  # 0 for a diverged run
        ax.scatter(group.parameters, values, s=20, alpha=0.55, linewidths=0, **looks.dots(look))
        found = spreads.medians(values, group.parameters)
        limits = np.array([[values.min()], [values.max()]]) * np.ones(len(found))
        wide = spreads.draw_bars(ax, np.array([*found]), [*found.values()], limits, look["color"])
        label = f"{title} (median{f', {spreads.NAME}' if wide else ''})"
        medians = [each.estimate for each in found.values()]
        ax.plot([*found], medians, markersize=9, mew=0, label=label, **look)
    figures.level(ax, CHANCE, "chance")
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.margins(x=0.15)
    ax.set_ylim(0, 1.04)  # room for a marker near 1
    ax.set_xlabel("trained parameters")
    ax.set_ylabel("test accuracy")
    return ax


def _shares(trials, found, ax: Axes) -> Axes:
    """Draws the distribution of all seeds' gammas, with a line per set of trained parameters."""
    grid = np.geomspace(1e-3, 10, 201)
    ax.plot(grid, np.minimum(grid, 1), color="#777777", lw=1, label="at the start")
    others = itertools.cycle(looks.LOOKS[2::2])
    for (trained, l2), group in trials.groupby(["trained", "gamma_l2"]):
        sizes = np.sort(measures.at_end(found[found.trial_id.isin(group.trial_id)])["size"])
        shares = np.searchsorted(sizes, grid) / len(sizes)
        look = (next(others) if l2 else _LOOK_OF[trained]) | {"marker": None}
        title = f"{measures.TRAINED[trained]} trained".replace("only trained", "trained")
        penalty = f", L2 {l2:g} on gamma" if l2 else ""
        ax.plot(grid, shares, lw=2, label=title + penalty, **look)
    ax.axvline(measures.NEAR_ZERO, color="#777777", linestyle="--", linewidth=1)
    ax.annotate(
        f"{measures.NEAR_ZERO:g}",
        (measures.NEAR_ZERO, 0.97),
        xycoords=("data", "axes fraction"),
        xytext=(3, 0),
        textcoords="offset points",
        va="top",
        color="#555555",
        fontsize=8,
    )
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_ylim(0, 1)
    ax.set_xlabel("size of gamma")
    ax.set_ylabel("share of gammas below this size")
    return ax
