"""The most memory that a training step of ten convolutions holds, in a process of its own.

TensorFlow's own figure, to the byte: its BFC allocator, which it uses on a CPU too if the
environment asks for it, counts what is held. What is there between two steps (weights, images) is
taken off, so that the rest is what the step keeps for its backward pass and works on.

    python -m sweeps.cost.memory CONTENDER THREADS

prints one JSON object on its last line: by mode, the bytes of each of a few steps.

The allocator gives out a piece of up to twice the size that was asked for. With a large batch, as
here, pieces are the size of one activation or of all of XLA's memory, and what the process takes
from the system (its peak resident size, which is noisier) agrees.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np

CONTENDERS = ("plain", "keras", "kerasbn")
MODES = ("graph", "xla")
_BATCH_SIZE, _STEPS = 256, 3


def measure(threads: int) -> dict[tuple[str, str], np.ndarray]:
    """Starts a process for each contender; returns the bytes of each step, by mode and contender.

    Raises:
        RuntimeError: If one fails, with what it said.
    """
    return {
        (mode, contender): np.array(held)
        for contender in CONTENDERS
        for mode, held in _in_a_process(contender, threads).items()
    }


def _in_a_process(contender, threads):
    module = "sweeps.cost.memory"
    done = subprocess.run(
        [sys.executable, "-m", module, contender, str(threads)],
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPU_ALLOCATOR_USE_BFC": "true"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{module} {contender} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main(contender: str, threads: str) -> None:
    """The process's own part."""
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
