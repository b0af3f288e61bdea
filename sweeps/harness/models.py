"""The network and the optimizer of a trial. Images go in as they are stored: 28 x 28, uint8."""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np

import kerasbn
from sweeps.harness.trial import Trial


class EstimatorSpec(NamedTuple):
    """What an `Estimator` trains.

    Attributes:
        model: Maps images to logits.
        optimizer: Not built yet.
        loss: Of (labels, logits).
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    loss: keras.losses.Loss


def model_fn(trial: Trial) -> EstimatorSpec:
    """The trial's network, its optimizer, and cross-entropy."""
    return EstimatorSpec(
        model=build(trial),
        optimizer=keras.optimizers.get(
            {"class_name": trial.optimizer, "config": {"learning_rate": trial.learning_rate}}
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )


def build(trial: Trial) -> keras.Sequential:
    """Dense -> [batch norm] -> activation, d times, then Dense(10) -> [batch norm].

    Kernels are he_normal (the output's Glorot). Their seeds come from the trial alone: Keras would
    draw them from Python's global generator, which other threads of a worker use, too.
    """
    seeds = iter(np.random.SeedSequence(trial.seed).generate_state(trial.depth + 1).tolist())
    layers = [
        keras.Input((28, 28), dtype="uint8"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(),
    ]
    for units in trial.hidden_units:
        he_normal = keras.initializers.HeNormal(seed=next(seeds))
        layers.append(keras.layers.Dense(units, kernel_initializer=he_normal))
        if trial.batch_norm:
            layers.append(batch_norm_layer(trial))
        layers.append(keras.layers.Activation(trial.activation))
    glorot = keras.initializers.GlorotUniform(seed=next(seeds))
    layers.append(keras.layers.Dense(10, kernel_initializer=glorot))
    if trial.bn_logits:
        layers.append(batch_norm_layer(trial))
    return keras.Sequential(layers)


def batch_norm_layer(trial: Trial) -> keras.layers.Layer:
    """The trial's batch-norm layer: this project's, or Keras's own."""
    layer = {"kerasbn": kerasbn.BatchNorm, "keras": keras.layers.BatchNormalization}[trial.bn_layer]
    return layer(momentum=trial.bn_momentum, epsilon=trial.bn_epsilon)
