"""Networks of `keras.applications` as Keras's own methods train and use them.

A training step is `train_on_batch`, and an inference pass is `predict`, with images from NumPy. The
images are random, because their values do not change the time. The depth study's deepest network
is measured in the same way, because its own training loop is not Keras's.

The contenders are those of `sweeps.cost.networks`: plain, keras and kerasbn. All of them are clones
of one network, with another layer in place of each batch norm.

    python -m sweeps.cost.applications NETWORK CONTENDER THREADS

measures the first calls in its own process, and prints a JSON object with the names in `FIRST`.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import keras
import numpy as np

from sweeps.cost import child_process
from sweeps.cost.networks import ARMS, Setting, deepest

NETWORKS = ("MobileNetV2", "ResNet50", "DenseNet121")
FIRST = ("first training step", "first predict", "peak memory")  # in seconds, seconds, bytes
_SIDE, _BATCH_SIZE, _CLASSES = 96, 16, 10
_PROCESSES = 3  # new processes per contender
_MODE = "graph"


class NoNorm(keras.layers.Layer):
    """Takes the place of a batch norm and returns its inputs."""

    def call(self, inputs, training=None, mask=None):
        """Returns the inputs."""
        return inputs


def network(name: str, arm: str) -> keras.Model:
    """A compiled network with random weights, for images of 96x96 pixels and 10 classes."""
    make = getattr(keras.applications, name)
    shape = (_SIDE, _SIDE, 3)
    model = make(input_shape=shape, weights=None, classes=_CLASSES, classifier_activation=None)

    def with_norm(layer):
        if not isinstance(layer, keras.layers.BatchNormalization):
            return type(layer).from_config(layer.get_config())
        if ARMS[arm] is None:
            return NoNorm(name=layer.name)
        return ARMS[arm].from_config(layer.get_config())

    return _compiled(keras.models.clone_model(model, clone_function=with_norm))


def calls(name: str, what: str) -> dict:
    """The contenders' calls, by mode and contender.

    Args:
        name: One of `NETWORKS`, or "dense net" for the depth study's deepest network.
        what: "training step" or "predict".
    """
    shape: tuple[int, ...] = (_SIDE, _SIDE, 3)
    if name == "dense net":
        size, shape = 500, (28, 28)
        nets = {arm: _compiled(deepest(Setting(arm, size, jit_compile=False))) for arm in ARMS}
    else:
        size = _BATCH_SIZE
        nets = {arm: network(name, arm) for arm in ARMS}
    images, labels = _data(size, shape)
    return {(_MODE, arm): _call(net, what, images, labels) for arm, net in nets.items()}


def measure_first(name: str, threads: int) -> dict[str, dict[tuple[str, str], np.ndarray]]:
    """Measures first calls and peak memory. Each contender has a new process, one at a time.

    Args:
        name: One of `NETWORKS`.
        threads: Threads of TensorFlow.

    Returns:
        A sample per process: by a name in `FIRST`, then by mode and contender.

    Raises:
        RuntimeError: If a process fails.
    """
    module, backend = "sweeps.cost.applications", {"KERAS_BACKEND": "tensorflow"}
    found = [
        {arm: child_process.run(module, name, arm, threads, **backend) for arm in ARMS}
        for _ in range(_PROCESSES)
    ]
    return {
        what: {(_MODE, arm): np.array([each[arm][what] for each in found]) for arm in ARMS}
        for what in FIRST
    }


def main(name: str, arm: str, threads: str) -> None:
    """Measures the first calls in this process and prints the result."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    tf.config.threading.set_inter_op_parallelism_threads(int(threads))
    net = network(name, arm)
    images, labels = _data(_BATCH_SIZE, (_SIDE, _SIDE, 3))
    seconds = []
    for what in ("training step", "predict"):
        call = _call(net, what, images, labels)
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    for _ in range(3):
        net.train_on_batch(images, labels)
    print(json.dumps(dict(zip(FIRST, [*seconds, _peak_memory()], strict=True))))


def _peak_memory():
    """The largest resident size of this process, in bytes. Blank on systems without /proc.

    `resource.getrusage` would include the size of the parent process before `exec`.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    (kibibytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
    return int(kibibytes) * 1024


def _compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss)
    return model


def _data(size, shape):
    generator = np.random.default_rng(0)
    images = generator.uniform(size=(size, *shape)).astype("float32")
    return images, generator.integers(0, _CLASSES, size)


def _call(net, what, images, labels):
    if what == "training step":
        return lambda: net.train_on_batch(images, labels)
    return lambda: net.predict(images, batch_size=len(images), verbose=0)


if __name__ == "__main__":
    main(*sys.argv[1:])
