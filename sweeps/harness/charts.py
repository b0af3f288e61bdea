"""Charts from tables: (frame, ax) -> ax. Nothing here trains, and nothing here reads a file."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sweeps.harness import tables
from sweeps.harness.store import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's palette: apart for the colour-blind, and apart in grey, for their lightness differs.
_LOOKS = [
    {"color": "#E69F00", "marker": "o", "linestyle": "--"},
    {"color": "#0072B2", "marker": "s", "linestyle": "-"},
    {"color": "#CC79A7", "marker": "D", "linestyle": "-."},
    {"color": "#009E73", "marker": "v", "linestyle": ":"},
    {"color": "#000000", "marker": "X", "linestyle": "-"},
]
_COLORS = ["#E69F00", "#56B4E9", "#D55E00", "#CC79A7", "#009E73", "#999999", "#0072B2", "#000000"]

# Contenders of `sweeps.cost`, each with its look in every chart.
_CONTENDERS = {
    **{"plain": 0, "by hand": 0, "kerasbn": 1, "keras": 2, "pytorch": 2},
    **{"folded": 3, "relu": 3, "four copies": 4},
}


def steps_to_target(
    trials: pd.DataFrame, ax: Axes, x: str, *, log: bool = False, joined: bool = True
) -> Axes:
    """Steps to target by a column: each seed a dot, medians joined, misses on the budget's line.

    Args:
        trials: The trials table, of one target accuracy.
        ax: Where to draw.
        x: A column of numbers.
        log: Whether its axis is logarithmic.
        joined: Whether the values of `x` are in a row, so that a line may join them.
    """
    budget = float(trials.max_steps.max())
    missed = False
    series = tables.by_series(trials, x)
    for position, (label, group) in enumerate(series):
        look = _look(position)
        shift = 0.12 * (position - (len(series) - 1) / 2)
        places = _shifted(group[x], shift, log)
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
        _medians(ax, group[x], steps, label, look, shift, log=log, joined=joined)
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
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(lambda y, _: f"{y:g}" if f"{y:g}"[0] in "235" else "")
    else:
        ax.set_ylim(bottom=0)
    if log:
        _log_axis(ax, trials[x])
    ax.set_ylabel(f"training steps to {_target(trials)} test accuracy")
    ax.legend(frameon=False)
    return ax


def value(
    series: list[tuple[str, pd.DataFrame]], ax: Axes, x: str, y: str, *, log: bool = False
) -> Axes:
    """A result by a column: each seed a dot, medians joined, diverged runs crosses at the bottom.

    Args:
        series: Trials by their label, such as `tables.by_series` gives.
        ax: Where to draw.
        x: A column of numbers.
        y: The result's column.
        log: Whether the axis of `x` is logarithmic.
    """
    for position, (label, group) in enumerate(series):
        look = _look(position)
        shift = 0.12 * (position - (len(series) - 1) / 2)
        places = _shifted(group[x], shift, log)
        diverged = (group.status == "diverged").to_numpy()
        values = group[y].astype("Float64").to_numpy(float, na_value=np.nan)
        ax.scatter(
            places[~diverged], values[~diverged], s=22, alpha=0.55, linewidths=0, **_dots(look)
        )
        ax.scatter(
            places[diverged],
            np.full(diverged.sum(), 0.02),
            transform=ax.get_xaxis_transform(),
            s=45,
            marker="x",
            color=look["color"],
            label=f"{label}, diverged" if diverged.any() else None,
        )
        values = np.where(diverged, -np.inf, values)
        _medians(ax, group[x], values, label, look, shift, log=log)
    if log:
        _log_axis(ax, pd.concat([group[x] for _, group in series]))
    ax.legend(frameon=False)
    return ax


def _log_axis(ax, x):
    """A logarithmic axis around these values, which are its ticks, drawn there or not."""
    ax.set_xscale("log")
    ax.set_xticks(sorted(x.unique()), [f"{each:g}" for each in sorted(x.unique())])
    ax.xaxis.minorticks_off()
    ax.set_xlim(float(x.min()) / 1.7, float(x.max()) * 1.7)


def _medians(ax, x, values, label, look, shift, *, log=False, joined=True):
    """Joins the medians of the finite values; an infinite one is left out of the line."""
    medians = x.to_frame("x").assign(values=values).groupby("x")["values"]
    medians = medians.agg(lambda each: tables.median(each.to_numpy()))
    line = np.where(np.isfinite(medians), medians, np.nan)
    places = _shifted(medians.index.to_series(), shift, log)
    look = look if joined else look | {"linestyle": "none", "markersize": 10, "mew": 0}
    ax.plot(places, line, label=f"{label} (median)", lw=2, **look)


def _shifted(x, shift, log):
    """Places beside `x`, so that series do not hide each other."""
    places = x.to_numpy(float)
    return places * 2**shift if log else places + shift


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


def by_epoch(tables_: tables.Tables, ax: Axes, column: str, label: str, top: float | None) -> Axes:
    """A column of the curves, a line a seed, where a trial's curve has one row an epoch.

    Args:
        tables_: The trials to draw, and the curves in which theirs are.
        ax: Where to draw.
        column: Of the curves.
        label: Of the vertical axis.
        top: Where it ends; `None`: where the values do.
    """
    for position, (name, group) in enumerate(tables.by_series(tables_.trials)):
        for n, trial_id in enumerate(group.trial_id):
            values = tables_.curves[tables_.curves.trial_id == trial_id][column].to_numpy(float)
            ax.plot(
                np.arange(1, len(values) + 1),
                values,
                label=f"{name}, one line a seed" if n == 0 else None,
                alpha=0.75,
                lw=1.3,
                markersize=4,
                **_look(position),
            )
    ax.set_ylim(0, top)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("epoch")
    ax.set_ylabel(label)
    return ax


def errors_by_step(errors: pd.DataFrame, ax: Axes) -> Axes:
    """Test error of each seed by step: columns `batch_norm`, `trial_id`, `step`, `loss`."""
    for position, (batch_norm, arm) in enumerate(errors.groupby("batch_norm")):
        for n, (_, run) in enumerate(arm.groupby("trial_id")):
            ax.plot(
                run.step.to_numpy(),
                run.loss.to_numpy(),
                label=f"{_arm(batch_norm)}, one line a seed" if n == 0 else None,
                alpha=0.75,
                lw=1.3,
                markersize=4,
                **_look(position),
            )
    ax.set_yscale("log")
    ax.set_xlabel("training step")
    ax.set_ylabel("mean squared error on the test points")
    return ax


def fits(trials: pd.DataFrame, predictions: pd.DataFrame, ax: Axes) -> Axes:
    """The test points, and the curve that each trial fits to them."""
    for position, trial in enumerate(trials.sort_values("batch_norm").itertuples()):
        found = predictions[predictions.trial_id == trial.trial_id]
        if position == 0:
            ax.scatter(found.x, found.y, s=8, color="#BBBBBB", linewidths=0, label="test points")
        look = _look(position) | {"marker": None}
        ax.plot(found.x, found.predicted, label=_arm(trial.batch_norm), lw=2.5, **look)
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    return ax


def percentiles(rows: pd.DataFrame, ax: Axes) -> Axes:
    """The 15th, 50th and 85th percentile by step: columns `step`, `p15`, `p50`, `p85`."""
    ax.fill_between(
        rows.step,
        rows.p15,
        rows.p85,
        color="#56B4E9",
        alpha=0.4,
        linewidth=0,
        label="15th to 85th percentile",
    )
    ax.plot(rows.step, rows.p50, color="#0072B2", lw=2, label="median")
    ax.set_xlabel("training step")
    ax.set_ylabel("input of the sigmoid")
    return ax


def gradients(rows: pd.DataFrame, ax: Axes) -> Axes:
    """Gradient norm by layer, each seed a thin line, medians thick; a norm of 0 is left out."""
    for position, (batch_norm, arm) in enumerate(rows.groupby("batch_norm")):
        look = _look(position)
        norms = arm.gradient_norm.where(arm.gradient_norm > 0)
        arm = arm.assign(gradient_norm=norms)
        for _, run in arm.groupby("trial_id"):
            ax.plot(run.layer, run.gradient_norm, lw=0.7, alpha=0.5, color=look["color"])
        medians = arm.groupby("layer").gradient_norm.median()
        ax.plot(
            medians.index,
            medians,
            lw=2,
            markersize=4,
            label=f"{_arm(batch_norm)} (median; thin: seeds)",
            **look,
        )
    ax.set_yscale("log")
    ax.set_xlabel("hidden layer, 1 next to the input")
    ax.set_ylabel("norm of the loss's gradient")
    return ax


def statistics(found: pd.DataFrame, ax: Axes, target: float) -> Axes:
    """Median accuracy by step, a line a kind of statistics, with its name at its end or beside."""
    for position, (name, rows) in enumerate(found.groupby("statistics", sort=False)):
        medians = rows.groupby("step").accuracy.median()
        style = ["-", "--", "-.", ":"][position % 4]
        color = _COLORS[position % len(_COLORS)]
        ax.plot(medians.index, medians, lw=1.8, label=name, color=color, linestyle=style)
    ax.axhline(target, color="#777777", linestyle="--", linewidth=1)
    ax.set_ylim(0, 1)
    ax.set_xlim(left=0)
    ax.set_xlabel("training step")
    ax.set_ylabel("accuracy on the test set")
    ax.legend(frameon=False, fontsize=8)
    return ax


def histograms(rows: pd.DataFrame, ax: Axes) -> Axes:
    """Distributions as filled steps of equal height: columns `batch_norm`, `low`, `high`, `counts`.

    One row for each arm. A distribution that is too narrow to be seen beside the other is a line.
    """
    span = rows.high.max() - rows.low.min()
    for position, row in enumerate(rows.sort_values("batch_norm").itertuples()):
        counts = np.array(row.counts.split("-"), float)
        color = _look(position)["color"]
        label = _arm(row.batch_norm)
        if row.high - row.low <= 0.03 * span:
            ax.axvline((row.low + row.high) / 2, color=color, lw=2, label=label)
            continue
        edges = np.linspace(row.low, row.high, len(counts) + 1)
        ax.stairs(counts / counts.max(), edges, fill=True, alpha=0.55, color=color, label=label)
    ax.set_ylim(0, 1.1)
    ax.set_yticks([])
    return ax


def save_histograms(path: Path, rows: pd.DataFrame, title: str, subtitle: str) -> Path:
    """A grid of histograms: a column a layer; pre-activations and activations, first and last step.

    Args:
        path: Where to.
        rows: `step`, `layer`, `tensor`, and the columns of `histograms`.
        title: Of the whole.
        subtitle: What all have in common.
    """
    ends = rows[rows.step.isin([rows.step.min(), rows.step.max()])]
    panels = {}
    for tensor in ("pre_activation", "activation"):
        for (step, layer), of_panel in ends[ends.tensor == tensor].groupby(["step", "layer"]):
            name = f"layer {layer}, step {step}\n{tensor.replace('_', '-')}"
            panels[name] = functools.partial(histograms, of_panel)
    layers = ends.layer.nunique()
    return save_panels(path, panels, title, subtitle, columns=layers, share=False, size=(1.7, 1.5))


def animate_histograms(path: Path, rows: pd.DataFrame, title: str) -> Path:
    """A GIF, a frame a recorded step, of what `save_histograms` shows; axes stay as they are."""
    from matplotlib.animation import FuncAnimation, PillowWriter

    tensors = ["pre_activation", "activation"]
    layers = sorted(rows.layer.unique())
    figure = _figure(1.5 * len(layers), 3.6, title)
    axes = figure.subplots(len(tensors), len(layers), squeeze=False)
    steps = sorted(rows.step.unique())
    bounds = rows.groupby(["tensor", "layer"]).agg(low=("low", "min"), high=("high", "max"))

    def frame(step):
        for i, tensor in enumerate(tensors):
            for j, layer in enumerate(layers):
                ax = axes[i, j]
                ax.clear()
                chosen = (rows.step == step) & (rows.layer == layer) & (rows.tensor == tensor)
                histograms(rows[chosen], ax)
                ax.set_xlim(*bounds.loc[(tensor, layer)])
                ax.set_title(f"{tensor.replace('_', '-')} {layer}", fontsize=8)
                ax.tick_params(labelsize=7)
        figure.suptitle(f"{title}, step {step}", x=0.01, ha="left", fontsize=12)
        figure.legends.clear()
        shown = axes[0, 0].get_legend_handles_labels()
        figure.legend(*shown, loc="upper right", ncols=2, frameon=False, fontsize=9)

    movie = FuncAnimation(figure, frame, frames=steps, cache_frame_data=False)
    temporary = path.with_name(f".{path.name}.tmp.gif")
    movie.save(temporary, writer=PillowWriter(fps=2), dpi=80)
    write_whole(path, temporary.read_bytes())
    temporary.unlink()
    return path


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


def bars_of_seeds(
    series: list[tuple[str, pd.Series]], names: list[str], ax: Axes, label: str
) -> Axes:
    """Groups of bars, each the median of its seeds, with every seed as a dot.

    Args:
        series: For each bar of a group, what it is and the seeds' values, by the group's name. Two
            by two they belong together: they have one colour, the first of them hatched.
        names: Of the groups, in their order.
        ax: Where to draw.
        label: Of the vertical axis, with the unit.
    """
    width = 0.8 / len(series)
    for position, (name, values) in enumerate(series):
        places = np.arange(len(names)) + width * (position - (len(series) - 1) / 2)
        medians = values.groupby(level=0).median().reindex(names)
        color, first = _look(position // 2)["color"], position % 2 == 0
        style = {"facecolor": "white" if first else color, "hatch": "///" if first else None}
        ax.bar(places, medians, width * 0.92, label=name, edgecolor=color, **style)
        places = dict(zip(names, places, strict=True))
        seeds = [places[each] for each in values.index]
        ax.scatter(seeds, values, s=9, color="#333333", linewidths=0, alpha=0.7, zorder=3)
    ax.set_xticks(range(len(names)), names, fontsize=8)
    ax.set_ylabel(label)
    ax.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return ax


def settings(trials: pd.DataFrame) -> str:
    """What all trials of a chart have in common, for its subtitle."""

    def common(name, text=str):
        values = trials[name].dropna().unique()
        return text(values[0]) if len(values) == 1 else f"several {name.replace('_', ' ')}s"

    batch_size = common("batch_size")
    parts = [
        common("dataset"),
        common("activation"),
        f"{common('optimizer')} at {common('learning_rate', '{:g}'.format)}",
        batch_size if "several" in batch_size else f"batch {batch_size}",
    ]
    if trials.batch_norm.any():
        options = {name: trials[f"bn_{name}"].dropna().unique() for name in ("momentum", "epsilon")}
        told = [f"{name} {found[0]:g}" for name, found in options.items() if len(found) == 1]
        parts.append(f"batch norm: {', '.join(told)}")
    seeds = trials.seed.nunique()
    return " · ".join([*parts, f"{seeds} seed{'s' if seeds > 1 else ''}"])


def save(path: Path, draw: Callable[[Axes], Axes], title: str, subtitle: str) -> Path:
    """Draws one chart into a PNG file of 150 dots an inch; returns its path."""
    figure = _figure(7.2, 4.6, title)
    ax = draw(figure.add_subplot())
    ax.set_title(subtitle, loc="left", fontsize=8, color="#555555")
    _tidy(ax)
    return _write(figure, path)


def save_panels(
    path: Path,
    panels: Mapping[str, Callable[[Axes], Axes]],
    title: str,
    subtitle: str,
    *,
    columns: int,
    share: bool = True,
    size: tuple[float, float] = (3.6, 2.9),
) -> Path:
    """Draws panels, row by row, with one legend; returns the path of the PNG file.

    Args:
        path: Where to.
        panels: What to draw, by the panel's title.
        title: Of the whole.
        subtitle: What all panels have in common.
        columns: Panels in a row.
        share: Whether they have the same axes.
        size: Of a panel, in inches.
    """
    rows = -(-len(panels) // columns)
    figure = _figure(size[0] * columns, size[1] * rows + 1.0, title)
    axes = list(figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False).flat)
    shown = {}
    for number, (name, draw) in enumerate(panels.items()):
        ax = axes[number]
        draw(ax).set_title(name, fontsize=10)
        _tidy(ax)
        if share:
            lowest = number + columns >= len(panels)  # of its column; the last row may be shorter
            ax.tick_params(labelbottom=lowest)
            ax.set_xlabel(ax.get_xlabel() if lowest else "")
            ax.set_ylabel(ax.get_ylabel() if number % columns == 0 else "")
        shown |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        if ax.get_legend():
            ax.get_legend().remove()
    for ax in axes[len(panels) :]:
        ax.remove()
    if shown:
        fit = int(figure.get_figwidth() / (0.55 + 0.075 * max(map(len, shown))))  # in a row
        figure.legend(
            shown.values(),
            shown,
            loc="outside lower center",
            ncols=max(min(fit, len(shown)), 1),
            frameon=False,
            fontsize=9,
        )
    # The title has an empty second line, which keeps the place.
    height = figure.get_figheight()
    figure.suptitle(f"{title}\n", x=0.01, ha="left", fontsize=13, fontweight="bold")
    figure.text(0.01, 0.98 - 0.26 / height, subtitle, va="top", fontsize=8, color="#555555")
    return _write(figure, path)


def _figure(width, height, title):
    # No pyplot: no global state, and no window system asked for.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    return figure


def _tidy(ax):
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


def _write(figure, path):
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150, metadata={"Software": None})
    write_whole(path, content.getvalue())
    return path


def _arm(batch_norm):
    return "batch norm" if batch_norm else "plain"


def _look(position):
    return _LOOKS[position % len(_LOOKS)]


def _dots(look):
    return {name: look[name] for name in ("color", "marker")}


def _target(trials):
    return f"{100 * trials.target_accuracy.iloc[0]:g}%"
