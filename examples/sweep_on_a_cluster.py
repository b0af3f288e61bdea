"""Runs a sweep on a Dask cluster, here a scheduler and workers on this machine.

    python examples/sweep_on_a_cluster.py --seeds=10

All flags go to `python -m sweeps.depth`. For a quick try, add

    --dataset=mnist_5k --seeds=1 --hidden_units=50,25 --max_steps=30

On a real cluster, start `dask scheduler` on one machine and `dask worker tcp://HOST:8786` on the
others. All of them need `pip install 'kerasbn[sweeps]'`. Then run only the sweep.
"""

import os
import socket
import subprocess
import sys

WORKERS = os.cpu_count()

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
address = f"tcp://127.0.0.1:{port}"

# A worker runs one trial at a time, in its main process.
dask = [sys.executable, "-m", "dask"]
scheduler = [*dask, "scheduler", "--host=127.0.0.1", f"--port={port}", "--no-dashboard"]
worker = [*dask, "worker", address, f"--nworkers={WORKERS}", "--nthreads=1", "--no-dashboard"]
sweep = [sys.executable, "-m", "sweeps.depth", f"--scheduler={address}", *sys.argv[1:]]

cluster = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in (scheduler, worker)]
try:
    status = subprocess.run(sweep).returncode
finally:
    for process in reversed(cluster):
        process.terminate()
        process.wait()
sys.exit(status)
