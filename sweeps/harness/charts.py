"""Charts from tables: (frame, ax) -> ax. Nothing here trains, and nothing here reads a file."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sweeps.harness import tables
from sweeps.harness.store import write_whole

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# Okabe & Ito's palette: apart for the colour-blind, and apart in grey, for their lightness differs.
_LOOKS = [
    {"color": "#E69F00", "marker": "o", "linestyle": "--"},
    {"color": "#0072B2", "marker": "s", "linestyle": "-"},
    {"color": "#CC79A7", "marker": "D", "linestyle": "-."},
    {"color": "#009E73", "marker": "v", "linestyle": ":"},
    {"color": "#000000", "marker": "X", "linestyle": "-"},
]

# Contenders of `sweeps.cost`, each with its look in every chart.
_CONTENDERS = {
    **{"plain": 0, "by hand": 0, "kerasbn": 1, "keras": 2, "pytorch": 2},
    **{"folded": 3, "relu": 3, "four copies": 4},
}


def steps_to_target(trials: pd.DataFrame, ax: Axes, x: str) -> Axes:
    """Steps to target by a column: each seed a dot, medians joined, misses on the budget's line.

    Args:
        trials: The trials table, of one target accuracy.
        ax: Where to draw.
        x: A column of numbers.
    """
    budget = float(trials.max_steps.max())
    missed = False
    series = tables.by_series(trials, x)
    for position, (label, group) in enumerate(series):
        look = _look(position)
        shift = 0.12 * (position - (len(series) - 1) / 2)
        places = group[x].to_numpy(float) + shift
        steps = tables.with_misses(group.steps_to_target)
        hit = np.isfinite(steps)
        missed |= not hit.all()
        ax.scatter(places[hit], steps[hit], s=22, alpha=0.55, linewidths=0, **_dots(look))
        ax.scatter(
            places[~hit],
            np.full((~hit).sum(), budget),
            s=45,
            marker="^",
            facecolors="none",
            edgecolors=look["color"],
        )
        medians = (
            group.assign(steps=steps).groupby(x).steps.agg(lambda s: tables.median(s.to_numpy()))
        )
        line = np.where(np.isfinite(medians), medians, np.nan)
        ax.plot(
            medians.index.to_numpy(float) + shift, line, label=f"{label} (median)", lw=2, **look
        )
    if missed:
        ax.axhline(budget, color="#777777", linestyle="--", linewidth=1)
        ax.annotate(
            f"not reached in {budget:.0f} steps",
            (0.01, budget),
            xycoords=("axes fraction", "data"),
            xytext=(0, 4),
            textcoords="offset points",
            color="#555555",
            fontsize=8,
        )
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0)
    ax.set_ylabel(f"training steps to {_target(trials)} test accuracy")
    ax.legend(frameon=False)
    return ax


def accuracy(tables_: tables.Tables, ax: Axes, x: str) -> Axes:
    """Test accuracy of each seed in the course of training.

    Args:
        tables_: The trials to draw, and the curves in which theirs are.
        ax: Where to draw.
        x: "step", or "seconds": steps times the trial's median seconds a training step.
    """
    trials = tables_.trials
    for position, (label, group) in enumerate(tables.by_series(trials)):
        look = _look(position)
        for n, (_, trial) in enumerate(group.iterrows()):
            curve = tables_.curves[tables_.curves.trial_id == trial.trial_id]
            curve = curve[curve.test_accuracy.notna()]
            pace = 1.0 if x == "step" else trial.seconds_per_step
            ax.plot(
                curve.step.to_numpy(float) * pace,
                curve.test_accuracy.to_numpy(float),
                label=f"{label}, one line a seed" if n == 0 else None,
                alpha=0.75,
                lw=1.3,
                markersize=4,
                **look,
            )
    ax.axhline(trials.target_accuracy.iloc[0], color="#777777", linestyle="--", linewidth=1)
    ax.set_ylim(0, 1)
    ax.set_xlim(left=0)
    ax.set_xlabel(
        "training step" if x == "step" else "training time, seconds (evaluation left out)"
    )
    ax.set_ylabel("accuracy on the test set")
    ax.legend(frameon=False, loc="lower right")
    return ax


def multiples(rows: pd.DataFrame, ax: Axes, over: str) -> Axes:
    """How many times another's time contenders take, size by size: medians and quartiles.

    Args:
        rows: A table of `sweeps.cost`: one mode and one dtype, the sizes in the order to draw.
        ax: Where to draw.
        over: The contender whose time is 1.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    sizes = list(rows["size"].unique())
    names = [name for name in _CONTENDERS if name != over and name in set(rows.contender)]
    for n, name in enumerate(names):
        group = rows[rows.contender == name]
        look = _look(_CONTENDERS[name])
        middle = group[f"over_{over}"].to_numpy()
        spread = group[[f"over_{over}_q1", f"over_{over}_q3"]].to_numpy().T
        places = np.array([sizes.index(size) for size in group["size"]])
        ax.errorbar(
            middle,
            places + 0.13 * (n - (len(names) - 1) / 2),
            xerr=np.abs(spread - middle),
            fmt=look["marker"],
            color=look["color"],
            markersize=5,
            elinewidth=1,
            label=name,
        )
    ax.axvline(1, color="#333333", linewidth=1)
    for kind, group in rows.groupby("shapes", sort=False):
        top = sizes.index(group["size"].iloc[0]) - 0.5
        ax.axhline(top, color="#777777", linewidth=1, linestyle=":")
        ax.annotate(
            kind,
            (1.01, top),
            xycoords=("axes fraction", "data"),
            va="top",
            color="#555555",
            fontsize=8,
        )
    ax.set_ylim(-0.5, len(sizes) - 0.5)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks(range(len(sizes)), sizes)
    ax.invert_yaxis()
    ax.set_xlabel(f"time, as a multiple of {over.capitalize()}'s")
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(1, 0))
    return ax


def milliseconds(rows: pd.DataFrame, ax: Axes, call: str) -> Axes:
    """Time of a call by a network's hidden layers: medians joined, quartiles as bars.

    Args:
        rows: A table of `sweeps.cost`: one network, one mode.
        ax: Where to draw.
        call: What is called.
    """
    for name in [name for name in _CONTENDERS if name in set(rows.contender)]:
        group = rows[rows.contender == name]
        middle = group.median_microseconds.to_numpy() / 1e3
        spread = group[["q1", "q3"]].to_numpy().T / 1e3
        look = _look(_CONTENDERS[name])
        places = group["size"].astype(int)
        ax.errorbar(places, middle, np.abs(spread - middle), label=name, capsize=2, **look)
    ax.set_xticks(sorted(set(rows["size"].astype(int))))
    ax.set_ylim(bottom=0)
    ax.set_xlabel("hidden layers")
    ax.set_ylabel(f"milliseconds a{'n' if call[0] in 'aeiou' else ''} {call}")
    ax.legend(frameon=False)
    return ax


def bars(table: pd.DataFrame, ax: Axes, label: str) -> Axes:
    """Groups of bars, each with its number.

    Args:
        table: A row a group, a column for each bar in it.
        ax: Where to draw.
        label: Of the vertical axis, with the unit.
    """
    width = 0.8 / len(table.columns)
    places = np.arange(len(table))
    for position, name in enumerate(table.columns):
        shift = width * (position - (len(table.columns) - 1) / 2)
        drawn = ax.bar(
            places + shift, table[name], width * 0.92, label=name, color=_look(position)["color"]
        )
        ax.bar_label(drawn, fmt="%.2f", fontsize=8, padding=2)
    ax.set_xticks(places, table.index)
    ax.set_ylabel(label)
    ax.margins(y=0.25)
    ax.legend(frameon=False, loc="upper left")
    return ax


def settings(trials: pd.DataFrame) -> str:
    """What all trials of a chart have in common, for its subtitle."""

    def common(name, text=str):
        values = trials[name].dropna().unique()
        return text(values[0]) if len(values) == 1 else "several"

    parts = [
        common("dataset"),
        common("activation"),
        f"{common('optimizer')} at {common('learning_rate', '{:g}'.format)}",
        f"batch {common('batch_size')}",
    ]
    if trials.batch_norm.any():
        momentum, epsilon = (common(f"bn_{n}", "{:g}".format) for n in ("momentum", "epsilon"))
        parts.append(f"batch norm: momentum {momentum}, epsilon {epsilon}")
    seeds = trials.seed.nunique()
    return " · ".join([*parts, f"{seeds} seed{'s' if seeds > 1 else ''}"])


def save(path: Path, draw: Callable[[Axes], Axes], title: str, subtitle: str) -> Path:
    """Draws one chart into a PNG file of 150 dots an inch; returns its path."""
    from matplotlib.figure import (
        Figure,
    )  # no pyplot: no global state, and no window system asked for

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    ax = draw(figure.add_subplot())
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    ax.set_title(subtitle, loc="left", fontsize=8, color="#555555")
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150, metadata={"Software": None})
    write_whole(path, content.getvalue())
    return path


def _look(position):
    return _LOOKS[position % len(_LOOKS)]


def _dots(look):
    return {name: look[name] for name in ("color", "marker")}


def _target(trials):
    return f"{100 * trials.target_accuracy.iloc[0]:g}%"
