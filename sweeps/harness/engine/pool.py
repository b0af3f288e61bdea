"""Runs trials with Dask and yields their results as they finish.

Dask is the one engine for all three cases: this process, local worker processes, and a cluster. It
restarts workers that die and gives their trials to other workers. Each worker gets the data once,
when it joins. They travel in a worker plugin, so that restarted workers get them, too.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import traceback
import uuid
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any

from sweeps.harness.data import Dataset
from sweeps.harness.errors import UserError
from sweeps.harness.trial import Trial

_ANSWER_SECONDS = 10  # time limit for the scheduler to answer
_WORKER_SECONDS = 60  # time limit for the first worker to join
_LOST = (
    "the connection to the Dask scheduler was lost. Finished trials are kept. Start the scheduler, "
    "then run the same command again to continue."
)


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
        trials: Trials in the order in which they start. The run is shortest if the longest trials
            come first.
        dataset: Data set to train and test on.
        workers: Number of local worker processes. 0 runs the trials in this process.
        threads: Number of TensorFlow threads per trial.
        scheduler: Address of a Dask scheduler. Its workers then run the trials, and `workers` has
            no effect.
        save_models: Whether results contain the trained networks.

    Yields:
        The result of each trial; see `sweeps.harness.engine.runner`.

    Raises:
        UserError: If the scheduler does not answer, has no workers, or disappears during the run.
    """
    # Imported here because the import takes half a second, and --help does not need it.
    from distributed import as_completed

    from sweeps.harness.engine.worker import TrialWorker, run_trial

    plugin = TrialWorker(dataset, threads, save_models)
    with _client(workers, scheduler) as client:
        if scheduler is not None:
            _check_same_code(client, scheduler, trials)
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
                allow_other_workers=True,  # in case the worker dies
                pure=False,
            )
            running[future] = trial, worker
            completed.add(future)

        def start_on_idle():
            busy = [worker for _, worker in running.values()]
            present = list(client.scheduler_info(n_workers=-1)["workers"])
            idle = [worker for worker in present if worker not in busy]
            # A dead worker stays in `busy`, because Dask runs its trial on another worker.
            for worker in idle[: len(present) - len(busy)]:
                start(worker)

        start_on_idle()
        while running:
            try:
                future = next(completed)
                trial, _ = running.pop(future)
                result = _result(future, trial, client)
                start_on_idle()
            except OSError as error:  # distributed's CommClosedError is one
                raise UserError(_LOST) from error
            yield result


class _Queue:
    """Gives each worker trials of one network for as long as possible.

    A worker compiles a network once and reuses it for further trials of the same network.
    """

    def __init__(self, trials: Sequence[Trial]):
        groups: dict[Trial, deque[Trial]] = {}
        for trial in trials:
            groups.setdefault(trial.network, deque()).append(trial)
        self._unowned = deque(groups.values())
        self._owned: dict[str, deque[Trial]] = {}

    def take(self, worker: str) -> Trial | None:
        """The next trial for a worker. `None` if there are no more."""
        own = self._owned.get(worker)
        if own:
            return own.popleft()
        if self._unowned:
            self._owned[worker] = self._unowned.popleft()
            return self._owned[worker].popleft()
        longest = max(self._owned.values(), key=len, default=())
        return longest.pop() if longest else None


def _result(future, trial, client):
    """A trial's result. Its status is "failed" if Dask gave up on the trial."""
    # If a worker dies with a result that nobody has fetched, Dask runs the trial again. This waits.
    error = future.exception()
    if future.status == "cancelled" or client.status != "running":
        raise UserError(_LOST)
    if error is None:
        return future.result()
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

    # This module reports errors itself. Dask, and the event loop below it, would also log callbacks
    # that Ctrl-C cut off.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("distributed", "tornado", "asyncio")):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    if scheduler is not None:
        with _connect(scheduler) as client:
            yield client
        return
    # With two drivers at once, Dask's status server uses another port and warns about it.
    warnings.filterwarnings("ignore", "(?s).*Port .* is already in use", UserWarning)
    settings = {"distributed.worker.daemon": True, "distributed.worker.profile.enabled": False}
    with dask.config.set(settings), contextlib.ExitStack() as opened:
        with _interrupts_held():  # Dask cannot close a cluster that is not complete
            cluster = LocalCluster(
                n_workers=max(workers, 1),
                threads_per_worker=1,
                processes=workers > 0,
                memory_limit=0,  # no limit, because pausing a worker would only lose time
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
            opened.callback(_close, cluster)
            client = opened.enter_context(Client(cluster))
        yield client


def _close(cluster):
    with _interrupts_held():  # a second Ctrl-C must not interrupt the end
        cluster.close()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Delays Ctrl-C until the end of a `with` block.

    Threads and processes that start in the block never receive it. Ctrl-C in a terminal also
    reaches the workers, but the driver ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # Starting the tracker would release the signals, so it has to run already.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _connect(scheduler):
    from distributed import Client

    try:
        client = Client(scheduler, timeout=_ANSWER_SECONDS)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--scheduler={scheduler}: no Dask scheduler answered there within {_ANSWER_SECONDS} s "
            f"({type(error).__name__}). Expected an address such as tcp://HOST:8786. Start a "
            "scheduler with `dask scheduler`, or correct the address."
        ) from error
    start_a_worker = f"Start one with: dask worker {scheduler} --nthreads 1"
    if not client.scheduler_info(n_workers=-1)["workers"]:
        print(
            f"The scheduler at {scheduler} has no workers. Waiting {_WORKER_SECONDS} s for one. "
            f"{start_a_worker}",
            file=sys.stderr,
            flush=True,
        )
    try:
        client.wait_for_workers(1, timeout=_WORKER_SECONDS)
    except TimeoutError as error:
        client.close()
        raise UserError(
            f"--scheduler={scheduler}: the scheduler has no workers, and none joined within "
            f"{_WORKER_SECONDS} s. {start_a_worker}"
        ) from error
    return client


def _check_same_code(client, scheduler, trials):
    from sweeps.harness.results import provenance

    programs = sorted({trial.program for trial in trials if trial.program})
    expected = provenance.fingerprints(programs)
    fingerprints = client.run(provenance.fingerprints, programs, on_error="return")
    for worker, received in fingerprints.items():
        if received != expected:
            raise UserError(
                f"--scheduler={scheduler}: the worker at {worker} has other versions of kerasbn, "
                f"TensorFlow or Keras (expected fingerprint {expected}, received {received!r}). "
                "Install the same versions there and restart the workers."
            )
