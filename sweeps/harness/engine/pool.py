"""Trials in, results out as they finish: in this process, in local workers, or on a cluster.

One path for all three: Dask runs the trials, restarts workers that die and gives their trials to
others. A worker gets the data once, when it joins (as a worker plugin, so that a restarted one gets
it, too).
"""

from __future__ import annotations

import contextlib
import logging
import traceback
import uuid
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from sweeps.harness.data import Dataset
from sweeps.harness.errors import UserError
from sweeps.harness.trial import Trial

# Ctrl-C reaches workers, too: it is the driver's to end them.
_IGNORE_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
_ANSWER_SECONDS = 10  # how long a scheduler has to answer
_WORKER_SECONDS = 60  # and how long workers have to join it


def run(
    trials: Sequence[Trial],
    dataset: Dataset,
    *,
    workers: int,
    threads: int,
    scheduler: str | None = None,
    save_models: bool = False,
) -> Iterator[dict[str, Any]]:
    """Runs trials and yields their results as they finish.

    Args:
        trials: In the order in which to start them; the longest first makes the shortest run.
        dataset: What they train on.
        workers: Local worker processes; 0: in this process.
        threads: TensorFlow's threads in each trial.
        scheduler: Address of a Dask scheduler, whose workers then take the trials.
        save_models: Whether results carry the trained nets.

    Raises:
        UserError: If the scheduler does not answer, has no workers, or is lost on the way.
    """
    # Here, for --help need not wait half a second for them.
    from distributed import as_completed

    from sweeps.harness.engine.worker import TrialWorker, run_trial

    plugin = TrialWorker(dataset, threads, save_models)
    with _client(workers, scheduler) as client:
        client.register_plugin(plugin)
        queue = _Queue(trials)
        completed = as_completed()
        running: dict[Any, tuple[Trial, str]] = {}

        def start(worker):
            trial = queue.take(worker)
            if trial is None:
                return
            future = client.submit(
                run_trial,
                plugin.name,
                trial,
                key=f"{trial.id}-{uuid.uuid4().hex[:8]}",
                workers=[worker],
                allow_other_workers=True,  # a worker may die
                pure=False,
            )
            running[future] = trial, worker
            completed.add(future)

        def start_on_idle():
            busy = [worker for _, worker in running.values()]
            present = list(client.scheduler_info(n_workers=-1)["workers"])
            # A worker that died leaves its place to the one that was started instead of it.
            for worker in [w for w in present if w not in busy][: len(present) - len(busy)]:
                start(worker)

        start_on_idle()
        while running:
            future = next(completed)
            trial, _ = running.pop(future)
            result = _result(future, trial, client)
            start_on_idle()
            yield result


class _Queue:
    """Gives a worker trials of one network while there are any, so that it compiles them once."""

    def __init__(self, trials: Sequence[Trial]):
        groups: dict[Trial, deque[Trial]] = {}
        for trial in trials:
            groups.setdefault(trial.network, deque()).append(trial)
        self._unowned = deque(groups.values())
        self._owned: dict[str, deque[Trial]] = {}

    def take(self, worker: str) -> Trial | None:
        """The next trial for a worker; `None` when there are no more."""
        own = self._owned.get(worker)
        if own:
            return own.popleft()
        if self._unowned:
            self._owned[worker] = self._unowned.popleft()
            return self._owned[worker].popleft()
        longest = max(self._owned.values(), key=len, default=())
        return longest.pop() if longest else None


def _result(future, trial, client):
    """A trial's result; "failed" where its worker died again and again or could not run it."""
    if future.status == "finished":
        return future.result()
    if future.status == "cancelled" or client.status != "running":
        raise UserError(
            "the connection to the Dask scheduler was lost. Finished trials are kept: start the "
            "scheduler, then the same command again, and the others will run."
        )
    error = future.exception()
    lines = traceback.format_exception(type(error), error, future.traceback())
    return {
        "trial": trial.to_json(),
        "status": "failed",
        "traceback": "".join(lines),
        "environment": {},
        "finished_at": None,
    }


@contextlib.contextmanager
def _client(workers, scheduler):
    import dask
    from distributed import Client, LocalCluster

    for name in list(logging.root.manager.loggerDict):
        if name.startswith("distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is told in our words
    if scheduler is not None:
        with _connect(scheduler) as client:
            yield client
        return
    # Two drivers at once: Dask's server of its own state then takes another port.
    warnings.filterwarnings("ignore", "(?s).*Port .* is already in use", UserWarning)
    with (
        dask.config.set(
            {"distributed.worker.daemon": True, "distributed.worker.profile.enabled": False}
        ),
        LocalCluster(
            n_workers=max(workers, 1),
            threads_per_worker=1,
            processes=workers > 0,
            memory_limit=0,  # none: a paused or restarted worker would only lose time
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
            **({"preload": [_IGNORE_INTERRUPTS]} if workers > 0 else {}),
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _connect(scheduler):
    from distributed import Client

    try:
        client = Client(scheduler, timeout=_ANSWER_SECONDS)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--scheduler={scheduler}: no Dask scheduler answered there within {_ANSWER_SECONDS} s "
            f"({type(error).__name__}). Expected an address such as tcp://HOST:8786, where "
            "`dask scheduler` runs."
        ) from error
    try:
        client.wait_for_workers(1, timeout=_WORKER_SECONDS)
    except TimeoutError as error:
        client.close()
        raise UserError(
            f"--scheduler={scheduler}: it has no workers, and none joined within {_WORKER_SECONDS} "
            f"s. Start some: dask worker {scheduler} --nthreads 1"
        ) from error
    _check_same_code(client, scheduler)
    return client


def _check_same_code(client, scheduler):
    from sweeps.harness.results import provenance

    expected = provenance.code_fingerprint()
    for worker, found in client.run(provenance.code_fingerprint, on_error="return").items():
        if found != expected:
            client.close()
            raise UserError(
                f"--scheduler={scheduler}: the worker at {worker} does not have this version of "
                f"kerasbn, TensorFlow and Keras (expected {expected}, received {found!r}). Install "
                "the same there and start its workers anew."
            )
