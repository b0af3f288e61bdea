"""Ctrl-C at any moment: one line, exit status 130, and no process left."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import sweeps

# Python imports this when it starts. It presses Ctrl-C, for the command and all its processes, at a
# moment that does not depend on the speed of the machine.
HOOK = """
import os, signal, sys, threading, time

def press():
    import psutil

    moment = os.environ["PRESS_AT"]
    me = psutil.Process()
    while not (me.children() if moment == "worker" else moment in sys.modules):
        time.sleep(0.005)
    time.sleep(float(os.environ["PRESS_AFTER"]))
    for _ in range(int(os.environ["PRESSES"])):
        os.killpg(0, signal.SIGINT)
        time.sleep(0.1)

if sys.orig_argv[1:3] == ["-m", "sweeps.depth"]:
    threading.Thread(target=press, daemon=True).start()
"""


@pytest.mark.parametrize("presses", [1, 3])
@pytest.mark.parametrize(
    ("moment", "after", "workers"),
    [
        ("sweeps", 0, 2),  # the command's modules are imported
        ("sweeps.harness.cli.study", 0, 2),
        ("distributed", 0, 2),
        ("worker", 0, 2),  # the first worker process starts
        ("worker", 0.5, 2),
        ("worker", 2, 2),
        ("distributed.deploy.local", 0.2, 0),
        ("tensorflow", 0, 0),
    ],
)
def test_one_line_and_no_traceback(driver, tmp_path, moment, after, workers, presses):
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    path = os.pathsep.join([str(tmp_path), str(Path(sweeps.__file__).parents[1])])
    process = subprocess.Popen(
        [sys.executable, "-m", "sweeps.depth", *driver.flags("--seeds=9", f"--workers={workers}")],
        env={
            **os.environ,
            "PYTHONPATH": path,
            "PRESS_AT": moment,
            "PRESS_AFTER": str(after),
            "PRESSES": str(presses),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=driver.take_interrupts,
    )
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    lines = [line for line in err.splitlines() if line and ", seed " not in line]
    assert len(lines) == 1, err
    assert lines[0].startswith("Interrupted. ")
    left = [p for p in psutil.process_iter(["pid"]) if os.getpgid(p.pid) == process.pid]
    _, alive = psutil.wait_procs(left, timeout=20)
    assert not alive
