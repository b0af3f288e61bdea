"""The network and the optimizer of a trial. Images go in as they are stored: 28 x 28, uint8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

import kerasbn
from sweeps.harness.fused_adam import FusedAdam
from sweeps.harness.trial import Trial


class EstimatorSpec(NamedTuple):
    """What an `Estimator` trains.

    Attributes:
        model: Maps images to logits.
        optimizer: Not built yet.
        loss: Of (labels, logits).
        draw_weights: Gives the model the random initial weights of another run's parameters. All
            others are the same at every start.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    loss: keras.losses.Loss
    draw_weights: Callable[[Any], None]


def model_fn(trial: Trial) -> EstimatorSpec:
    """The trial's network, its optimizer, and cross-entropy."""
    model = build(trial)
    return EstimatorSpec(
        model=model,
        optimizer=_optimizer(trial),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        draw_weights=lambda trial: draw_weights(model, trial),
    )


def _optimizer(trial):
    if trial.optimizer == "adam":
        return FusedAdam(trial.learning_rate)
    return keras.optimizers.get(
        {"class_name": trial.optimizer, "config": {"learning_rate": trial.learning_rate}}
    )


def build(trial: Trial) -> keras.Sequential:
    """Dense -> [batch norm] -> activation, d times, then Dense(10) -> [batch norm]."""
    layers = [
        keras.Input((28, 28), dtype="uint8"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(),
    ]
    *hidden, output = kernel_initializers(trial)
    for units, initializer in zip(trial.hidden_units, hidden, strict=True):
        layers.append(keras.layers.Dense(units, kernel_initializer=initializer))
        if trial.batch_norm:
            layers.append(batch_norm_layer(trial))
        layers.append(keras.layers.Activation(trial.activation))
    layers.append(keras.layers.Dense(10, kernel_initializer=output))
    if trial.bn_logits:
        layers.append(batch_norm_layer(trial))
    return keras.Sequential(layers)


def draw_weights(model: keras.Sequential, trial: Trial) -> None:
    """Gives a network that was built for another seed the kernels of the trial's."""
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    for layer, initializer in zip(dense, kernel_initializers(trial), strict=True):
        layer.kernel.assign(initializer(layer.kernel.shape))


def kernel_initializers(trial: Trial) -> list[keras.initializers.Initializer]:
    """Of each Dense layer: he_normal, the output's Glorot, with seeds from the trial alone.

    Keras would draw the seeds from Python's global generator, which other threads of a worker use,
    too.
    """
    seeds = np.random.SeedSequence(trial.seed).generate_state(trial.depth + 1).tolist()
    return [
        *[keras.initializers.HeNormal(seed=seed) for seed in seeds[:-1]],
        keras.initializers.GlorotUniform(seed=seeds[-1]),
    ]


def lenet(
    norm: Callable[[], keras.layers.Layer] | None, activation: str = "sigmoid"
) -> keras.Sequential:
    """LeNet: two convolutions and three dense layers; `norm` before each hidden activation."""
    layers = keras.layers

    def hidden(layer):
        return [layer, *([norm()] if norm else []), layers.Activation(activation)]

    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *hidden(layers.Conv2D(6, 5, padding="same")),
            layers.AveragePooling2D(2),
            *hidden(layers.Conv2D(16, 5)),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            *hidden(layers.Dense(120)),
            *hidden(layers.Dense(84)),
            layers.Dense(10),
        ]
    )


def batch_norm_layer(trial: Trial) -> keras.layers.Layer:
    """The trial's batch-norm layer: this project's, or Keras's own."""
    layer = {"kerasbn": kerasbn.BatchNorm, "keras": keras.layers.BatchNormalization}[trial.bn_layer]
    return layer(momentum=trial.bn_momentum, epsilon=trial.bn_epsilon)
