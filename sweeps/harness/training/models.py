"""Builds the network, the optimizer and the loss of a trial.

The networks take images as the data sets store them: 28 x 28, uint8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

import kerasbn
from sweeps.harness.training import programs
from sweeps.harness.training.fused_adam import FusedAdam
from sweeps.harness.trial import Trial

# The final values of the schedule in Ioffe 2017, section 4.1.
_RENORM_CLIPPING = {"rmax": 3.0, "rmin": 1 / 3, "dmax": 5.0}


class EstimatorSpec(NamedTuple):
    """A network with everything that an `Estimator` needs to train it.

    Attributes:
        model: The network. It maps images to logits.
        optimizer: The optimizer, not built yet.
        loss: The loss, a function of (labels, logits).
        prepare: Function of (params). Prepares a run with these parameters: draws the random
            initial weights, and sets the learning rate. The other weights have the same initial
            values in every run.
        target: Shape and dtype of one label. Default: one uint8.
        batch_size: Examples per training step, as a constant for TensorFlow to compile in. `None`
            leaves the size open.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    loss: keras.losses.Loss
    prepare: Callable[[Any], None]
    target: tuple[tuple[int, ...], str] = ((), "uint8")
    batch_size: int | None = None


def model_fn(trial: Trial) -> EstimatorSpec:
    """The trial's network, optimizer and loss. The loss is cross-entropy or the squared error.

    The batch size stays open, so one compiled function serves every batch size.
    """
    model, optimizer = build(trial), _optimizer(trial)

    def prepare(trial):
        draw_weights(model, trial)
        if trial.decay_steps is None:
            optimizer.learning_rate = trial.learning_rate  # a variable in the compiled step

    spec = EstimatorSpec(
        model=model,
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        prepare=prepare,
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


def build(trial: Trial) -> keras.Model:
    """The trial's network, with its initial weights."""
    model = (programs.load(trial.program).build or _build)(trial)
    draw_weights(model, trial)
    return model


def _build(trial):
    layers = {"dense": _dense, "lenet": _lenet, "regression": _regression}[trial.architecture]
    return keras.Sequential(layers(trial))


def draw_weights(model: keras.Model, trial: Trial) -> None:
    """Draws a network's kernels and resets its random layers. The seeds depend only on the trial.

    Keras would draw the seeds from Python's global generator, which other threads of a worker also
    use.
    """
    with_kernel = [layer for layer in model.layers if hasattr(layer, "kernel_initializer")]
    seeds = np.random.SeedSequence(trial.seed).generate_state(len(with_kernel)).tolist()
    for layer, seed in zip(with_kernel, seeds, strict=True):
        initializer = layer.kernel_initializer
        initializer = type(initializer).from_config({**initializer.get_config(), "seed": seed})
        layer.kernel.assign(initializer(layer.kernel.shape))
    # Keras counts a seed up with every draw, so neighboring seeds would make a layer repeat the
    # random numbers of another one some steps later.
    random = [layer for layer in model.layers if hasattr(layer, "seed_generator")]
    streams = np.random.SeedSequence(trial.seed).spawn(len(random))
    for layer, stream in zip(random, streams, strict=True):
        layer.seed_generator.state.assign(stream.generate_state(2) >> 1)
    programs.load(trial.program).prepare(model, trial)


def _dense(trial):
    """d times (Dense -> [batch norm] -> activation), then Dense(10) -> [batch norm]."""
    images = [
        keras.Input((28, 28), dtype="uint8"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(),
    ]
    logits = [keras.layers.Dense(10, **_initial(trial, "glorot_uniform"))]
    return [*images, *_hidden(trial), *logits, *([_norm(trial)] if trial.bn_logits else [])]


def _regression(trial):
    """[batch norm], then d times (Dense -> [batch norm] -> activation), then Dense(1)."""
    x = [keras.Input((1,)), *([_norm(trial)] if trial.batch_norm else [])]
    return [*x, *_hidden(trial), keras.layers.Dense(1, **_initial(trial, "glorot_uniform"))]


def _lenet(trial):
    """LeNet on images as the data sets store them."""
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
    """Initializers of a Dense layer. `draw_weights` replaces their seeds."""
    if trial.kernel_stddev is not None:
        kernel = keras.initializers.RandomNormal(stddev=trial.kernel_stddev)
    bias = keras.initializers.Constant(trial.bias) if trial.bias else "zeros"
    return {"kernel_initializer": kernel, "bias_initializer": bias}


def _learning_rate(trial):
    if trial.decay_steps is None:
        return trial.learning_rate
    # The rate falls by a factor of e per time constant.
    return keras.optimizers.schedules.ExponentialDecay(
        trial.learning_rate, trial.decay_steps, math.exp(-1)
    )


def _norm(trial):
    """The trial's normalization layer: batch norm from kerasbn or Keras, or group norm."""
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
    """LeNet on scaled images of shape (28, 28, 1); see `lenet_layers`."""
    return keras.Sequential(
        [keras.Input((28, 28, 1)), *lenet_layers((6, 16, 120, 84), norm, activation)]
    )


def lenet_layers(
    units: tuple[int, int, int, int],
    norm: Callable[[], keras.layers.Layer] | None,
    activation: str,
) -> list[keras.layers.Layer]:
    """The layers of LeNet: two convolutions and three dense layers.

    Args:
        units: Filters of the two convolutions, then units of the two hidden dense layers.
        norm: Makes the normalization layer before each hidden activation. `None` for no
            normalization.
        activation: Keras name of the hidden layers' activation.
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
