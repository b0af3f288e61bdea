"""Chooses Keras's backend before Keras is imported: TensorFlow, unless KERAS_BACKEND is set."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_addoption(parser):
    parser.addoption(
        "--compile-from",
        type=int,
        help="Values from which TensorFlow's batch norm is compiled; 0 forces that kernel, a large "
        "number the plain one.",
    )
    parser.addoption(
        "--native-from",
        type=int,
        help="Channels from which PyTorch's native batch norm is used; 0 forces it, a large number "
        "the lines.",
    )


def pytest_configure(config):
    values = config.getoption("--compile-from")
    if values is not None:
        from kerasbn.kernels import tensorflow_rows

        tensorflow_rows.SMALLEST = values
        tensorflow_rows.INFERENCE = range(values, 2**22)
    channels = config.getoption("--native-from")
    if channels is not None:
        from kerasbn.kernels import torch_rows

        torch_rows.NATIVE_FROM = channels
