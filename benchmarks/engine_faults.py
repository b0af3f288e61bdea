"""Slow fault tests of the engine: ten SIGKILLs at random moments, and a full disk. Run it by hand:

    python benchmarks/engine_faults.py [SEED]

It prints each fault and its effect. The exit status is 0 if the results equal those of an
undisturbed run. The full disk is a small tmpfs, which only root can mount. Other users skip this
test, with a message. The quick fault tests are in tests/sweeps/harness/engine.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

RESULT = ["trial_id", "status", "reached", "steps_to_target", "final_accuracy", "final_loss"]
FLAGS = ["--dataset=mnist_5k", "--hidden_units=50,20", "--seeds=30", "--workers=2"]


def start(results: Path, *flags: str) -> subprocess.Popen:
    """Starts a driver in a new process group."""
    return subprocess.Popen(
        [sys.executable, "-m", "sweeps.depth", *FLAGS, f"--results_dir={results}", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(results: Path, *flags: str) -> tuple[int, str]:
    """Runs a driver to its end; returns its exit status and output."""
    process = start(results, *flags)
    output, _ = process.communicate()
    return process.returncode, output


def table(results: Path) -> pd.DataFrame:
    """The results that must not depend on any fault."""
    return pd.read_csv(results / "mnist_5k" / "depth" / "trials.csv")[RESULT]


def orphans(group: int) -> int:
    """Number of processes in a driver's group that still run."""
    listed = subprocess.run(["pgrep", "-g", str(group)], capture_output=True, text=True)
    return len(listed.stdout.split())


def ten_sigkills(folder: Path, undisturbed: pd.DataFrame, generator: random.Random) -> bool:
    """Kills the driver ten times at random moments and restarts it each time."""
    results = folder / "killed"
    trials = results / "mnist_5k" / "depth" / "trials"
    for n in range(10):
        process = start(results)
        time.sleep(generator.uniform(2, 12))
        finished = process.poll() is not None
        process.kill()
        process.communicate()
        time.sleep(5)
        moment = "after the end" if finished else "during the run"
        kept = len(list(trials.glob("*.json")))
        print(f"kill {n + 1} {moment}: {kept} trials kept, {orphans(process.pid)} processes left")
        os.system(f"pkill -KILL -g {process.pid}")
    status, _ = finish(results)
    same = table(results).equals(undisturbed)
    print(f"after ten kills: exit status {status}, table unchanged: {same}", flush=True)
    return status == 0 and same


def full_disk(folder: Path, undisturbed: pd.DataFrame) -> bool:
    """Fills the file system, frees space, and runs the command again."""
    results = folder / "tmpfs"
    results.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(results)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        print("full disk: skipped, because this user cannot mount a tmpfs", flush=True)
        return True
    try:
        status, output = finish(results)
        kept = len(list(results.rglob("*.json")))
        message = output.splitlines()[-1]
        print(f"full disk: exit status {status}, {kept} trials kept, message: {message}")
        clear = status == 2 and "No space left" in output and "Traceback" not in output
        subprocess.run(["mount", "-o", "remount,size=16m", str(results)], check=True)
        status, output = finish(results)
        same = table(results).equals(undisturbed)
        print(f"with free space: exit status {status}, table unchanged: {same}", flush=True)
        return clear and status == 0 and same
    finally:
        subprocess.run(["umount", str(results)], check=True)


def main() -> int:
    """Runs all fault tests. Returns 0 if no result was lost, duplicated or changed."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    folder = Path(tempfile.mkdtemp(prefix="engine_faults_"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        status, output = finish(folder / "undisturbed")
        if status != 0:
            print(output)
            return 1
        undisturbed = table(folder / "undisturbed")
        print(f"undisturbed: {len(undisturbed)} trials", flush=True)
        good = [
            ten_sigkills(folder, undisturbed, random.Random(seed)),
            full_disk(folder, undisturbed),
        ]
        return 0 if all(good) else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
