"""The engine against what goes wrong: real workers, a real cluster, real kills."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pandas as pd
import psutil
import pytest

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
def cluster():
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    dask = [sys.executable, "-m", "distributed.cli.dask_"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [
            *dask[:2],
            "distributed.cli.dask_scheduler",
            "--host=127.0.0.1",
            f"--port={port}",
            "--no-dashboard",
        ],
        **quiet,
    )
    worker = subprocess.Popen(
        [
            *dask[:2],
            "distributed.cli.dask_worker",
            address,
            "--nworkers=2",
            "--nthreads=1",
            "--no-dashboard",
        ],
        cwd="/",  # a worker needs the installed package, not this folder
        **quiet,
    )
    yield address, scheduler, worker
    for process in (worker, scheduler):
        process.terminate()
        process.wait(20)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


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


def test_a_trial_that_crashes_is_told_with_its_traceback_and_runs_again(driver):
    # No machine holds a layer of so many units: TensorFlow's allocation fails.
    flags = ("--hidden_units=2000000000", "--nobatch_norm", "--seeds=2")
    first = driver.run(*flags)
    assert first.returncode == 1
    assert "ResourceExhaustedError" in first.stderr
    assert "2 of 2 trials failed" in first.stderr
    assert driver.trials().status.tolist() == ["failed", "failed"]
    second = driver.run(*flags, "--fail_fast")
    assert second.returncode == 1
    assert "1 of 2 trials failed" in second.stderr


def test_a_diverged_trial_is_a_miss_and_no_failure(driver):
    result = driver.run(
        "--learning_rate=1e30", "--activation=linear", "--hidden_units=10", "--seeds=1"
    )
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


def test_models_and_tensorboard_are_written_on_request(driver, tensorboard_over_http):
    result = driver.run("--save_models", "--tensorboard", "--seeds=1", "--hidden_units=10")
    assert result.returncode == 0, result.stderr
    program = (
        "import sys, keras, kerasbn, numpy as np\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "print(model(np.zeros((3, 28, 28), 'uint8')).shape)"
    )
    for trial_id in driver.trials().trial_id:
        path = driver.folder / "models" / f"{trial_id}.keras"
        loaded = subprocess.run(
            [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
        )
        assert "(3, 10)" in loaded.stdout
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
def tensorboard_over_http(request):
    """Serves a log directory by a real TensorBoard; returns a function that asks for its data."""

    def serve(folder):
        port = free_port()
        server = subprocess.Popen(
            [
                *[sys.executable, "-m", "tensorboard.main", f"--logdir={folder}"],
                *[f"--port={port}", "--load_fast=false", "--host=127.0.0.1"],
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        request.addfinalizer(server.wait)
        request.addfinalizer(server.terminate)

        # Not urlopen: its opener, and with it the proxy of the first call, is the whole process's.
        directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def ask(path):
            end = time.monotonic() + 60
            while True:
                try:
                    url = f"http://127.0.0.1:{port}/data/plugin/{path}"
                    with directly.open(url) as answer:
                        return json.load(answer)
                except OSError:  # not up yet, or the run not read yet
                    assert time.monotonic() < end, f"no answer from {url}"
                    time.sleep(0.3)

        return ask

    return serve


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

    def test_a_scheduler_that_does_not_answer_is_told_within_15_seconds(self, driver, cluster):
        address = cluster[0]  # killed by the test before
        start = time.monotonic()
        result = driver.run(f"--scheduler={address}")
        assert time.monotonic() - start < 15
        assert result.returncode == 2
        assert f"--scheduler={address}: no Dask scheduler answered" in result.stderr
