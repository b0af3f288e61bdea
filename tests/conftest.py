"""Options of the tests, and how pytest-xdist's workers share them.

Every change should pass the default tests:

    python -m pytest

They leave out the tests marked `full`: slow matrices such as every option with every other, long
searches, and large networks. A representative case of each matrix is not marked, so it always runs.
The marked tests run in the GitHub workflow, and before an issue is closed:

    python -m pytest --full             # everything
    python -m pytest --full-sample=5    # the default tests and every fifth of the marked ones

For a debugger, or for a single test, one process starts faster than several workers. Set
KERAS_BACKEND to test the layer on another backend than TensorFlow:

    KERAS_BACKEND=jax python -m pytest -n0 tests/kerasbn/test_masks.py

Training uses the native kernel (C) if it is built, for which `python setup.py build_ext --inplace`
is the command. This command tests the layer without it:

    KERASBN_NATIVE=0 python -m pytest tests/kerasbn
"""

import os

import pytest

# Before anything imports Keras.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_addoption(parser):
    group = parser.getgroup("kerasbn")
    group.addoption("--full", action="store_true", help="Run the tests marked `full` too.")
    group.addoption(
        "--full-sample",
        type=int,
        metavar="N",
        help="Run every N-th of the tests marked `full`, in the order of collection.",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "full: a slow matrix's test, which needs --full to run")
    sample = config.getoption("--full-sample")
    if sample is not None and sample < 1:
        raise pytest.UsageError(f"--full-sample is at least 1. Received: {sample}")


def pytest_collection_modifyitems(config, items):
    slow = [item for item in items if item.get_closest_marker("full")]
    every = 1 if config.getoption("--full") else config.getoption("--full-sample")
    left_out = set(slow) - set(slow[::every] if every else [])
    config.hook.pytest_deselected(items=[item for item in slow if item in left_out])
    # The longest files come first, so that short ones keep all workers busy at the end.
    longest = ("test_backends.py", "test_studies.py", "test_pool.py")
    items[:] = sorted(
        (item for item in items if item not in left_out),
        key=lambda item: (*longest, item.path.name).index(item.path.name),
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Gives a worker one file at a time, because fixtures of a module are slow to make.

    The tests in test_backends.py share no fixtures and take minutes, so each may go to any worker.
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduler(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return nodeid if "test_backends.py" in nodeid else super()._split_scope(nodeid)

    config.option.loadscopereorder = False  # keep the order of pytest_collection_modifyitems
    return Scheduler(config, log)
