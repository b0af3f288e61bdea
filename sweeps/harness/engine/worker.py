"""The part of the engine that lives in a Dask worker. TensorFlow comes with the first trial."""

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

# What Keras and TensorFlow import where it is installed, for wrappers that no trial uses.
_OPTIONAL = ("jax", "matplotlib", "pandas", "sklearn")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt, in bytes


class TrialWorker(WorkerPlugin):
    """Brings the data to a worker, once, and runs trials there.

    Args:
        dataset: What to train and test on.
        threads: TensorFlow's threads in each trial; set before TensorFlow starts.
        save_models: Whether results carry the trained nets.
    """

    def __init__(self, dataset: Dataset, threads: int, save_models: bool):
        self.name = f"kerasbn-{uuid.uuid4().hex}"  # several sweeps may share a cluster
        self._arguments = dataset, threads, save_models
        self._runner: Runner | None = None

    def run(self, trial: Trial) -> dict[str, Any]:
        """The trial's result; see `sweeps.harness.engine.runner`."""
        if self._runner is None:
            _keep_freed_memory()
            os.environ["KERAS_BACKEND"] = "tensorflow"
            with quiet_start(), _quick_start():
                from sweeps.harness.engine.runner import Runner
            self._runner = Runner(*self._arguments)
        return self._runner.run(trial)


@contextlib.contextmanager
def _quick_start() -> Iterator[None]:
    """For the import of TensorFlow: about half of the time.

    Without the optional packages that come with it (2 of 5 s), and without looking for garbage, of
    which an import leaves little (1 s). What it leaves, half a million objects, is not looked
    through later, either: that took a quarter of a second for each network.
    """
    left_out = [name for name in _OPTIONAL if name not in sys.modules]
    collecting = gc.isenabled()
    gc.disable()
    # None: as if it was not installed
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in left_out:
            del sys.modules[name]
        gc.freeze()
        if collecting:
            gc.enable()


def _keep_freed_memory():
    """Has glibc keep what TensorFlow frees for its next operation, as it does by itself elsewhere.

    Dask sets its workers to give freed memory back to the system at once. Each operation then pages
    its output in anew: a training step of the depth sweep took 1.65 times as long.
    """
    glibc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(glibc, "mallopt"):
        glibc.mallopt(_M_TRIM_THRESHOLD, 2**30)
        glibc.mallopt(_M_MMAP_THRESHOLD, 2**25)  # the most that it takes


def run_trial(plugin: str, trial: Trial) -> dict[str, Any]:
    """The task: runs a trial on the worker that it is called on."""
    worker: Any = get_worker()  # Dask's type of its plugins has no `run`
    return worker.plugins[plugin].run(trial)
