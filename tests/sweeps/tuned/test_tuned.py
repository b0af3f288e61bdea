"""`python -m sweeps.tuned` as a user runs it, on small data: two parts, and one command."""

import shutil

import numpy as np
import pandas as pd
import pytest

from sweeps.harness.cli import study
from sweeps.tuned import selection
from sweeps.tuned.__main__ import STUDY

FLAGS = [
    *["--dataset=custom", "--hidden_units=20,10", "--batch_size=50", "--target_accuracy=0.6"],
    *["--learning_rate=0.1,0.001,0.01", "--seeds=2", "--report_seeds=2", "--tuning_steps=60"],
    *["--max_steps=80", "--exact_until=8", "--workers=0"],
]
RESULT = ["trial_id", "status", "reached", "steps_to_target", "final_accuracy"]
SELECTING, NETWORKS = 2 * 2 * 3 * 2, 2 * 2


def read(folder):
    return pd.read_csv(folder / "custom" / "tuned" / "trials.csv", dtype={"trial_id": str})


@pytest.fixture(scope="module")
def runs(small_data, tmp_path_factory, in_one_process):
    """A whole run, one continued from its first part and another one, and one of an arm."""
    whole, continued, arm = (tmp_path_factory.mktemp(name) for name in ("all", "again", "arm"))

    def command(folder, *more):
        argv = [*FLAGS, f"--data_dir={small_data}", f"--results_dir={folder}", *more]
        return "tuned", argv

    done = in_one_process(
        command(whole), command(whole), command(arm, "--batch_norm"), command(arm)
    )
    shutil.copytree(whole, continued, dirs_exist_ok=True)
    trials, records = read(whole), continued / "custom" / "tuned" / "trials"
    lost = [
        *selection.on("test", trials).trial_id[1::2],  # as if the command was killed
        selection.on("validation", trials).trial_id.iloc[0],
    ]
    for trial_id in lost:
        (records / f"{trial_id}.json").unlink()
    done += in_one_process(command(continued))
    assert [each.returncode for each in done] == [0] * len(done), [each.stderr for each in done]
    return {
        "done": dict(zip(["whole", "again", "arm", "both", "continued"], done, strict=True)),
        "folders": {"whole": whole, "arm": arm, "continued": continued},
        "lost": lost,
    }


@pytest.fixture(scope="module")
def whole(runs):
    return runs["folders"]["whole"]


def test_the_selection_has_all_rates_and_the_report_other_seeds(whole):
    trials = read(whole)
    first, second = (selection.on(name, trials) for name in ("validation", "test"))
    assert len(first) == SELECTING
    assert set(first.seed) == {0, 1}
    assert set(second.seed) == {2, 3}
    assert set(first.max_steps) == {60}
    assert set(second.max_steps) == {80}
    assert set(second.eval_every) == {1}
    assert set(trials.validation_examples) == {400 // 6}


def test_the_report_has_the_selected_and_the_published_rate(whole):
    trials = read(whole)
    trials["steps"] = trials.steps_to_target.fillna(np.inf)
    validation = trials[trials.evaluated_on == "validation"]
    groups = validation.groupby(["depth", "batch_norm", "learning_rate"])
    medians, hits = groups.steps.median(), groups.reached.sum()
    assert np.isfinite(medians).any()
    for network, group in trials[trials.evaluated_on == "test"].groupby(["depth", "batch_norm"]):
        best = medians.loc[network]
        finite = np.isfinite(best.min())
        rate = best[best == best.min()].index.min() if finite else hits.loc[network].idxmax()
        assert set(group.learning_rate) == {rate, 0.01}


def test_the_target_is_checked_as_documented(whole):
    trials = read(whole)
    for row in trials[trials.reached & (trials.evaluated_on == "validation")].itertuples():
        assert row.steps_to_target <= 8 or row.steps_to_target % 5 == 0
    missed = trials[~trials.reached]
    assert (missed.final_step == missed.max_steps).all()


def test_tables_and_charts_are_written(whole, runs):
    folder = whole / "custom" / "tuned"
    for name in ("selection.csv", "report.csv", "budget.csv"):
        frame = pd.read_csv(folder / name)
        assert list(frame.columns[:3]) == ["depth", "batch_norm", "evaluated_on"]
        assert name in runs["done"]["whole"].stdout
    assert len(pd.read_csv(folder / "selection.csv")) == NETWORKS
    assert len(pd.read_csv(folder / "report.csv")) == 2 * NETWORKS
    assert len(pd.read_csv(folder / "budget.csv")) == 3 * NETWORKS
    for name in ("steps_by_rate.png", "steps_by_depth.png", "steps_by_budget.png"):
        assert (folder / name).stat().st_size > 5000


def test_the_printed_table_says_which_set_it_is_about(runs):
    assert "test steps at 0.01" in runs["done"]["whole"].stdout
    assert "tuned rate" in runs["done"]["whole"].stdout


def test_progress_shows_both_parts(runs):
    out, err = runs["done"]["whole"].stdout, runs["done"]["whole"].stderr
    assert f"tuned, part 1 of 2: {SELECTING} trials to run" in out
    assert "tuned, part 2 of 2: " in out
    assert f"{SELECTING}/{SELECTING} " in err


def test_a_second_start_has_nothing_left_to_do(runs, whole):
    out = runs["done"]["again"].stdout
    assert f"Nothing was left to run: {len(read(whole))} trials of this command had" in out


def test_a_killed_run_continues_with_what_is_missing(runs, whole):
    out = runs["done"]["continued"].stdout
    assert "tuned, part 1 of 2: 1 trial to run" in out
    assert f"tuned, part 2 of 2: {len(runs['lost']) - 1} trials to run" in out
    pd.testing.assert_frame_equal(read(runs["folders"]["continued"])[RESULT], read(whole)[RESULT])


def test_one_arm_and_then_both_give_the_same_as_both(runs, whole):
    assert "plain" not in runs["done"]["arm"].stdout
    assert f"part 1 of 2: {SELECTING // 2} trials to run" in runs["done"]["both"].stdout
    pd.testing.assert_frame_equal(read(runs["folders"]["arm"])[RESULT], read(whole)[RESULT])


BAD = {
    "--validation_examples=400": "--validation_examples=400 leaves none of the 400 training images",
    "--validation_examples=360": "--batch_size=50 is more than the 40 training images",
    "--eval_every=61": "--eval_every=61 is more than --tuning_steps=60",
    "--tuning_steps=0": "tuning_steps=0",
    "--report_seeds=0": "report_seeds=0",
    "--learning_rate=0.1,0": "learning_rate",
    "--exact_until=-1": "exact_until=-1",
}


@pytest.mark.parametrize("flag", BAD)
def test_bad_flags_end_with_one_clear_line(small_data, tmp_path, capsys, flag):
    argv = [*FLAGS, f"--data_dir={small_data}", f"--results_dir={tmp_path}", flag]
    assert study.main(STUDY, ["tuned", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert BAD[flag] in line
    assert not list(tmp_path.rglob("*.json"))
