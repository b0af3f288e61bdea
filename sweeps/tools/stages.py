"""A network's accuracy, outputs and speed after each tool is applied: the table stages.csv."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import kerasbn
from sweeps.harness import timing
from sweeps.harness.data import Dataset
from sweeps.tools import networks


def of_lenet(dataset: Dataset, epochs: int, rounds: int) -> list[dict[str, Any]]:
    """One row per stage of LeNet, trained on the data set.

    Args:
        dataset: Data set to train and test on.
        epochs: Number of epochs to train.
        rounds: Number of times to time each inference pass.
    """
    model = networks.trained_lenet(dataset, epochs)
    trained = _copy(model)
    kerasbn.recalibrate(model, networks.images(dataset.x_train[:20000]), batch_size=256)
    x_test = networks.images(dataset.x_test)

    def accuracy(net):
        return float((net.predict(x_test, verbose=0).argmax(-1) == dataset.y_test).mean())

    stages = {"trained": trained, **_after_each_tool(model)}
    return _rows("LeNet", stages, x_test[:1000], x_test[:32], rounds, accuracy)


def of_application(name: str, rounds: int) -> list[dict[str, Any]]:
    """One row per stage of a network of `keras.applications` with random weights.

    Args:
        name: Name of the network in `keras.applications`.
        rounds: Number of times to time each inference pass.
    """
    model = networks.application(name)
    x = networks.random_images(128)
    kerasbn.recalibrate(model, x, batch_size=32)
    networks.vary_batch_norms(model)
    # Random weights have no accuracy worth measuring.
    return _rows(name, _after_each_tool(model), x, x[:16], rounds, lambda net: float("nan"))


def _after_each_tool(recalibrated):
    """A recalibrated network, and the results of applying the other tools to it, by stage."""
    folded = kerasbn.fold(recalibrated)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "model.keras")
        folded.save(path)
        served = keras.models.load_model(path)
    return {
        "recalibrated": recalibrated,
        "to_keras": kerasbn.to_keras(recalibrated),
        "folded": folded,
        "saved and loaded": served,
    }


def _rows(
    network: str,
    stages: Mapping[str, keras.Model],
    x: np.ndarray,
    x_timed: np.ndarray,
    rounds: int,
    accuracy: Callable[[keras.Model], float],
) -> list[dict[str, Any]]:
    """One row per stage, with outputs compared with those of the recalibrated network."""
    seconds = _inference_seconds(stages, x_timed, rounds)
    expected = stages["recalibrated"].predict(x, verbose=0)

    def error(net):
        return float(np.abs(net.predict(x, verbose=0) - expected).max() / np.abs(expected).max())

    return [
        {
            "network": network,
            "stage": stage,
            "bn_layers": len(list(networks.batch_norms(net))),
            "test_accuracy": accuracy(net),
            # Recalibration is meant to change the outputs of the trained network.
            "relative_error": float("nan") if stage == "trained" else error(net),
            "milliseconds": 1e3 * float(np.median(seconds[stage])),
            "time_over_folded": timing.ratio(seconds[stage], seconds["folded"]),
            "batch_size": len(x_timed),
        }
        for stage, net in stages.items()
    ]


def _inference_seconds(stages, x, rounds):
    """The seconds of each stage's inference passes in graph mode. Stages take turns."""
    batch = tf.constant(x)
    tf.get_logger().setLevel("ERROR")  # else it warns that one function per network is retracing

    def compiled(net):
        function = tf.function(lambda batch: net(batch, training=False))
        return lambda: function(batch).numpy()

    return timing.in_turn({name: compiled(net) for name, net in stages.items()}, rounds)


def _copy(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy
