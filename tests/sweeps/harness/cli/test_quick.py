"""--quick: the settings that it reduces, and the place for its results."""

import re
from pathlib import Path

import pandas as pd
import pytest
from absl import flags as absl_flags

from sweeps import catalog
from sweeps.harness.charts.figures import marked
from sweeps.harness.cli import command, quick, study
from sweeps.harness.data import load
from sweeps.report.__main__ import COMMAND as REPORT

STUDIES = [name for name in catalog.commands() if catalog.study(name)]


def values_of(name, *argv):
    """The flag values of a study, as its command line gives them."""
    values = absl_flags.FlagValues()
    study._define_flags(catalog.study(name), values)
    values([name, *argv])
    return values


def trials(name, *argv):
    """The trials that a command line asks for."""
    found = []

    def run(values):
        found.extend(catalog.study(name).trials(values, load(values.dataset, None).size))
        return 0

    assert quick.run(values_of(name, *argv), catalog.study(name).quick, run) == 0
    return found


def data_of(name):
    return [] if name == "initialization" else ["--dataset=mnist_5k"]


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_a_demonstration_with_other_trials(name):
    demonstration, full = trials(name, "--quick"), trials(name, *data_of(name))
    assert {trial.dataset for trial in demonstration} == {full[0].dataset}
    assert not {trial.id for trial in demonstration} & {trial.id for trial in full}
    assert len(demonstration) < len(full)
    assert {trial.batch_norm for trial in demonstration} == {trial.batch_norm for trial in full}


def test_its_settings_are_printed(capsys):
    trials("depth", "--quick", "--seeds=1")
    first = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(
        r"Demonstration with reduced settings: --dataset=mnist_5k --max_steps=\d+ .*; "
        r"no verdicts follow from it\.",
        first,
    )
    assert "--seeds" not in first  # the user's own setting


def test_explicit_flags_take_precedence():
    assert {t.seed for t in trials("depth", "--quick", "--seeds=4")} == {0, 1, 2, 3}
    found = trials("activation", "--activation=tanh", "--quick", "--noquick", "--quick")
    assert {trial.activation for trial in found} == {"tanh"}


def test_the_default_value_given_explicitly_takes_precedence():
    default = values_of("depth")["max_steps"].default
    found = trials("depth", "--quick", f"--max_steps={default}")
    assert {trial.max_steps for trial in found} == {default}


def test_it_keeps_the_data_set_that_is_given():
    values = values_of("depth", "--quick", "--dataset=fashion_mnist")
    assert quick.run(values, {}, lambda values: values.dataset != "fashion_mnist") == 0


@pytest.mark.parametrize("status", [0, command.FAILED])
def test_it_says_how_long_it_took_and_returns_the_status(status, tmp_path, capsys):
    values = values_of("depth", "--quick", f"--results_dir={tmp_path}")
    assert quick.run(values, {}, lambda values: status) == status
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.match(r"The demonstration took \d+ s\. Its results are in .*demonstrations,", last)


def test_without_the_flag_nothing_changes(capsys):
    values = values_of("depth")
    before = values.flag_values_dict()
    assert quick.run(values, {"seeds": 1}, lambda values: 0) == 0
    assert values.flag_values_dict() == before
    assert not capsys.readouterr().out


def test_charts_of_demonstrations_say_so():
    path = Path("demonstrations", "mnist_5k", "depth", "steps.png")
    assert marked("mnist_5k, relu", "results" / path) == "demonstration · mnist_5k, relu"
    assert marked("mnist_5k, relu", Path("results/mnist_5k/depth/a.png")) == "mnist_5k, relu"


def tables(results):
    return sorted(str(path.parent.relative_to(results)) for path in results.rglob("trials.csv"))


def test_results_are_apart_and_no_verdicts_follow(tmp_path, capsys):
    argv = ["--quick", "--seeds=1", "--epochs=1", "--activation=relu", "--workers=0"]
    of_study = catalog.study("initialization")
    assert study.main(of_study, ["", *argv, f"--results_dir={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Demonstration with reduced settings:")
    assert tables(tmp_path) == ["demonstrations/parabola/initialization"]

    for folder, message in (
        (tmp_path, "has no results"),
        (tmp_path / "demonstrations", "holds demonstrations"),
    ):
        assert command.main(REPORT, ["", f"--results_dir={folder}"]) == command.BAD_INPUT
        assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("README.md"))


@pytest.mark.full
def test_the_demonstration_of_depth_shows_the_effect(tmp_path):
    argv = ["--quick", "--workers=0", f"--results_dir={tmp_path}"]
    assert study.main(catalog.study("depth"), ["", *argv]) == 0
    (folder,) = tables(tmp_path)
    assert folder == "demonstrations/mnist_5k/depth"
    summary = pd.read_csv(tmp_path / folder / "summary.csv")
    deep = summary[summary.depth == summary.depth.max()].set_index("batch_norm").median_steps
    assert deep[True] * 2 < deep.fillna(float("inf"))[False]
