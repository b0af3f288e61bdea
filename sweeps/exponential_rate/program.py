"""Gradient descent on a scale-invariant network in float64, with two schedules side by side."""

from __future__ import annotations

import time

import keras
import numpy as np
import tensorflow as tf

import kerasbn
from sweeps.harness.data import Dataset
from sweeps.harness.training import models
from sweeps.harness.training.estimator import History
from sweeps.harness.trial import Trial

# Variance of the initial kernels, times the number of inputs: twice that of he_normal. The
# effective learning rate is inverse to the variance, and low rates amplify rounding less.
VARIANCE = 4.0


def build(trial: Trial) -> keras.Model:
    """Dense -> batch norm -> activation for each hidden layer, then Dense(10) -> batch norm.

    All layers compute in float64. The kernels are the only weights that train: there are no biases,
    and batch norm has neither gamma nor beta. Every kernel is followed by a batch norm, so its
    scale does not matter.
    """
    double = {"dtype": "float64"}

    def normed(units):
        return [
            keras.layers.Dense(
                units,
                use_bias=False,
                kernel_initializer=keras.initializers.VarianceScaling(VARIANCE),
                **double,
            ),
            kerasbn.BatchNorm(epsilon=trial.bn_epsilon, center=False, scale=False, **double),
        ]

    layers = [
        keras.Input((28, 28), dtype="uint8"),
        keras.layers.Rescaling(1 / 255, **double),
        keras.layers.Flatten(**double),
    ]
    for units in trial.hidden_units:
        layers += [*normed(units), keras.layers.Activation(trial.activation, **double)]
    return keras.Sequential([*layers, *normed(10)])


def schedule(name: str, rate: float, decay: float, step: int) -> tuple[float, float]:
    """The factor of the weights and the factor of the gradient in one training step.

    The step is w <- factor * w - rate * gradient.

    Args:
        name: One of the schedules that `sweeps.exponential_rate` compares, or "weight decay" for
            the run that all of them are compared with.
        rate: Constant learning rate r.
        decay: Weight decay L.
        step: Number of steps taken before this one.
    """
    shrink = 1 - decay * rate
    return {
        "weight decay": (shrink, rate),
        "rounding": (shrink, rate),  # its weights start one rounding error away
        "exponential": (1.0, rate * shrink ** (-2 * step - 1)),
        "exponent -2t": (1.0, rate * shrink ** (-2 * step)),
        "constant": (1.0, rate),
    }[name]


def run(trial: Trial, dataset: Dataset) -> History:
    """Runs gradient descent with weight decay and with the trial's schedule, from equal weights.

    It records the largest difference between the logits of the two runs, over images and classes,
    after each step.
    """
    start = time.perf_counter()
    options = dict(trial.options)
    model = models.build(trial)
    chosen = np.random.default_rng(trial.seed).choice(
        len(dataset.y_train), trial.batch_size, replace=False
    )
    images, labels = dataset.x_train[chosen], dataset.y_train[chosen]
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    state = [tf.convert_to_tensor(v) for v in model.non_trainable_variables]

    @tf.function
    def evaluate(kernels):
        with tf.GradientTape() as tape:
            tape.watch(kernels)
            logits, _ = model.stateless_call(kernels, state, images, training=True)
            loss = loss_of(labels, logits)
        return logits, loss, tape.gradient(loss, kernels)

    def steps(name, kernels):
        """Yields logits and loss before each step, and after the last one."""
        for step in range(trial.max_steps + 1):
            logits, loss, gradients = evaluate(kernels)
            yield logits.numpy(), float(loss)
            factor, rate = schedule(name, trial.learning_rate, options["weight_decay"], step)
            kernels = [factor * w - rate * g for w, g in zip(kernels, gradients, strict=True)]

    kernels = [tf.convert_to_tensor(v) for v in model.trainable_variables]
    other = kernels
    if options["schedule"] == "rounding":
        other = [
            tf.math.nextafter(v, tf.fill(v.shape, tf.constant(np.inf, v.dtype))) for v in other
        ]
    history, rows = History(), []
    pairs = zip(steps("weight decay", kernels), steps(options["schedule"], other), strict=True)
    for step, ((expected, _), (logits, loss)) in enumerate(pairs):
        if not np.isfinite(loss):
            history.status = "diverged"
            break
        rows.append((step, float(np.abs(logits - expected).max())))
        history.final_step, history.final_loss = step, loss
        history.curve.append((step, loss, None))
    history.recorded["difference"] = {"columns": ["difference"], "rows": rows}
    history.seconds_total = time.perf_counter() - start
    return history
