import numpy as np
import pandas as pd
import pytest
from matplotlib import image
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from sweeps.harness import charts
from sweeps.harness.charts import curves, figures, looks
from sweeps.harness.results import tables


@pytest.fixture
def ax():
    return Figure().add_subplot()


def trials(*records):
    return tables.from_records(records, ("depth", "batch_norm"))


def test_lines_are_the_medians_of_each_arm(ax, record):
    made = trials(
        *[record(steps, depth=1, seed=i) for i, steps in enumerate([10, 12, 40])],
        *[record(steps, depth=2, seed=i) for i, steps in enumerate([20, 22, 90])],
        *[
            record(steps, depth=d, seed=i, batch_norm=True)
            for d in (1, 2)
            for i, steps in enumerate([5, 6, 7])
        ],
    )
    charts.steps_to_target(charts.series(made.trials, "depth"), ax, "depth")
    lines = {line.get_label(): line.get_ydata().tolist() for line in ax.lines}
    assert lines == {"plain (median)": [12, 22], "batch norm (median)": [6, 6]}


def test_every_seed_is_a_dot(ax, record):
    made = trials(record(10, seed=0), record(14, seed=1), record(5, batch_norm=True))
    charts.steps_to_target(charts.series(made.trials, "depth"), ax, "depth")
    heights = sorted(y for dots in ax.collections for y in np.asarray(dots.get_offsets())[:, 1])
    assert heights == [5, 10, 14]


def test_misses_are_hollow_triangles_on_a_dashed_budget_line(ax, record):
    made = trials(record(10, seed=0), record(None, seed=1))
    charts.steps_to_target(charts.series(made.trials, "depth"), ax, "depth")
    hollow = [c for c in ax.collections if len(c.get_facecolors()) == 0 and len(c.get_offsets())]
    assert [np.asarray(c.get_offsets())[:, 1].tolist() for c in hollow] == [[300]]
    budget = next(
        line for line in ax.lines if line.get_linestyle() == "--" and line.get_ydata()[0] == 300
    )
    assert budget.get_ydata() == [300, 300]
    assert [t.get_text() for t in ax.texts] == ["not reached in 300 steps"]


def test_a_median_that_is_a_miss_is_left_out_of_the_line(ax, record):
    made = trials(record(10), record(None, depth=2, seed=0), record(None, depth=2, seed=1))
    charts.steps_to_target(charts.series(made.trials, "depth"), ax, "depth")
    heights = ax.lines[0].get_ydata()
    assert heights[0] == 10
    assert np.isnan(heights[1])


def test_arms_differ_in_colour_in_shape_and_in_lightness(ax, record):
    made = trials(record(10), record(5, batch_norm=True))
    charts.steps_to_target(charts.series(made.trials, "depth"), ax, "depth")
    plain, normalized = ax.lines
    assert plain.get_marker() != normalized.get_marker()
    assert plain.get_linestyle() != normalized.get_linestyle()

    def lightness(line):
        red, green, blue = (int(to_hex(line.get_color())[i : i + 2], 16) for i in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    assert abs(lightness(plain) - lightness(normalized)) > 60


def test_an_arm_keeps_its_look_where_it_is_drawn_alone(record):
    arms = [record(10), record(5, batch_norm=True)]
    both, alone = Figure().add_subplot(), Figure().add_subplot()
    charts.steps_to_target(charts.series(trials(*arms).trials, "depth"), both, "depth")
    alone_series = charts.series(trials(arms[1]).trials, "depth")
    charts.steps_to_target(alone_series, alone, "depth")
    style = [(line.get_color(), line.get_marker()) for line in (*both.lines, *alone.lines)]
    assert style[2] == style[1] != style[0]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["batch norm, decay over 167 steps", "batch norm"], [2, 1]),
        (["batch norm, Keras's layer", "batch norm, kerasbn's layer"], [1, 2]),
        (["batch norm", "batch norm, renorm", "group norm", "plain"], [1, 2, 3, 0]),
        (["plain, training", "batch norm, training"], [0, 1]),
    ],
)
def test_looks_belong_to_arms(labels, expected):
    assert looks.of_series(labels) == [looks.LOOKS[n] for n in expected]


def test_curves_are_drawn_where_accuracy_was_measured_and_paced_by_seconds(ax, record):
    made = trials(record(10))
    charts.accuracy(charts.series(made.trials), made.curves, ax, "seconds")
    line = ax.lines[0]
    # record(): step 2 alone has an accuracy, 0.25, at 0.1 seconds a step.
    assert line.get_xdata().tolist() == [pytest.approx(0.2)]
    assert line.get_ydata().tolist() == [0.25]
    assert "seconds" in ax.get_xlabel()


def test_the_subtitle_names_data_set_and_settings(record):
    text = charts.settings(trials(record(10), record(5, batch_norm=True, seed=1)).trials)
    assert text == (
        "mnist_5k · relu · adam at 0.01 · batch 500 · "
        "batch norm: momentum 0.9, epsilon 0.001 · 2 seeds"
    )
    several = trials(record(10), record(5, learning_rate=0.5)).trials
    assert "adam at 0.01 and 0.5" in charts.settings(several)
    many = trials(*[record(10, learning_rate=n / 10) for n in range(1, 7)]).trials
    assert "adam at 0.1 to 0.6" in charts.settings(many)


def test_a_long_subtitle_breaks_between_its_parts():
    parts = ["mnist", "relu", "adam at 0.01", "batch 500", "batch norm: momentum 0.9", "10 seeds"]
    figure = figures.new_figure(3.0, 3.0, "title", " · ".join(parts))
    lines = figure.texts[-1].get_text().replace("\u00a0", " ").split("\n")
    assert len(lines) > 1
    assert [part for line in lines for part in line.split(" · ")] == parts


def test_a_chart_is_a_png_of_150_dots_an_inch(tmp_path, record):
    made = trials(record(10), record(None, seed=1))
    path = charts.save(
        tmp_path / "a.png",
        lambda ax: charts.steps_to_target(charts.series(made.trials, "depth"), ax, "depth"),
        "title",
        "sub",
    )
    assert image.imread(path).shape[:2] == (690, 1080)


def bars_of(ax):
    """The lower and upper end of each vertical bar, and the triangles at ends beyond the budget."""
    from matplotlib.collections import LineCollection

    bars = [c for c in ax.collections if isinstance(c, LineCollection)]
    ends = [tuple(segment[:, 1]) for c in bars for segment in c.get_segments()]
    open_ = [
        (line.get_marker(), *line.get_ydata())
        for line in ax.lines
        if line.get_marker() in ("^", "v") and len(line.get_ydata()) and line.get_zorder() == 4
    ]
    return ends, open_


def test_medians_have_their_95_percent_intervals(ax, record):
    steps = [10, 11, 12, 14, 17, 40, 41, 50, 60, 70]
    made = trials(*[record(each, seed=n) for n, each in enumerate(steps)])
    charts.steps_to_target(charts.series(made.trials, "depth"), ax, "depth")
    assert bars_of(ax) == ([(11, 60)], [])  # second and ninth of ten
    assert ax.lines[-1].get_label() == "plain (median, 95% interval)"


def test_an_interval_beyond_the_budget_ends_at_the_budget_with_a_triangle(ax, record):
    made = trials(
        *[record(each, seed=n) for n, each in enumerate([10, 11, 12, 14, 17, None])],
        *[record(None, depth=2, seed=n) for n in range(6)],
    )
    charts.steps_to_target(charts.series(made.trials, "depth"), ax, "depth")
    ends, open_ = bars_of(ax)
    assert ends == [(10, 300), (300, 300)]
    assert open_ == [("^", 300, 300)]


def test_five_seeds_have_no_interval(ax, record):
    made = trials(*[record(10 + n, seed=n) for n in range(5)])
    charts.steps_to_target(charts.series(made.trials, "depth"), ax, "depth")
    assert bars_of(ax) == ([], [])
    assert ax.lines[0].get_label() == "plain (median)"


def test_a_line_of_medians_has_a_band(ax):
    rows = pd.DataFrame(
        {"statistics": "batch", "step": [5] * 6 + [10] * 6, "accuracy": np.arange(12) / 20}
    )
    charts.statistics(rows, ax, 0.9)
    low, high = ax.collections[0].get_datalim(ax.transData).intervaly
    assert (low, high) == pytest.approx((0, 0.55))
    assert ax.get_ylabel() == "median test accuracy, 95% interval"


def test_a_file_has_the_colours_of_all_lines(tmp_path):
    generator = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "statistics": np.repeat(list("abcdefgh"), 6 * 50),
            "step": np.tile(np.repeat(np.arange(50), 6), 8),
            "accuracy": generator.uniform(0, 1, 8 * 6 * 50),
        }
    )
    path = figures.save(
        tmp_path / "chart.png", lambda ax: charts.statistics(rows, ax, 0.9), "A title", "a subtitle"
    )
    pixels = np.unique(image.imread(path)[..., :3].reshape(-1, 3), axis=0)
    for color in curves._COLORS:
        assert np.abs(pixels - to_rgb(color)).max(1).min() < 0.03, color
