"""The engine against what goes wrong: real workers, a real cluster, real kills."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import distributed
import pandas as pd
import psutil
import pytest

import sweeps
from sweeps.harness.engine import pool

RESULT = ["trial_id", "status", "reached", "steps_to_target", "final_accuracy", "final_loss"]
LONGER = (
    "--seeds=4",
    "--target_accuracy=1",
    "--max_steps=60",
    "--hidden_units=20",
)


@pytest.fixture(scope="module")
def undisturbed(module_driver):
    result = module_driver.run(*LONGER)
    assert result.returncode == 0, result.stderr
    return module_driver.trials()[RESULT]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler and two workers: the scheduler's address, and their processes."""
    file = tmp_path_factory.mktemp("cluster") / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    # Workers need the installed package, not this folder. They get the one that is tested here.
    installed = {**os.environ, "PYTHONPATH": str(Path(sweeps.__file__).parents[1])}
    scheduler = subprocess.Popen(
        [
            *[sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"],
            *["--host=127.0.0.1", "--port=0", f"--scheduler-file={file}"],
        ],
        env=installed,
        **quiet,
    )
    worker = subprocess.Popen(
        [
            *[sys.executable, "-m", "distributed.cli.dask_worker", f"--scheduler-file={file}"],
            *["--nworkers=2", "--nthreads=1", "--no-dashboard"],
        ],
        cwd="/",
        env=installed,
        **quiet,
    )
    yield address_in(file), scheduler, worker
    for process in (worker, scheduler):
        process.terminate()
        process.wait(20)


def address_in(file: Path) -> str:
    """The scheduler's address, as soon as it has written the file."""
    end = time.monotonic() + 100
    while True:
        with contextlib.suppress(OSError, json.JSONDecodeError):
            return json.loads(file.read_text())["address"]
        assert time.monotonic() < end, f"the scheduler has not written {file}"
        time.sleep(0.05)


def worker_processes(parent: int) -> list[psutil.Process]:
    children = psutil.Process(parent).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def assert_as_undisturbed(driver, undisturbed):
    pd.testing.assert_frame_equal(driver.trials()[RESULT], undisturbed)


def test_a_local_worker_killed_in_mid_trial_is_replaced_and_nothing_is_lost(driver, undisturbed):
    process = driver.start(*LONGER, "--workers=2")
    driver.wait_until_finished(2)
    worker_processes(process.pid)[0].kill()
    _, err = process.communicate(timeout=150)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert_as_undisturbed(driver, undisturbed)


def test_a_result_that_dies_with_its_worker_is_computed_again():
    def slow():  # nested, so that Dask sends the code to its workers
        time.sleep(1)
        return "the result"

    with pool._client(2, None) as client:
        worker = next(iter(client.scheduler_info(n_workers=-1)["workers"]))
        future = client.submit(slow, workers=[worker], allow_other_workers=True)
        distributed.wait(future)
        os.kill(client.run(os.getpid, workers=[worker])[worker], signal.SIGKILL)
        while future.status == "finished":
            time.sleep(0.01)
        assert pool._result(future, None, client) == "the result"


def test_a_driver_killed_by_sigkill_goes_on_where_it_was(driver, undisturbed):
    process = driver.start(*LONGER)
    driver.wait_until_finished(3)
    process.kill()
    process.communicate()
    kept = driver.finished()
    again = driver.run(*LONGER)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count(", seed ") == 8 - kept  # only the missing ones ran
    assert_as_undisturbed(driver, undisturbed)


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(driver):
    process = driver.start(*LONGER, "--workers=2")
    driver.wait_until_finished(2)
    workers = worker_processes(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the driver and its workers
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Run the same command again to continue" in err
    assert "Traceback" not in err
    assert 2 <= driver.finished() < 8
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


@pytest.fixture(scope="module")
def sequence(new_driver, in_one_process):
    """Crashes, a retry of them, diverged trials and kept models: (driver, result) of each run."""
    crashed, diverged, kept = new_driver(), new_driver(), new_driver()
    # TensorFlow cannot even count so many weights, and raises at once.
    crash = ("--hidden_units=1000000000000000000", "--nobatch_norm", "--seeds=2")
    diverge = ("--learning_rate=1e30", "--activation=linear", "--hidden_units=10", "--seeds=1")
    keep = ("--save_models", "--tensorboard", "--seeds=1", "--hidden_units=10")
    runs = {
        "crash": (crashed, crash),
        "retry": (crashed, (*crash, "--fail_fast")),
        "diverge": (diverged, diverge),
        "keep": (kept, keep),
    }
    done = in_one_process(*[("depth", driver.flags(*flags)) for driver, flags in runs.values()])
    return {name: (runs[name][0], each) for name, each in zip(runs, done, strict=True)}


def test_a_trial_that_crashes_is_told_with_its_traceback_and_runs_again(sequence):
    driver, first = sequence["crash"]
    assert first.returncode == 1
    assert first.stderr.count("Traceback (most recent call last)") == 2
    assert first.stderr.count("InvalidArgumentError") == 2
    assert "2 of 2 trials failed" in first.stderr
    _, second = sequence["retry"]
    assert second.returncode == 1
    assert "1 of 2 trials failed" in second.stderr
    assert driver.trials().status.tolist() == ["failed", "failed"]


def test_a_diverged_trial_is_a_miss_and_no_failure(sequence):
    driver, result = sequence["diverge"]
    assert result.returncode == 0
    assert driver.trials().status.tolist() == ["diverged", "diverged"]
    assert driver.trials().steps_to_target.isna().all()
    assert "diverged" in result.stderr


def test_two_drivers_on_one_folder_do_no_harm_to_each_other(driver, undisturbed):
    processes = [driver.start(*LONGER) for _ in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=150)
        assert process.returncode == 0, err
    assert_as_undisturbed(driver, undisturbed)


def test_models_and_tensorboard_are_written_on_request(sequence, tensorboard_over_http):
    driver, result = sequence["keep"]
    assert result.returncode == 0, result.stderr
    program = (
        "import sys, keras, kerasbn, numpy as np\n"
        "for path in sys.argv[1:]:\n"
        "    print(keras.models.load_model(path)(np.zeros((3, 28, 28), 'uint8')).shape)"
    )
    paths = [driver.folder / "models" / f"{id_}.keras" for id_ in driver.trials().trial_id]
    loaded = subprocess.run(
        [sys.executable, "-c", program, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.splitlines() == ["(3, 10)", "(3, 10)"]
    served = tensorboard_over_http(driver.folder / "tensorboard")
    for row in driver.trials().itertuples():
        run = f"depth1-{row.trial_id}-seed0"
        losses = served(f"scalars/scalars?tag=train_loss&run={run}")
        assert [step for _, step, _ in losses] == list(range(1, row.final_step + 1))
        assert losses[-1][2] == pytest.approx(row.final_loss, rel=1e-6)
        ((_, _, accuracy),) = served(f"scalars/scalars?tag=final_accuracy&run={run}")
        assert accuracy == pytest.approx(row.final_accuracy, rel=1e-6)
    experiment = served("hparams/experiment?request=%7B%7D")
    differs = {each["name"]: each["differs"] for each in experiment["hparamInfos"]}
    assert (differs["batch_norm"], differs["learning_rate"]) == (True, False)


@pytest.fixture
def tensorboard_over_http(request, tmp_path):
    """Serves a log directory by a real TensorBoard; returns a function that asks for its data."""

    def serve(folder):
        log = tmp_path / "log"
        with log.open("w") as file:
            server = subprocess.Popen(
                [
                    *[sys.executable, "-m", "tensorboard.main", f"--logdir={folder}"],
                    *["--port=0", "--load_fast=false", "--host=127.0.0.1"],
                ],
                stdout=subprocess.DEVNULL,
                stderr=file,
            )
        request.addfinalizer(server.wait)
        request.addfinalizer(server.terminate)

        # Not urlopen: its opener, and with it the proxy of the first call, is the whole process's.
        directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def ask(path):
            end = time.monotonic() + 100
            while True:
                started = re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())
                with contextlib.suppress(OSError):  # the run has not been read yet
                    if started:
                        with directly.open(f"{started[0]}data/plugin/{path}") as answer:
                            return json.load(answer)
                assert time.monotonic() < end, f"no answer on {path}: {log.read_text()}"
                time.sleep(0.3)

        return ask

    return serve


def test_a_scheduler_without_workers_is_told_at_once(driver, tmp_path):
    file = tmp_path / "scheduler.json"
    scheduler = subprocess.Popen(
        [
            *[sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"],
            *["--host=127.0.0.1", "--port=0", f"--scheduler-file={file}"],
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = address_in(file)
        process = driver.start(f"--scheduler={address}")
        line = process.stderr.readline()  # comes while the command waits
        assert line == (
            f"The scheduler at {address} has no workers. Waiting 60 s for one. Start one with: "
            f"dask worker {address} --nthreads 1\n"
        )
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert err.startswith("\nInterrupted. ")
        assert len(err.splitlines()) == 2
    finally:
        scheduler.terminate()
        scheduler.wait(20)


class TestCluster:
    """In this order: the last test takes the cluster down."""

    def test_runs_on_a_cluster_and_survives_a_killed_worker(self, driver, undisturbed, cluster):
        address, _, worker = cluster
        process = driver.start(*LONGER, f"--scheduler={address}")
        driver.wait_until_finished(2)
        worker_processes(worker.pid)[0].kill()
        _, err = process.communicate(timeout=150)
        assert process.returncode == 0, err
        assert_as_undisturbed(driver, undisturbed)

    def test_a_lost_scheduler_ends_the_run_with_a_clear_line(self, driver, cluster):
        address, scheduler, _ = cluster
        process = driver.start(*LONGER, f"--scheduler={address}")
        driver.wait_until_finished(2)
        scheduler.kill()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2, err
        assert "the connection to the Dask scheduler was lost" in err
        assert "Traceback" not in err
        assert driver.finished() >= 2

    def test_a_scheduler_that_does_not_answer_is_told_soon(self, driver, cluster):
        address = cluster[0]  # killed by the test before
        start = time.monotonic()
        result = driver.run(f"--scheduler={address}")
        assert pool._ANSWER_SECONDS == 10
        assert time.monotonic() - start < 60  # with the start of a process on a busy machine
        assert result.returncode == 2
        assert f"--scheduler={address}: no Dask scheduler answered" in result.stderr
