"""Passes images through random networks and measures the rank of each layer's outputs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

import kerasbn
from sweeps.harness.data import Dataset
from sweeps.harness.training.estimator import History
from sweeps.harness.trial import Trial

THRESHOLD = 1e-2  # singular values below this share of the largest one do not count


def run(trial: Trial, dataset: Dataset) -> History:
    """Measures layers of a network that is not trained: the first one, every n-th, and the last.

    It records both kinds of rank by layer. Layer 0 holds the images.
    """
    start = time.perf_counter()
    generator = np.random.default_rng(trial.seed)
    chosen = generator.choice(len(dataset.y_train), trial.batch_size, replace=False)
    images = dataset.x_train[chosen].reshape(trial.batch_size, -1) / 255
    measured = {1, trial.depth, *range(0, trial.depth, dict(trial.options)["measure_every"])}
    rows = [
        (0, layer, *ranks(outputs))
        for layer, outputs in enumerate(layers(trial, images, generator))
        if layer in measured
    ]
    history = History(seconds_total=time.perf_counter() - start)
    history.recorded["ranks"] = {"columns": ["layer", "rank", "stable_rank"], "rows": rows}
    return history


def layers(trial: Trial, inputs: np.ndarray, generator: np.random.Generator) -> Iterator[tf.Tensor]:
    """Yields the inputs, then the outputs of each layer: dense -> [batch norm] -> activation.

    Batch norm is in training mode, so it uses the statistics of the inputs. All arithmetic is in
    float64.

    Args:
        trial: Configuration of the network.
        inputs: Inputs of shape (examples, features).
        generator: Source of the kernels. They are normally distributed, with a variance that keeps
            the size of the outputs level: 2 / inputs for ReLU, and 1 / inputs otherwise.
    """
    activation = keras.activations.get(trial.activation)
    gain = 2.0 if trial.activation == "relu" else 1.0
    # All layers share a batch norm, because it has nothing to learn here.
    norm = _norm(trial) if trial.batch_norm else None
    outputs = tf.constant(inputs, tf.float64)
    yield outputs
    for units in trial.hidden_units:
        fan_in = outputs.shape[1]
        kernel = generator.normal(0.0, np.sqrt(gain / fan_in), (fan_in, units))
        outputs = tf.matmul(outputs, tf.constant(kernel))
        if norm:
            outputs = norm(outputs, training=True)
        outputs = activation(outputs)
        yield outputs


def _norm(trial):
    return kerasbn.BatchNorm(epsilon=trial.bn_epsilon, dtype="float64")


def ranks(matrix: tf.Tensor) -> tuple[int, float]:
    """Two measures of a matrix's rank that ignore small singular values.

    Args:
        matrix: Matrix of shape (examples, units), in float64.

    Returns:
        The number of singular values above 1% of the largest one, and the stable rank: the sum of
        all squared singular values over the largest of them. Both are 0 for a matrix of zeros.
    """
    # The squared singular values are the eigenvalues of the Gram matrix. TensorFlow keeps to the
    # trial's number of threads, which NumPy does not.
    squares = tf.linalg.eigvalsh(tf.matmul(matrix, matrix, transpose_a=True)).numpy()
    if squares[-1] <= 0:
        return 0, 0.0
    shares = np.maximum(squares / squares[-1], 0)  # rounding can make them negative
    return int((shares > THRESHOLD**2).sum()), float(shares.sum())
