"""Options of the tests, and how two workers share them.

    python -m pytest                           what a change should pass: all but the slow matrices
    python -m pytest --full                    everything; the GitHub workflow runs this
    python -m pytest --full-sample=5           the default tests and every fifth of the slow ones
    python -m pytest -n0 tests/kerasbn -k fold one process, for a debugger or a single test
    KERAS_BACKEND=jax python -m pytest tests/kerasbn

Tests marked `full` belong to a slow matrix (every option with every other, long searches, large
networks). A representative case of each matrix carries no mark, so it always runs.

TensorFlow and PyTorch have two kernels each, and the size of the input decides which one computes
it. The tests' inputs are small, so one kernel of each would see few of them. Two options force the
other kernel on all tests of the layer. Run them after every change to the files that they name:

    python -m pytest tests/kerasbn --compile-from=0                       kernels/tensorflow_rows.py
    KERAS_BACKEND=torch python -m pytest tests/kerasbn --native-from=0    kernels/torch_rows.py
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
    group.addoption(
        "--compile-from",
        type=int,
        metavar="VALUES",
        help="Smallest input that TensorFlow's compiled batch norm takes, in values. 0 forces the "
        "compiled kernel (kernels/tensorflow_rows.py), a large number the plain one.",
    )
    group.addoption(
        "--native-from",
        type=int,
        metavar="CHANNELS",
        help="Fewest channels that PyTorch's native batch norm takes. 0 forces the native kernel "
        "(kernels/torch_rows.py), a large number the one in Python.",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "full: a slow matrix's test, which needs --full to run")
    sample = config.getoption("--full-sample")
    if sample is not None and sample < 1:
        raise pytest.UsageError(f"--full-sample is at least 1. Received: {sample}")
    values = config.getoption("--compile-from")
    if values is not None:
        from kerasbn.kernels import tensorflow_rows

        tensorflow_rows.SMALLEST = values
        tensorflow_rows.INFERENCE = range(values, 2**22)
    channels = config.getoption("--native-from")
    if channels is not None:
        from kerasbn.kernels import torch_rows

        torch_rows.NATIVE_FROM = channels


def pytest_collection_modifyitems(config, items):
    slow = [item for item in items if item.get_closest_marker("full")]
    every = 1 if config.getoption("--full") else config.getoption("--full-sample")
    skipped = set(slow) - set(slow[::every] if every else [])
    config.hook.pytest_deselected(items=skipped)
    # The runs of other backends first: they are the longest tests, and the short ones fill up the
    # workers' time at the end.
    items[:] = sorted(
        (item for item in items if item not in skipped),
        key=lambda item: item.path.name != "test_backends.py",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Gives a worker one file at a time, so that module fixtures are made once.

    The tests of test_backends.py share nothing and are given out one by one.
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduler(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return nodeid if "test_backends.py" in nodeid else super()._split_scope(nodeid)

    config.option.loadscopereorder = False  # keep the order of pytest_collection_modifyitems
    return Scheduler(config, log)
