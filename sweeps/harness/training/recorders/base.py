"""What recorders share: the run that they look at, and ways to look inside its network."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from sweeps.harness.training.estimator import Estimator
from sweeps.harness.trial import Trial

PROBE = 1000  # number of test examples, always the first, used to look at tensors in the network
TRAINING = 10_000  # number of training examples that suffice for their loss and accuracy
_AT_ONCE = 2000  # examples per call, so that their activations stay in the cache


class Run(NamedTuple):
    """What a recorder may look at.

    Attributes:
        estimator: Holds the network.
        trial: Its configuration, but for the seed.
        train: Training examples and labels, those that are used.
        test: Test examples and labels.
    """

    estimator: Estimator
    trial: Trial
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


class Stateless:
    """What most recorders do alike: nothing is kept from one step to the next."""

    def start(self) -> None:
        """Nothing is kept."""

    def after_execution(self) -> None:
        """Nothing is kept."""


def hidden_activations(run):
    """The activation layers of a network of dense layers, from the input."""
    layers = run.estimator.model.layers
    return [layer for layer in layers if isinstance(layer, keras.layers.Activation)]


def in_training(model, outputs) -> Callable[[np.ndarray], list[tf.Tensor]]:
    """A function of inputs: tensors inside the model, in training mode; no state moves."""
    taps = keras.Model(model.inputs, outputs)

    @tf.function(reduce_retracing=True)
    def forward(x):
        weights, state = taps.trainable_variables, taps.non_trainable_variables
        found, _ = taps.stateless_call(weights, state, x, training=True)
        return found if isinstance(found, list) else [found]

    return forward


def parts(x, y):
    """Examples and labels, cut into parts for one call each."""
    return [(x[i : i + _AT_ONCE], y[i : i + _AT_ONCE]) for i in range(0, len(x), _AT_ONCE)]
