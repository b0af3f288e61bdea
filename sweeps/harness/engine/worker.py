"""The part of the engine that runs in a Dask worker. The first trial imports TensorFlow."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin, get_worker

from sweeps.harness.data import Dataset
from sweeps.harness.quiet import quiet_start
from sweeps.harness.trial import Trial

if TYPE_CHECKING:
    from sweeps.harness.engine.runner import Runner

# Optional packages that Keras and TensorFlow import if installed. No trial uses them.
_OPTIONAL = ("jax", "matplotlib", "pandas", "sklearn")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from malloc.h


class TrialWorker(WorkerPlugin):
    """Brings the data to a worker once, and runs trials there.

    Args:
        dataset: Data set to train and test on.
        threads: Number of TensorFlow threads per trial. It is set before TensorFlow starts.
        save_models: Whether results contain the trained networks.
    """

    def __init__(self, dataset: Dataset, threads: int, save_models: bool):
        self.name = f"kerasbn-{uuid.uuid4().hex}"  # several runs may share a cluster
        self._arguments = dataset, threads, save_models
        self._runner: Runner | None = None

    def run(self, trial: Trial) -> dict[str, Any]:
        """Runs a trial and returns its result; see `sweeps.harness.engine.runner`."""
        if self._runner is None:
            _keep_freed_memory()
            os.environ["KERAS_BACKEND"] = "tensorflow"
            with quiet_start(), _quick_start():
                from sweeps.harness.engine.runner import Runner
            self._runner = Runner(*self._arguments)
        return self._runner.run(trial)


@contextlib.contextmanager
def _quick_start() -> Iterator[None]:
    """Halves the time to import TensorFlow, in a `with` block.

    Hiding optional packages saves 2 of 5 s. Switching off garbage collection during the import
    saves 1 s. The half million objects that the import leaves are then excluded from garbage
    collection, because scanning them took a quarter of a second per network.
    """
    hidden = [name for name in _OPTIONAL if name not in sys.modules]
    collecting = gc.isenabled()
    gc.disable()
    # Importing a module that is None fails.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        gc.freeze()
        if collecting:
            gc.enable()


def _keep_freed_memory():
    """Lets glibc keep the memory that one TensorFlow operation frees for the next operation.

    This is glibc's default, but Dask makes its workers return freed memory to the system at once.
    Each operation then has to request memory for its output again. That made a training step of the
    depth study take 1.65 times as long.
    """
    glibc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(glibc, "mallopt"):
        glibc.mallopt(_M_TRIM_THRESHOLD, 2**30)
        glibc.mallopt(_M_MMAP_THRESHOLD, 2**25)  # the largest value that glibc accepts


def run_trial(plugin: str, trial: Trial) -> dict[str, Any]:
    """The Dask task. Runs a trial on the worker that executes the task.

    Args:
        plugin: Name of the worker's `TrialWorker`.
        trial: The trial.
    """
    worker: Any = get_worker()  # Dask's type of its plugins has no `run`
    return worker.plugins[plugin].run(trial)
