"""The contenders for whole networks, plain and with batch norm.

A training step is the studies' own (`sweeps.harness.training.estimator`), on images of the data
set, except that TensorFlow knows the batch size. It takes a batch from NumPy and returns the loss.
An inference pass calls the network in inference mode on a batch in TensorFlow's memory.

The contenders:

    plain       no batch norm
    keras       keras.layers.BatchNormalization
    kerasbn     kerasbn.BatchNorm
    folded      the kerasbn network after kerasbn.fold, in inference only
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

import kerasbn
from sweeps.cost.layers import MODES, Call, Key
from sweeps.harness.data import Dataset
from sweeps.harness.training import models
from sweeps.harness.training.estimator import Estimator
from sweeps.harness.trial import HIDDEN_UNITS, Trial

ARMS = {"plain": None, "keras": keras.layers.BatchNormalization, "kerasbn": kerasbn.BatchNorm}
CONVOLUTIONS, FILTERS = 10, 32
_MOMENTUM = 0.9


class Setting(NamedTuple):
    """The parameters of an `Estimator`.

    Attributes:
        arm: Contender, a key of `ARMS`.
        batch_size: Examples per training step.
        jit_compile: Whether XLA compiles the training step.
        steps_per_execution: Largest number of steps per call of the compiled function.
    """

    arm: str
    batch_size: int
    jit_compile: bool
    steps_per_execution: int = 1


class Network(NamedTuple):
    """A network to measure.

    Attributes:
        what: Kind of network, as in the tables.
        size: Number of hidden layers.
        batch_size: Batch size of the study that the network comes from.
        model_fn: Function that makes the network from a `Setting`.
    """

    what: str
    size: int
    batch_size: int
    model_fn: Callable[[Setting], models.EstimatorSpec]


def networks() -> list[Network]:
    """The depth study's networks at every depth, and LeNet."""
    dense = [
        Network("dense net", depth, 500, partial(_dense, depth=depth))
        for depth in range(1, len(HIDDEN_UNITS) + 1)
    ]
    return [*dense, Network("LeNet", 4, 256, _lenet)]


def deepest(setting: Setting) -> keras.Model:
    """The depth study's deepest network, which is not compiled."""
    return _dense(setting, len(HIDDEN_UNITS)).model


def conv_net(setting: Setting) -> models.EstimatorSpec:
    """Ten blocks of Conv2D -> [batch norm] -> ReLU at full resolution, to measure memory."""
    layers = keras.layers
    body = []
    for _ in range(CONVOLUTIONS):
        body += [layers.Conv2D(FILTERS, 3, padding="same"), *_norm(setting.arm)]
        body.append(layers.Activation("relu"))
    return _spec(setting, [*body, layers.GlobalAveragePooling2D(), layers.Dense(10)])


def contenders(network: Network, dataset: Dataset) -> tuple[dict[Key, Call], dict[Key, Call]]:
    """The training steps and the inference passes of a network, by mode and contender."""
    size = network.batch_size
    chosen = np.arange(size) % len(dataset.y_train)  # repeats images of a small data set
    images, labels = dataset.x_train[chosen], dataset.y_train[chosen]
    held = tf.constant(images)
    steps: dict[Key, Call] = {}
    passes: dict[Key, Call] = {}
    for arm in ARMS:
        for mode, jit in MODES.items():
            estimator = Estimator(network.model_fn, Setting(arm, size, jit))
            steps[mode, arm] = partial(estimator.train_steps, [(images, labels)])
        nets = {arm: estimator.model}
        if arm == "kerasbn":
            nets["folded"] = kerasbn.fold(estimator.model)
        for name, net in nets.items():
            for mode, jit in MODES.items():
                passes[mode, name] = _inference_pass(net, jit, held)
    return steps, passes


def _inference_pass(net, jit, images):
    forward = tf.function(lambda images: net(images, training=False), jit_compile=jit)
    return lambda: [forward(images).numpy()]


def _dense(setting, depth):
    spec = models.model_fn(
        Trial(
            dataset="",
            seed=0,
            hidden_units=HIDDEN_UNITS[:depth],
            batch_norm=setting.arm != "plain",
            bn_layer=setting.arm,
            bn_momentum=_MOMENTUM,
            learning_rate=0.01,
            batch_size=setting.batch_size,
            max_steps=1,
            target_accuracy=0.9,
            jit_compile=setting.jit_compile,
        )
    )
    return spec._replace(batch_size=setting.batch_size)


def _lenet(setting):
    norm = (lambda: _norm(setting.arm)[0]) if setting.arm != "plain" else None
    return _spec(setting, models.lenet(norm).layers)


def _norm(arm):
    return [] if arm == "plain" else [ARMS[arm](momentum=_MOMENTUM)]


def _spec(setting, layers):
    return models.EstimatorSpec(
        model=keras.Sequential(
            [
                keras.Input((28, 28), dtype="uint8"),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Reshape((28, 28, 1)),
                *layers,
            ]
        ),
        optimizer=keras.optimizers.SGD(0.1),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        prepare=lambda params: None,
        batch_size=setting.batch_size,
    )
