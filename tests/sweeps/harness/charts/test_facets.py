"""Charts of several settings: which series share a panel, and where their points are."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sweeps.harness import charts
from sweeps.harness.charts import figures
from sweeps.harness.results import tables


def trials(records):
    return tables.from_records(records, ("depth", "batch_norm")).trials


def labels(facets):
    return {title: [label for label, _, _ in series] for title, series in facets.items()}


def both_arms(record, **changes):
    return [record(9, **changes), record(5, batch_norm=True, **changes)]


def test_up_to_four_series_share_a_panel(record):
    records = both_arms(record) + both_arms(record, learning_rate=0.003)
    assert labels(charts.facets(trials(records), "depth")) == {
        "": [
            "plain, rate 0.003",
            "plain, rate 0.01",
            "batch norm, rate 0.003",
            "batch norm, rate 0.01",
        ]
    }


def test_more_settings_get_a_panel_each_with_both_arms(record):
    records = [
        each
        for rate in (0.01, 0.003)
        for activation in ("relu", "tanh")
        for each in both_arms(record, learning_rate=rate, activation=activation)
    ]
    assert labels(charts.facets(trials(records), "depth")) == {
        f"{activation}, rate {rate}": ["plain", "batch norm"]
        for activation in ("relu", "tanh")
        for rate in (0.003, 0.01)
    }


def test_plain_networks_are_in_the_panel_of_each_option_of_batch_norm(record):
    momenta = (0.0, 0.3, 0.5, 0.9)
    records = [record(9)] + [record(5, batch_norm=True, bn_momentum=m) for m in momenta]
    facets = charts.facets(trials(records), "depth")
    assert labels(facets) == {f"momentum {m:g}": ["plain", "batch norm"] for m in momenta}
    for title, (_, normalized) in facets.items():
        assert title == f"momentum {normalized.trials.bn_momentum.item():g}"


def test_a_plain_network_without_a_counterpart_has_its_own_panel(record):
    records = [record(9, learning_rate=1.0)]
    records += [each for n in (1, 2, 3) for each in both_arms(record, learning_rate=n / 10)]
    assert labels(charts.facets(trials(records), "depth")) == {
        **{f"rate 0.{n}": ["plain", "batch norm"] for n in (1, 2, 3)},
        "rate 1": ["plain"],
    }


def test_kinds_of_normalization_share_a_panel(record):
    records = [record(9), record(8, group_norm=5), record(5, batch_norm=True)]
    records += [record(6, batch_norm=True, bn_renorm=True)]
    records += [record(7, batch_norm=True, bn_virtual_batch_size=16)]
    assert labels(charts.facets(trials(records), "depth")) == {
        "": [
            "plain",
            "group norm, 5 groups",
            "batch norm",
            "batch norm, ghost batches of 16",
            "batch norm, renorm",
        ]
    }


def test_two_runs_of_all_depths_are_four_series_and_not_one_for_each_width(record):
    records = [
        each
        for units, steps in (((30, 20, 10), 300), ((8, 4, 2), 60))
        for depth in (1, 2, 3)
        for each in both_arms(record, hidden_units=units[:depth], max_steps=steps)
    ]
    (series,) = charts.facets(trials(records), "depth").values()
    assert {label: sorted(group.depth) for label, group, _ in series} == {
        f"{arm}, widths {widths}": [1, 2, 3]
        for arm in ("plain", "batch norm")
        for widths in ("8-4-2", "30-20-10")
    }


def test_panels_that_are_asked_for_are_there_and_looks_agree_between_them(record):
    records = [record(9, activation="relu"), *both_arms(record, activation="tanh")]
    facets = charts.facets(trials(records), "depth", by=["activation"])
    assert labels(facets) == {"relu": ["plain"], "tanh": ["plain", "batch norm"]}
    assert facets["relu"][0].look == facets["tanh"][0].look


@pytest.mark.parametrize("count", [2, 5, 16, 40])
@pytest.mark.parametrize("log", [False, True])
def test_points_stay_near_their_place_however_many_the_series(count, log, record):
    records = [
        record(5, depth=depth, learning_rate=0.1 * n)
        for depth in (1, 2)
        for n in range(1, count + 1)
    ]
    ax = Figure().add_subplot()
    charts.steps_to_target(charts.series(trials(records), "depth"), ax, "depth", log=log)
    x = np.concatenate([np.asarray(dots.get_offsets())[:, 0] for dots in ax.collections])
    x = np.log2(x) + 1 if log else x
    assert len(x) == 2 * count
    assert np.abs(x - np.round(x)).max() < 0.16
    assert sorted(np.round(x)) == [1] * count + [2] * count


def test_close_points_on_a_logarithmic_axis_do_not_mix(record):
    records = [
        each for rate in (0.01, 0.012, 0.1) for each in both_arms(record, learning_rate=rate)
    ]
    ax = Figure().add_subplot()
    series = charts.series(trials(records), "learning_rate")
    charts.steps_to_target(series, ax, "learning_rate", log=True)
    x = sorted(float(each) for line in ax.lines for each in line.get_xdata())
    nearest = [min((0.01, 0.012, 0.1), key=lambda rate: abs(np.log(rate / each))) for each in x]
    assert nearest == [0.01, 0.01, 0.012, 0.012, 0.1, 0.1]


def test_a_miss_is_on_the_line_of_its_own_budget(record):
    records = [record(None, max_steps=60), record(None, max_steps=30), record(20, max_steps=60)]
    ax = Figure().add_subplot()
    charts.steps_to_target(charts.series(trials(records), "depth"), ax, "depth")
    hollow = [c for c in ax.collections if len(c.get_facecolors()) == 0]
    heights = [np.asarray(c.get_offsets())[:, 1].tolist() for c in hollow]
    assert sorted(each for each in heights if each) == [[30], [60]]
    dashed = [line.get_ydata()[0] for line in ax.lines if line.get_color() == "#777777"]
    assert dashed == [30, 60]
    texts = {text.get_text(): text.xy[1] for text in ax.texts}
    assert texts == {"not reached in 30 steps": 30, "not reached in 60 steps": 60}


@pytest.mark.parametrize("missed_first", [True, False])
def test_panels_with_and_without_misses_share_an_axis(missed_first, record):
    axes = Figure().subplots(1, 2, sharey=True)
    for ax, steps in zip(axes, (None, 7) if missed_first else (7, None), strict=True):
        series = charts.series(trials([record(steps)]), "depth")
        charts.steps_to_target(series, ax, "depth")
    bottom, top = axes[0].get_ylim()
    assert 1 < bottom < 7
    assert 300 < top < 1000


def test_a_later_panel_with_more_steps_is_not_cut_off(record):
    axes = Figure().subplots(1, 2, sharey=True)
    for ax, steps in zip(axes, (7, 200), strict=True):
        charts.steps_to_target(charts.series(trials([record(steps)]), "depth"), ax, "depth")
    assert axes[0].get_ylim() == axes[1].get_ylim() == (0, 210)


def drawn(monkeypatch, save):
    """The figure that a function saves, laid out."""
    found = []
    monkeypatch.setattr(figures, "_write", lambda figure, path: found.append(figure) or path)
    save()
    FigureCanvasAgg(found[0]).draw()
    return found[0]


def boxes(figure, artists):
    return [artist.get_window_extent(figure.canvas.get_renderer()) for artist in artists]


@pytest.mark.parametrize("arms", [2, 16])
def test_the_legend_and_the_titles_are_outside_the_axes_and_do_not_overlap(
    arms, monkeypatch, tmp_path, record
):
    records = [
        each for n in range(arms // 2) for each in both_arms(record, learning_rate=(n + 1) / 10)
    ]
    panels = {
        title: lambda ax, series=series: charts.steps_to_target(series, ax, "depth")
        for title, series in charts.facets(trials(records), "depth").items()
    }
    title = "A title that is longer than the figure is wide, and that needs a second line " * 2
    figure = drawn(
        monkeypatch,
        lambda: charts.save_panels(
            tmp_path / "a.png", panels, title.strip(), charts.settings(trials(records)), columns=2
        ),
    )
    axes = boxes(figure, figure.axes)
    assert len(axes) == (1 if arms == 2 else arms // 2)
    assert all(ax.get_legend() is None for ax in figure.axes)
    (legend,) = boxes(figure, figure.legends)
    suptitle, subtitle = boxes(figure, figure.texts)
    for box in axes:
        assert not legend.overlaps(box)
        assert not subtitle.overlaps(box)
    headline = figure.get_suptitle().strip()
    assert "".join(headline.split()) == "".join(title.split())
    assert max(suptitle.x1, subtitle.x1) <= figure.bbox.x1
    lines = len(figure.get_suptitle().rstrip("\n").splitlines())
    line_height = suptitle.height / len(figure.get_suptitle().split("\n"))
    assert subtitle.y1 <= suptitle.y1 - (lines - 0.25) * line_height
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["plain (median)", "batch norm (median)"]


def test_markers_of_a_long_curve_do_not_merge(record):
    curve = [[step, None, 0.5] for step in range(60)]
    made = tables.from_records([{**record(9), "curve": curve}], ("depth",))
    ax = Figure().add_subplot()
    charts.accuracy(charts.series(made.trials), made.curves, ax, "step")
    assert len(ax.lines[0].get_xdata()) == 60
    assert ax.lines[0].get_markevery() == 6
