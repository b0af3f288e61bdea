"""Every study as a user runs it, on small data; in one process, as TensorFlow starts slowly."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from absl import flags
from matplotlib import image
from PIL import Image

from sweeps import catalog
from sweeps.catalog import commands
from sweeps.harness import claims
from sweeps.harness.cli import flags as cli_flags

SMALL = {
    "activation": ["--activation=relu", "--max_steps=4", "--hidden_units=9"],
    "learning_rate": [
        *["--activation=linear", "--learning_rate=1e30", "--decay_steps=0,5"],
        *["--max_steps=20", "--hidden_units=9", "--curve_every=10"],
    ],
    "lenet": [
        *["--epochs=2", "--batch_size=100", "--nojit_compile", "--hidden_units=2,2,9,8"],
        "--learning_rate=0.9",
    ],
    "initialization": [
        *["--epochs=2", "--hidden_units=5,5", "--activation=tanh", "--animate", "--tensorboard"]
    ],
    "distribution": ["--max_steps=40", "--record_every=20", "--hidden_units=12"],
    "gradients": ["--deep=12", "--record_steps=0,2", "--hidden_units=9,8", "--activation=relu"],
    "batch_size": [
        *["--batch_size=1,40", "--examples=80", "--hidden_units=9", "--group_norm=3"],
        *["--nojit_compile", "--batch_norm", "--gap_epochs=1"],
    ],
    "regularization": [  # an epoch is 8 steps, so training ends in the second one
        *["--epochs=2", "--max_steps=11", "--hidden_units=9", "--dropout=0.5", "--l2=0.001"]
    ],
    "moving_average": ["--max_steps=10", "--hidden_units=9,8"],
    "tuned": [
        *["--hidden_units=9", "--learning_rate=0.001,0.1", "--report_seeds=1"],
        *["--tuning_steps=20", "--max_steps=30", "--target_accuracy=0.5"],
    ],
    "noise": ["--max_steps=20", "--record_every=10", "--hidden_units=12"],
    "only_batch_norm": ["--max_steps=4", "--eval_every=2", "--hidden_units=9"],
    "corruption": [
        *["--max_steps=8", "--batch_size=40", "--hidden_units=2,2,9,8", "--nojit_compile"]
    ],
    "residual": [
        *["--blocks=3", "--width=8", "--learning_rate=0.1", "--batch_size=50", "--max_steps=4"],
        *["--batch_blocks=2", "--batch_sizes=20,50", "--batch_rates=0.1,1", "--examples=100"],
    ],
    "rank": ["--width=8,128", "--layers=3", "--measure_every=2", "--batch_size=128"],
    "exponential_rate": ["--max_steps=9", "--hidden_units=9", "--batch_size=50"],
    "variance_shift": ["--epochs=2", "--hidden_units=12,9", "--keep_rate=0.5,1"],
}
TRIALS = {
    "activation": 2,
    "learning_rate": 1 + 2,
    "lenet": 2,
    "initialization": 2,
    "distribution": 2,
    "gradients": (1 + 2) * 2,
    "batch_size": 2 + 3 + 3,
    "regularization": 2,
    "moving_average": 1,
    "tuned": 2 * 2 + 2 * 2,
    "noise": 2 * 2,
    "only_batch_norm": 2 * (4 + 1),
    "corruption": 2,
    "residual": 3 + 2 * 2 * 2,
    "rank": 2 * 2 * 2,
    "exponential_rate": 4 * 2,
    "variance_shift": 2,
}
DECIDED = {7, 10, 12, 14, 16, 17, 29, 30, 31, 32, 33, 34, 35, 37, 39, 40, 41, 42}


@pytest.fixture(scope="module")
def results(small_data, tmp_path_factory, in_one_process):
    """A results folder with one seed of every study."""
    folder = tmp_path_factory.mktemp("results")
    common = [f"--results_dir={folder}", "--seeds=1", "--workers=0"]
    images = ["--dataset=custom", f"--data_dir={small_data}"]
    batch = {
        name: ["--batch_size=50"] for name in ("activation", "gradients", "regularization", "tuned")
    }
    batch["noise"] = batch["only_batch_norm"] = batch["activation"]
    batch["moving_average"] = batch["activation"]
    batch["moving_average"] = batch["variance_shift"] = batch["activation"]
    commands = [
        (
            name,
            [*common, *([] if name == "initialization" else images), *batch.get(name, []), *argv],
        )
        for name, argv in SMALL.items()
    ]
    done = in_one_process(*commands)
    assert [each.returncode for each in done] == [0] * len(SMALL), [each.stderr for each in done]
    (folder / "stdout").write_text("".join(each.stdout for each in done))
    return folder


def folder(results, study):
    return results / ("parabola" if study == "initialization" else "custom") / study


@pytest.mark.parametrize("study", SMALL)
def test_a_study_runs_its_grid_and_draws_its_charts(results, study):
    trials = pd.read_csv(folder(results, study) / "trials.csv")
    assert len(trials) == TRIALS[study]
    assert set(trials.status) <= {"done", "diverged"}
    charts = list(folder(results, study).glob("*.png"))
    assert charts
    for chart in charts:
        assert image.imread(chart).std() > 0.03  # something is drawn
        assert str(chart.name) in (results / "stdout").read_text()


@pytest.mark.parametrize(
    ("study", "name", "rows"),
    [
        ("lenet", "evaluation", 2 * 2),
        ("initialization", "evaluation", 2 * 3 * 2),
        ("initialization", "predictions", 2 * 200),
        ("initialization", "histograms", 2 * 3 * 2 * 2),
        ("distribution", "percentiles", 2 * 3 * 10),
        ("distribution", "histograms", 2 * 3 * 2 * 1),
        ("gradients", "gradients", 2 * 2 * (12 + 1 + 2)),
        ("regularization", "evaluation", 2 * 2),
        ("moving_average", "statistics", 2 * 8),
        ("noise", "percentiles", 4 * 5 * 10),
        ("noise", "landscape", 4 * 5 * 5),
        ("noise", "recalibrated", 2 * 5),
        ("only_batch_norm", "gammas", 5 * (9 + 6 + 16 + 120 + 84)),
        ("only_batch_norm", "parameters", 2 * 5),
        ("corruption", "corruption", 2 * 21 + 21 + 4 * 2),
        ("corruption", "examples", 2 * 21),
        ("residual", "branches", 3 * 3),
        ("rank", "ranks", 2 * 2 * 2 * 4),
        ("exponential_rate", "difference", 4 * 2 * 10),
        ("variance_shift", "variances", 2 * (12 + 9)),
        ("variance_shift", "accuracies", 2 * 3),
    ],
)
def test_what_was_recorded_is_in_its_table(results, study, name, rows):
    frame = pd.read_csv(folder(results, study) / f"{name}.csv.xz")
    assert list(frame.columns[:2]) == ["trial_id", "step"]
    assert len(frame) == rows


def test_a_limit_on_the_steps_ends_an_epoch_early_with_an_evaluation(results):
    place = folder(results, "regularization")
    trials = pd.read_csv(place / "trials.csv")
    assert trials.final_step.tolist() == [11, 11]
    assert trials.final_accuracy.notna().all()
    curves = pd.read_csv(place / "curves.csv.xz")
    assert curves.dropna().groupby("trial_id").step.agg(list).tolist() == [[8, 11]] * 2
    assert set(pd.read_csv(place / "evaluation.csv.xz").step) == {11}


def test_every_batch_size_sees_equally_many_examples(results):
    trials = pd.read_csv(folder(results, "batch_size") / "trials.csv")
    trials = trials[trials.record.isna()]
    assert (trials.final_step * trials.batch_size == 80).all()
    normed = trials[trials.batch_norm]
    looks_back = np.log(normed.bn_momentum) / normed.batch_size
    np.testing.assert_allclose(looks_back, np.log(0.9) / 500)
    np.testing.assert_allclose(trials.learning_rate, 0.01 * np.sqrt(trials.batch_size / 500))


def test_large_batches_ghost_batches_and_small_batches_train_for_an_epoch(results):
    trials = pd.read_csv(folder(results, "batch_size") / "trials.csv")
    trials = trials[trials.record.notna()].sort_values(["batch_size", "bn_virtual_batch_size"])
    assert trials.batch_size.tolist() == [32, 40, 40]
    assert trials.bn_virtual_batch_size.fillna(0).tolist() == [0, 32, 0]
    assert trials.final_step.tolist() == [12, 10, 10]  # whole batches of 400 images


def test_a_diverged_run_is_marked(results):
    trials = pd.read_csv(folder(results, "learning_rate") / "trials.csv")
    plain = trials[~trials.batch_norm].iloc[0]
    assert plain.status == "diverged"
    assert plain.final_step < 10  # within the first call of ten steps


def test_the_animation_has_a_frame_an_epoch(results):
    with Image.open(folder(results, "initialization") / "histograms_tanh.gif") as movie:
        assert movie.n_frames == 3


def test_tensorboard_gets_histograms(results):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    place = folder(results, "initialization")
    trials = pd.read_csv(place / "trials.csv")
    run = next((place / "tensorboard").glob(f"*{trials.trial_id[0]}*"))
    events = EventAccumulator(str(run), size_guidance={"tensors": 0})
    events.Reload()
    found = events.Tensors("activation/layer1")
    assert [event.step for event in found] == [0, 28, 56]
    histograms = pd.read_csv(place / "histograms.csv.xz")
    row = histograms[
        (histograms.trial_id == trials.trial_id[0])
        & (histograms.tensor == "activation")
        & (histograms.layer == 1)
        & (histograms.step == 56)
    ].iloc[0]
    shape = [dim.size for dim in found[-1].tensor_proto.tensor_shape.dim]
    buckets = np.frombuffer(found[-1].tensor_proto.tensor_content, np.float64).reshape(shape)
    assert buckets[:, 2].astype(int).tolist() == [int(n) for n in row.counts.split("-")]
    assert buckets[0, 0] == pytest.approx(row.low)
    assert buckets[-1, 1] == pytest.approx(row.high)


def report(results):
    command = [sys.executable, "-m", "sweeps.report", f"--results_dir={results}"]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def reported(results, tmp_path_factory):
    """The results with a report, tables and charts having been lost before."""
    copy = tmp_path_factory.mktemp("reported") / "results"
    shutil.copytree(results, copy)
    for path in views(copy):
        path.unlink()
    done = report(copy)
    assert done.returncode == 0, done.stderr
    assert "lenet from 2 trials" in done.stdout
    return copy


def views(results):
    return [path for path in results.rglob("*") if path.suffix in (".csv", ".xz", ".png")]


def test_the_report_makes_tables_and_charts_anew_from_the_trials(results, reported):
    original = {path.relative_to(results): path.read_bytes() for path in views(results)}
    rebuilt = {path.relative_to(reported): path.read_bytes() for path in views(reported)}
    assert sorted(rebuilt) == sorted(original)
    assert [path for path in original if rebuilt[path] != original[path]] == []


def test_the_report_has_every_claim_and_every_chart(reported):
    text = (reported / "README.md").read_text()
    page = (reported / "index.html").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "**" in line]
    numbers = list(catalog.claims())
    assert [int(row.split("|")[1]) for row in rows] == numbers
    assert all("**Undecided.**" in row for row in rows)  # none of the trials is a default one
    assert f"0 not reproduced, {len(numbers)} undecided." in text
    assert all(f'id="claim-{number}"' in page for number in numbers)
    assert page.count('<span class="verdict undecided">') == 2 * len(numbers)  # list and details
    for path in [*reported.rglob("*.png"), *reported.rglob("*.gif")]:
        chart = path.relative_to(reported)
        assert f"]({chart})" in text
        assert f'href="{chart}"' in page
        assert path.suffix == ".gif" or f'data-picture="{chart}">data:image/' in page


def test_rules_read_the_tables_that_studies_write(results):
    decided = set()
    for number, (study, claim) in catalog.claims().items():
        place = folder(results, study) if study != "cost" else results / "custom" / study
        with contextlib.suppress(claims.UndecidedError):
            assert claim.rule(claims.StudyTables(place)).measured
            decided.add(number)
    assert decided == DECIDED  # the small grids above suffice for these


def test_a_report_in_a_fresh_clone_takes_the_tables_that_are_there(tmp_path):
    tracked = Path(__file__).parents[2] / "results" / "mnist" / "depth"
    shutil.copytree(tracked, tmp_path / "mnist" / "depth", ignore=shutil.ignore_patterns("trials"))
    before = {path: path.read_bytes() for path in views(tmp_path)}
    done = report(tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in views(tmp_path)} == before
    assert not (tmp_path / "mnist" / "depth" / "trials").exists()
    rows = (tmp_path / "README.md").read_text().splitlines()
    decided = [row for row in rows if row.startswith(("| 1 ", "| 2 ")) and "**" in row]
    assert len(decided) == 2
    assert all("times" in row for row in decided)
    text = (tmp_path / "README.md").read_text()
    assert "\n**Claim 1** on mnist: Without batch norm, steps to the target accuracy grow" in text
    assert "\n| Hidden layers | Median steps |" in text
    assert all("`python -m sweeps.depth --dataset=mnist`" in row for row in decided)


def test_the_report_has_a_verdict_for_each_data_set(tmp_path):
    tracked = Path(__file__).parents[2] / "results" / "mnist" / "depth"
    for dataset in ("fashion_mnist", "mnist"):
        shutil.copytree(tracked, tmp_path / dataset / "depth")
    done = report(tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "README.md").read_text()
    rows = [row for row in text.splitlines() if row.startswith("| 1 |") and "**" in row]
    datasets = [row.partition("--dataset=")[2].partition("`")[0] for row in rows]
    assert datasets == ["mnist", "fashion_mnist"]
    assert "2 claims on fashion_mnist: 0 reproduced" in text


def test_published_tables_are_never_replaced(tmp_path):
    """A folder with tables but without records, as published results are."""
    tracked = Path(__file__).parents[2] / "results" / "mnist" / "depth"
    place = tmp_path / "mnist_5k" / "depth"
    shutil.copytree(tracked, place, ignore=shutil.ignore_patterns("trials"))
    before = {path: path.read_bytes() for path in place.rglob("*")}
    command = [sys.executable, "-m", "sweeps.depth", f"--results_dir={tmp_path}"]
    command += ["--dataset=mnist_5k", "--seeds=1", "--hidden_units=100", "--max_steps=20"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    count = len(pd.read_csv(tracked / "trials.csv"))
    assert f"trials.csv has {count} trials without records" in done.stderr
    assert "Choose another --results_dir" in done.stderr
    assert {path: path.read_bytes() for path in place.rglob("*")} == before


def test_runs_go_to_a_folder_that_git_ignores():
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        pytest.skip("this is no git checkout")
    study = catalog.study("depth")
    values = flags.FlagValues()
    cli_flags.define(values, study.defaults)
    ignored = subprocess.run(
        ["git", "-C", root, "check-ignore", "--quiet", f"{values['results_dir'].default}/mnist"]
    )
    assert ignored.returncode == 0


def test_a_report_on_half_filled_folders_says_what_is_missing(results, tmp_path):
    for study in ("learning_rate", "lenet"):
        shutil.copytree(folder(results, study), tmp_path / "custom" / study)
        shutil.rmtree(tmp_path / "custom" / study / "trials")
    (tmp_path / "custom" / "learning_rate" / "curves.csv.xz").unlink()
    (tmp_path / "custom" / "lenet" / "trials.csv").unlink()
    (tmp_path / "custom" / "depth" / "trials").mkdir(parents=True)  # begun, nothing finished
    done = report(tmp_path)
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "README.md").read_text().splitlines()
    missing = {row.split("|")[1].strip(): row for row in rows if "**Undecided.**" in row}
    assert "of the 48 trials that the claim needs are missing" in missing["6"]
    assert "There is no lenet/trials.csv" in missing["9"]
    assert "The study was not run" in missing["1"]


def test_a_report_on_trials_of_another_version_names_one(results, tmp_path):
    place = tmp_path / "custom" / "lenet"
    shutil.copytree(folder(results, "lenet"), place)
    path = next((place / "trials").glob("*.json"))
    path.write_text(path.read_text().replace('"learning_rate"', '"rate"'))
    done = report(tmp_path)
    assert done.returncode == 2
    assert f"{path.name} of lenet was written by another version" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_report_on_an_empty_folder_says_that_nothing_was_run(tmp_path):
    empty = report(tmp_path)
    assert empty.returncode == 2
    assert f"--results_dir={tmp_path} has no results" in empty.stderr
    assert f"python -m sweeps.depth --results_dir={tmp_path}" in empty.stderr
    assert not list(tmp_path.iterdir())
    missing = report(tmp_path / "no")
    assert missing.returncode == 2
    assert "is not a folder" in missing.stderr


@pytest.mark.parametrize("kept", ["tables", "trials"])
@pytest.mark.parametrize(
    ("below", "whose"), [("custom/lenet", "one study"), ("custom", "one data")]
)
def test_a_report_on_a_folder_inside_the_results_names_the_right_one(
    results, tmp_path, below, whose, kept
):
    lenet = tmp_path / "custom" / "lenet"
    shutil.copytree(folder(results, "lenet"), lenet)
    if kept == "tables":
        shutil.rmtree(lenet / "trials")
    else:
        for path in views(lenet):
            path.unlink()
    done = report(tmp_path / below)
    assert done.returncode == 2
    assert f"is the folder of {whose}" in done.stderr
    assert done.stderr.endswith(f"Give --results_dir={os.path.relpath(tmp_path)}\n")
    assert not list(tmp_path.rglob("README.md"))


def test_a_report_on_a_table_of_another_version_names_it(tmp_path):
    place = tmp_path / "mnist" / "depth"
    place.mkdir(parents=True)
    (place / "trials.csv").write_text("trial_id,status\na,done\n")
    done = report(tmp_path)
    assert done.returncode == 2
    assert "trials.csv lacks the column" in done.stderr
    assert len(done.stderr.splitlines()) == 1


BAD = {
    ("activation", "--activation=relu,cubic"): "cubic",
    ("learning_rate", "--learning_rate=0.1,0"): "learning_rate",
    ("learning_rate", "--learning_rate="): "learning_rate",
    ("learning_rate", "--decay_steps=-1"): "decay_steps",
    ("batch_size", "--batch_size=4,0"): "batch_size",
    ("batch_size", "--max_steps=3"): "batch_size has no --max_steps: training ends when",
    ("batch_size", "--group_norm=7"): "--group_norm=7",
    ("regularization", "--dropout=1"): "dropout",
    ("regularization", "--batch_size=401"): "--batch_size=401 is more than the 400 training",
    ("initialization", "--dataset=mnist"): "parabola",
    ("gradients", "--record_steps=0,-1"): "record_steps",
    ("rank", "--batch_size=100"): "is less than the largest --width of 512",
    ("exponential_rate", "--weight_decay=0"): "weight_decay",
    ("variance_shift", "--keep_rate=0.5,0"): "keep_rate",
    ("lenet", "--hidden_units=6,16,120"): "--hidden_units=6,16,120",
    ("corruption", "--hidden_units=6,16,120"): "--hidden_units=6,16,120",
    ("corruption", "--eval_every=2"): "networks are evaluated after their last step",
    ("residual", "--hidden_units=64,64"): "use --blocks and --width",
    ("residual", "--batch_rates=0.1,0"): "batch_rates",
}


@pytest.mark.parametrize(("study", "flag"), BAD)
def test_bad_flags_end_with_one_clear_line(small_data, tmp_path, study, flag):
    data = [] if study == "initialization" else ["--dataset=custom"]
    command = [sys.executable, "-m", f"sweeps.{study}", *data, f"--data_dir={small_data}"]
    done = subprocess.run(
        [*command, f"--results_dir={tmp_path}", flag], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert BAD[study, flag] in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("*.json"))


def test_all_commands_are_listed_with_a_line_each():
    done = subprocess.run([sys.executable, "-m", "sweeps"], capture_output=True, text=True)
    assert done.returncode == 0
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert listed == set(commands())
    assert {*SMALL, "depth", "tools", "report"} <= listed
    assert "claims" not in listed
