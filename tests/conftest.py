"""Chooses Keras's backend before Keras is imported: TensorFlow, unless KERAS_BACKEND is set."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_addoption(parser):
    parser.addoption(
        "--native-from",
        type=int,
        help="Channels from which PyTorch's native batch norm is used; 0 forces it, a large number "
        "the lines.",
    )


def pytest_configure(config):
    channels = config.getoption("--native-from")
    if channels is not None:
        from kerasbn.kernels import torch_rows

        torch_rows.NATIVE_FROM = channels
