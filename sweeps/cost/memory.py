"""The peak memory of a training step of ten convolutions, measured in its own process.

TensorFlow counts the bytes that its BFC allocator holds. The environment variable
TF_CPU_ALLOCATOR_USE_BFC enables this allocator on a CPU. The figure leaves out memory that is held
between steps (weights and images), so it is the memory of the backward pass and of temporary
tensors. The allocator may hand out up to twice the requested size. At this large batch size, a
request is as large as an activation or as all of XLA's memory, and the figure agrees with the
noisier peak resident size of the process.

    python -m sweeps.cost.memory CONTENDER THREADS

prints one JSON object on its last line: the bytes of each of a few steps, by mode.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from sweeps.cost import child_process

CONTENDERS = ("plain", "keras", "kerasbn")
MODES = ("graph", "xla")
_BATCH_SIZE, _STEPS = 256, 3


def measure(threads: int) -> dict[tuple[str, str], np.ndarray]:
    """Measures each contender in a new process.

    Args:
        threads: Threads of TensorFlow.

    Returns:
        Bytes of each step, by mode and contender.

    Raises:
        RuntimeError: If a process fails.
    """
    environment = {"KERAS_BACKEND": "tensorflow", "TF_CPU_ALLOCATOR_USE_BFC": "true"}
    return {
        (mode, contender): np.array(held)
        for contender in CONTENDERS
        for mode, held in child_process.run(
            "sweeps.cost.memory", contender, threads, **environment
        ).items()
    }


def main(contender: str, threads: str) -> None:
    """Measures in this process and prints the result."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    tf.config.threading.set_inter_op_parallelism_threads(int(threads))
    from sweeps.cost import networks
    from sweeps.harness.training.estimator import Estimator

    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (_BATCH_SIZE, 28, 28)).astype(np.uint8)
    labels = generator.integers(0, 10, _BATCH_SIZE).astype(np.uint8)

    def bytes_of(steps):
        tf.config.experimental.reset_memory_stats("CPU:0")
        before = tf.config.experimental.get_memory_info("CPU:0")["current"]
        steps([(images, labels)])
        return tf.config.experimental.get_memory_info("CPU:0")["peak"] - before

    held = {}
    for mode in MODES:
        setting = networks.Setting(contender, _BATCH_SIZE, networks.MODES[mode])
        steps = Estimator(networks.conv_net, setting).train_steps
        held[mode] = [bytes_of(steps) for _ in range(_STEPS)]
    print(json.dumps(held))


if __name__ == "__main__":
    main(*sys.argv[1:])
