"""Measures how the engine's cost grows with the number of trials. Run it by hand:

    python benchmarks/engine_scaling.py [SEEDS ...]      # default 5 25 50: 70, 350 and 700 trials

It trains small networks. For each number of trials it prints the time per trial, the peak memory of
the driver and of the largest worker, and the time of a second run, which only rebuilds tables and
charts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time

import psutil


def run(results: str, seeds: int) -> tuple[float, float, float]:
    """Runs the depth study.

    Args:
        results: Results folder.
        seeds: Number of seeds.

    Returns:
        Seconds, and the peak memory of the driver and of its largest child in MiB.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [
            *[sys.executable, "-m", "sweeps.depth", "--dataset=mnist_5k", f"--seeds={seeds}"],
            *["--hidden_units=16,16,16,16,16,16,16", "--max_steps=20", "--curve_every=0"],
            *[f"--results_dir={results}", "--workers=2"],
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peaks = {"driver": 0, "worker": 0}
    watcher = threading.Thread(target=_watch, args=(psutil.Process(process.pid), peaks))
    watcher.start()
    if process.wait() != 0:
        raise SystemExit(f"the depth study ended with exit status {process.returncode}")
    seconds = time.perf_counter() - start
    watcher.join()
    return seconds, peaks["driver"] / 2**20, peaks["worker"] / 2**20


def _watch(driver, peaks):
    try:
        while True:
            peaks["driver"] = max(peaks["driver"], driver.memory_info().rss)
            for child in driver.children(recursive=True):
                peaks["worker"] = max(peaks["worker"], child.memory_info().rss)
            time.sleep(0.05)
    except psutil.NoSuchProcess:
        pass


def main() -> None:
    """Prints one line per number of seeds."""
    for seeds in [int(word) for word in sys.argv[1:]] or [5, 25, 50]:
        with tempfile.TemporaryDirectory() as results:
            seconds, driver, worker = run(results, seeds)
            again, _, _ = run(results, seeds)
        trials = 14 * seeds
        print(
            f"{trials} trials: {seconds:.1f} s, {1000 * seconds / trials:.0f} ms per trial, driver "
            f"{driver:.0f} MiB, largest worker {worker:.0f} MiB, second run {again:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
