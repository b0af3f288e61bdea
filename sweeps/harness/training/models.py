"""The network and the optimizer of a trial. Images go in as they are stored: 28 x 28, uint8."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

import kerasbn
from sweeps.harness.training.fused_adam import FusedAdam
from sweeps.harness.trial import Trial

# Where the paper's schedule ends (Ioffe 2017, section 4.1).
_RENORM_CLIPPING = {"rmax": 3.0, "rmin": 1 / 3, "dmax": 5.0}


class EstimatorSpec(NamedTuple):
    """What an `Estimator` trains.

    Attributes:
        model: Maps images to logits.
        optimizer: Not built yet.
        loss: Of (labels, logits).
        draw_weights: Gives the model the random initial weights of another run's parameters. All
            others are the same at every start.
        target: Shape and dtype of a label.
        batch_size: Of every training step, if TensorFlow is to know it; `None`: it is not.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    loss: keras.losses.Loss
    draw_weights: Callable[[Any], None]
    target: tuple[tuple[int, ...], str] = ((), "uint8")
    batch_size: int | None = None


def model_fn(trial: Trial) -> EstimatorSpec:
    """The trial's network, its optimizer, and its loss: cross-entropy, or the squared error.

    Its batch size is left unknown: kerasbn compiles a kernel for each width of rows whose number is
    known, which takes some seconds and, on the one thread of a trial, gains nothing in its steps.
    """
    model = build(trial)
    spec = EstimatorSpec(
        model=model,
        optimizer=_optimizer(trial),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        draw_weights=lambda trial: draw_weights(model, trial),
    )
    if trial.architecture == "regression":
        return spec._replace(loss=keras.losses.MeanSquaredError(), target=((1,), "float32"))
    return spec


def _optimizer(trial):
    if trial.optimizer == "adam":
        return FusedAdam(_learning_rate(trial))
    return keras.optimizers.get(
        {"class_name": trial.optimizer, "config": {"learning_rate": _learning_rate(trial)}}
    )


def build(trial: Trial) -> keras.Sequential:
    """The trial's network, with its initial weights."""
    layers = {"dense": _dense, "lenet": _lenet, "regression": _regression}[trial.architecture]
    model = keras.Sequential(layers(trial))
    draw_weights(model, trial)
    return model


def draw_weights(model: keras.Sequential, trial: Trial) -> None:
    """Gives a network the kernels of the trial, with seeds from the trial alone.

    Keras would draw the seeds from Python's global generator, which other threads of a worker use,
    too.
    """
    with_kernel = [layer for layer in model.layers if hasattr(layer, "kernel_initializer")]
    seeds = np.random.SeedSequence(trial.seed).generate_state(len(with_kernel)).tolist()
    for layer, seed in zip(with_kernel, seeds, strict=True):
        initializer = layer.kernel_initializer
        initializer = type(initializer).from_config({**initializer.get_config(), "seed": seed})
        layer.kernel.assign(initializer(layer.kernel.shape))
    for number, layer in enumerate(model.layers):
        if isinstance(layer, keras.layers.Dropout):
            layer.seed_generator.state.assign([trial.seed, number])


def _dense(trial):
    """Dense -> [batch norm] -> activation, d times, then Dense(10) -> [batch norm]."""
    images = [
        keras.Input((28, 28), dtype="uint8"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(),
    ]
    logits = [keras.layers.Dense(10, **_initial(trial, "glorot_uniform"))]
    return [*images, *_hidden(trial), *logits, *([_norm(trial)] if trial.bn_logits else [])]


def _regression(trial):
    """[batch norm] -> (Dense -> [batch norm] -> activation), d times, then Dense(1)."""
    x = [keras.Input((1,)), *([_norm(trial)] if trial.batch_norm else [])]
    return [*x, *_hidden(trial), keras.layers.Dense(1, **_initial(trial, "glorot_uniform"))]


def _lenet(trial):
    """LeNet on images as they are stored."""
    images = [
        keras.Input((28, 28), dtype="uint8"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Reshape((28, 28, 1)),
    ]
    norm = (lambda: _norm(trial)) if trial.batch_norm else None
    return [*images, *lenet_layers(trial.hidden_units, norm, trial.activation)]


def _hidden(trial):
    layers = []
    for units in trial.hidden_units:
        regularizer = keras.regularizers.L2(trial.l2) if trial.l2 else None
        initial = _initial(trial, "he_normal")
        layers.append(keras.layers.Dense(units, kernel_regularizer=regularizer, **initial))
        if trial.batch_norm or trial.group_norm:
            layers.append(_norm(trial))
        layers.append(keras.layers.Activation(trial.activation))
        if trial.dropout:
            layers.append(keras.layers.Dropout(trial.dropout, seed=0))
    return layers


def _initial(trial, kernel):
    """Arguments of a Dense layer; the seeds come from `draw_weights`."""
    if trial.kernel_stddev is not None:
        kernel = keras.initializers.RandomNormal(stddev=trial.kernel_stddev)
    bias = keras.initializers.Constant(trial.bias) if trial.bias else "zeros"
    return {"kernel_initializer": kernel, "bias_initializer": bias}


def _learning_rate(trial):
    if trial.decay_steps is None:
        return trial.learning_rate
    # Divided by e in each time constant.
    return keras.optimizers.schedules.ExponentialDecay(
        trial.learning_rate, trial.decay_steps, math.exp(-1)
    )


def _norm(trial):
    """The trial's batch-norm layer (this project's, or Keras's own), or what it has instead."""
    if trial.group_norm:
        return keras.layers.GroupNormalization(trial.group_norm)
    options = {"momentum": trial.bn_momentum, "epsilon": trial.bn_epsilon}
    if trial.bn_renorm:
        options |= {"renorm": True, "renorm_clipping": _RENORM_CLIPPING}
        options["renorm_momentum"] = trial.bn_momentum
    if trial.bn_virtual_batch_size:
        options["virtual_batch_size"] = trial.bn_virtual_batch_size
    layer = {"kerasbn": kerasbn.BatchNorm, "keras": keras.layers.BatchNormalization}[trial.bn_layer]
    return layer(**options)


def lenet(
    norm: Callable[[], keras.layers.Layer] | None, activation: str = "sigmoid"
) -> keras.Sequential:
    """LeNet, of images (28, 28, 1) that are scaled already; see `lenet_layers`."""
    return keras.Sequential(
        [keras.Input((28, 28, 1)), *lenet_layers((6, 16, 120, 84), norm, activation)]
    )


def lenet_layers(
    units: tuple[int, int, int, int],
    norm: Callable[[], keras.layers.Layer] | None,
    activation: str,
) -> list[keras.layers.Layer]:
    """LeNet: two convolutions and three dense layers; `norm` before each hidden activation.

    Args:
        units: Filters of the two convolutions, units of the two hidden dense layers.
        norm: Makes a normalization layer; `None`: there is none.
        activation: Of the hidden layers.
    """
    layers = keras.layers

    def hidden(layer):
        return [layer, *([norm()] if norm else []), layers.Activation(activation)]

    return [
        *hidden(layers.Conv2D(units[0], 5, padding="same")),
        layers.AveragePooling2D(2),
        *hidden(layers.Conv2D(units[1], 5)),
        layers.AveragePooling2D(2),
        layers.Flatten(),
        *hidden(layers.Dense(units[2])),
        *hidden(layers.Dense(units[3])),
        layers.Dense(10),
    ]
