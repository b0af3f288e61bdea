"""`python -m sweeps.depth` as a user runs it: real processes, real files, real training."""

import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib import image

from sweeps.depth.__main__ import STUDY
from sweeps.harness.cli.study import main

RESULT = ["trial_id", "status", "reached", "steps_to_target", "final_accuracy", "final_loss"]


@pytest.fixture(scope="module")
def arms(module_driver, tmp_path_factory):
    """One arm, then the other, then both again: the three runs, and the driver.

    The first arm's flags come from a file.
    """
    file = tmp_path_factory.mktemp("flags") / "flags"
    file.write_text("--seeds=2\n--hidden_units=20,10\n--batch_norm\n")
    return (
        module_driver.run(f"--flagfile={file}", without=("seeds", "hidden_units")),
        module_driver.run("--nobatch_norm"),
        module_driver.run(),
        module_driver,
    )


def test_one_arm_and_then_the_other_give_one_table_with_both(arms):
    first, second, _, driver = arms
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    trials = driver.trials()
    assert trials.groupby(["depth", "batch_norm"]).size().to_dict() == {
        (1, False): 2,
        (1, True): 2,
        (2, False): 2,
        (2, True): 2,
    }
    assert (trials.status == "done").all()
    assert " plain " not in first.stdout
    assert " plain " in second.stdout
    assert " batch norm " in second.stdout
    assert "Median steps to 80% test accuracy" in second.stdout


def test_flags_can_come_from_a_file(arms):
    finished = [line for line in arms[0].stderr.splitlines() if "layer" in line]
    assert len(finished) == 4  # of each of the two depths, two seeds
    assert all("batch norm" in line for line in finished)


def test_a_second_start_has_nothing_left_to_do(arms):
    _, _, third, driver = arms
    assert third.returncode == 0, third.stderr
    assert "steps" not in third.stderr  # no trial was told of
    assert "Nothing was left to run: 8 trials of this command had finished before." in third.stdout
    table = third.stdout.index("Median steps")
    assert third.stdout.index("Nothing was left") < table
    assert "Nothing was left" not in arms[0].stdout
    assert driver.finished() == 8


def test_the_data_that_were_used_are_named_first_in_every_row_and_in_the_folder(arms):
    first, _, _, driver = arms
    assert first.stdout.startswith("Data: custom (400 training and 100 test images) from ")
    assert set(driver.trials().dataset) == {"custom"}
    assert driver.folder.parts[-2:] == ("custom", "depth")


def test_rows_hold_what_the_numbers_were_made_with(arms):
    row = arms[3].trials().iloc[0]
    assert (row.study, row.hidden_units, row.learning_rate, row.batch_size) == (
        "depth",
        "20",
        0.01,
        50,
    )
    assert (row.threads, row.max_steps, row.target_accuracy, row.eval_every) == (1, 30, 0.8, 1)
    assert row.finished_at.endswith("+00:00")
    assert len(row.code) == 16


def test_summary_and_curves_agree_with_the_trials(arms):
    driver = arms[3]
    trials = driver.trials()
    summary = pd.read_csv(driver.folder / "summary.csv")
    for row in summary.itertuples():
        group = trials[(trials.depth == row.depth) & (trials.batch_norm == row.batch_norm)]
        steps = sorted(math.inf if math.isnan(s) else s for s in group.steps_to_target)
        assert (row.min_steps, row.max_steps) == (steps[0], steps[-1])
        assert row.median_steps == sum(steps) / 2
        assert (row.reached, row.total) == (group.reached.sum(), 2)
    curves = pd.read_csv(driver.folder / "curves.csv.xz")
    last = curves.groupby("trial_id").tail(1).set_index("trial_id")
    for row in trials.itertuples():
        assert last.step[row.trial_id] == row.final_step
        assert last.test_accuracy[row.trial_id] == row.final_accuracy
        # The curves have nine significant digits, which identify every float32 number.
        assert np.float32(last.train_loss[row.trial_id]) == np.float32(row.final_loss)


def test_charts_and_the_paths_of_all_that_was_written(arms):
    _, _, third, driver = arms
    for name in ("trials.csv", "curves.csv", "summary.csv"):
        assert name in third.stdout
    for name in ("steps_to_target.png", "accuracy_by_step.png", "accuracy_by_seconds.png"):
        assert name in third.stdout
        assert image.imread(driver.folder / name).std() > 0.05  # something is drawn


def test_two_runs_with_the_same_flags_give_the_same_rows(arms, driver):
    again = driver.run()
    assert again.returncode == 0, again.stderr
    pd.testing.assert_frame_equal(driver.trials()[RESULT], arms[3].trials()[RESULT])


def test_other_code_stops_a_resumed_run_unless_it_is_told_to_go_on(arms):
    driver = arms[3]
    path = next((driver.folder / "trials").glob("*.json"))
    original = path.read_text()
    code = driver.trials().code[0]
    path.write_text(original.replace(code, "0" * 16))
    try:
        stopped = driver.run()
        assert stopped.returncode == 2
        assert "1 of 8 with other code" in stopped.stderr
        assert "--overwrite" in stopped.stderr
        assert "--mix_versions" in stopped.stderr
        assert driver.run("--mix_versions").returncode == 0
    finally:
        path.write_text(original)


BAD = {
    "--dataset=minst": "minst",
    "--data_dir=/no/such/folder": "/no/such/folder",
    "--hidden_units=50,0": "hidden_units=50,0",
    "--hidden_units=50,many": "hidden_units=50,many",
    "--hidden_units=": "hidden_units",
    "--seeds=0": "seeds=0",
    "--seeds=-3": "seeds=-3",
    "--learning_rate=0": "learning_rate=0",
    "--learning_rate=-0.1": "learning_rate=-0.1",
    "--learning_rate=fast": "learning_rate=fast",
    "--learning_rate=nan": "learning_rate=nan",
    "--target_accuracy=0": "target_accuracy=0",
    "--target_accuracy=1.5": "target_accuracy=1.5",
    "--bn_momentum=1.1": "bn_momentum=1.1",
    "--bn_epsilon=0": "bn_epsilon=0",
    "--batch_size=0": "batch_size=0",
    "--batch_size=500": "--batch_size=500 is more than the 400 training images",
    "--eval_every=31": "--eval_every=31 is more than --max_steps=30",
    "--workers=-1": "workers=-1",
    "--activation=cubic": "cubic",
    "--no_such_flag=1": "no_such_flag",
    "mnist": "'mnist' is not a flag",
}


def assert_refused(driver, status, err, told):
    assert status == 2
    assert told in err
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert not list(driver.folder.rglob("*.json"))


@pytest.mark.parametrize("flag", BAD)
def test_bad_flags_end_with_one_clear_line_and_nothing_written(driver, capsys, flag):
    # In this process, as each start of another takes a while.
    status = main(STUDY, ["depth", *driver.flags(flag)])
    assert_refused(driver, status, capsys.readouterr().err, BAD[flag])


def test_a_scheduler_that_is_none_ends_the_process_with_one_clear_line(driver):
    result = driver.run("--scheduler=nowhere")
    assert_refused(driver, result.returncode, result.stderr, "--scheduler=nowhere")


def test_an_unwritable_results_folder_is_named(driver, tmp_path):
    (tmp_path / "file").write_text("")
    result = driver.run(f"--results_dir={tmp_path / 'file'}")
    assert result.returncode == 2
    assert f"cannot write {tmp_path / 'file'}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_help_and_bad_flags_import_nothing_heavy():
    program = (
        "import sys; from sweeps.depth.__main__ import STUDY; "
        "from sweeps.harness.cli.study import main\n"
        "status = main(STUDY, ['depth', sys.argv[1]])\n"
        "heavy = set(sys.modules) & set('tensorflow keras pandas matplotlib distributed'.split())\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    for flag, status in (("--help", 0), ("--seeds=0", 2)):
        done = subprocess.run([sys.executable, "-c", program, flag], capture_output=True, text=True)
        assert done.returncode == status, done.stderr
    assert (
        "--hidden_units"
        in subprocess.run(
            [sys.executable, "-m", "sweeps.depth", "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )


def test_output_that_no_one_reads_ends_quietly():
    command = [sys.executable, "-m", "sweeps.depth", "--help"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141
