"""The run that recorders measure, and ways to look inside its network."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from sweeps.harness.training.estimator import Estimator
from sweeps.harness.trial import Trial

PROBE = 1000  # number of test examples, always the first ones, for tensors inside the network
TRAINING = 10_000  # largest number of training examples for loss, accuracy and recalibration
_AT_ONCE = 2000  # examples per call, so that their activations stay in the cache


class Run(NamedTuple):
    """The network and the data that a recorder measures.

    Attributes:
        estimator: Estimator that holds the network.
        trial: Configuration of the run, except for the seed and the learning rate.
        train: Training examples and labels that the run uses.
        test: Examples and labels that the run is evaluated on.
    """

    estimator: Estimator
    trial: Trial
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


class Stateless:
    """Base class of recorders that keep nothing from one step to the next."""

    def start(self) -> None:
        """Does nothing."""

    def after_execution(self) -> None:
        """Does nothing."""


def hidden_activations(run):
    """The activation layers of a dense network, the one nearest to the input first."""
    layers = run.estimator.model.layers
    return [layer for layer in layers if isinstance(layer, keras.layers.Activation)]


def in_training(model, outputs) -> Callable[[np.ndarray], list[tf.Tensor]]:
    """Makes a function from inputs to tensors inside the model, in training mode.

    The function updates no state of the model.

    Args:
        model: The network.
        outputs: Symbolic tensors of the network.
    """
    taps = keras.Model(model.inputs, outputs)

    @tf.function(reduce_retracing=True)
    def forward(x):
        weights, state = taps.trainable_variables, taps.non_trainable_variables
        tensors, _ = taps.stateless_call(weights, state, x, training=True)
        return tensors if isinstance(tensors, list) else [tensors]

    return forward


def parts(x, y):
    """Examples and labels, split into parts of one call each."""
    return [(x[i : i + _AT_ONCE], y[i : i + _AT_ONCE]) for i in range(0, len(x), _AT_ONCE)]
