"""Tries the layer and the tools on the batch-norm networks of `keras.applications` and `keras-hub`.

    pip install keras-hub
    python benchmarks/architectures.py                      # the smallest network of each family
    python benchmarks/architectures.py --all                # every size
    python benchmarks/architectures.py ResNet50 MobileNet   # some networks

Weights are random, and nothing is downloaded. Each network runs in its own process, so its memory
is freed. The table is benchmarks/architectures.csv. A row is replaced when its network runs again.
Needs the TensorFlow backend. docs/architectures.md shows the table.

A copy of the network in float64, with Keras's layer, is the truth. The outputs are compared in
float64, because some of these networks amplify rounding errors until nothing of a float32 output is
right. Training is compared in float32. The columns with `keras` give the error of Keras's layer in
float32, for comparison. All differences are relative.

Columns:
    network: Class of the network.
    package: Package that it comes from.
    status: `ok`, or the error that ended the run.
    swapped_by: `from_keras`, or `class` if blocks of the network create their batch norms
        themselves. Then `BatchNorm` takes the place of Keras's class while the network is built.
    norms: Number of batch norms.
    rounding: Difference of the original's outputs in float32 from those of the float64 copy.
    converted: Difference of the copy's outputs after the swap from those before it.
    folded: Number of batch norms that `fold` folds.
    kept: Number of batch norms that `fold` keeps.
    reasons: Reasons for keeping them, each with a count.
    fold_error: Difference of the folded copy's outputs from those of the copy.
    exported: Difference of the outputs of the copy, swapped and exported as a SavedModel without
        folding, from those of the copy.
    recalibrated: Difference of the statistics after `recalibrate` from those of the float64 copy.
    keras_statistics: The same difference for a training step of Keras's layer with momentum 0.
    step: Difference of a fine-tuning step's change of the trainable weights from the copy's.
    keras_step: The same difference for Keras's layer.
    seconds: Time that the network took.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import csv
import functools
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import kerasbn
from kerasbn import folding
from kerasbn._keras_private import all_layers, replaced_call

TABLE = Path(__file__).with_suffix(".csv")
COLUMNS = re.findall(r"^    (\w+): ", __doc__, re.MULTILINE)
IMAGE_SHAPE = (96, 96, 3)
BATCH_SIZE = 8
NORMS = (keras.layers.BatchNormalization, kerasbn.BatchNorm)

# Families of `keras.applications`, the smallest network first.
APPLICATIONS = [
    ["DenseNet121", "DenseNet169", "DenseNet201"],
    [f"EfficientNetB{size}" for size in range(8)],
    [f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")],
    ["InceptionResNetV2"],
    ["InceptionV3"],
    ["MobileNet"],
    ["MobileNetV2"],
    ["MobileNetV3Small", "MobileNetV3Large"],
    ["NASNetMobile", "NASNetLarge"],
    ["ResNet50", "ResNet101", "ResNet152"],
    ["ResNet50V2", "ResNet101V2", "ResNet152V2"],
    ["Xception"],
]
# Backbones of `keras-hub`, with the arguments of small networks.
BACKBONES: dict[str, dict[str, Any]] = {
    "CSPNetBackbone": {
        "stem_filters": 32,
        "stem_kernel_size": 3,
        "stem_strides": 1,
        "stem_padding": "same",
        "stackwise_depth": [1, 2, 2],
        "stackwise_strides": [2, 2, 2],
        "stackwise_num_filters": [64, 128, 256],
        "block_type": "dark_block",
        "stage_type": "csp",
        "bottle_ratio": [0.5, 1.0, 1.0],
        "block_ratio": [1.0, 0.5, 0.5],
        "expand_ratio": [2.0, 1.0, 1.0],
        "down_growth": True,
    },
    "DenseNetBackbone": {"stackwise_num_repeats": [3, 6, 12, 8]},
    "EfficientNetBackbone": {
        "stackwise_width_coefficients": [1.0] * 6,
        "stackwise_depth_coefficients": [1.0] * 6,
        "stackwise_kernel_sizes": [3] * 6,
        "stackwise_num_repeats": [1, 2, 2, 2, 2, 2],
        "stackwise_input_filters": [24, 24, 48, 64, 128, 160],
        "stackwise_output_filters": [24, 48, 64, 128, 160, 256],
        "stackwise_expansion_ratios": [1, 4, 4, 4, 6, 6],
        "stackwise_squeeze_and_excite_ratios": [0.0, 0.0, 0.0, 0.25, 0.25, 0.25],
        "stackwise_strides": [1, 2, 2, 2, 1, 2],
        "stackwise_block_types": ["fused"] * 3 + ["unfused"] * 3,
    },
    "HGNetV2Backbone": {
        "depths": [1, 2, 4],
        "embedding_size": 32,
        "hidden_sizes": [64, 128, 256],
        "stem_channels": [3, 16, 32],
        "hidden_act": "relu",
        "use_learnable_affine_block": False,
        "stackwise_stage_filters": [
            (32, 16, 64, 1, 1, 3),
            (64, 32, 128, 2, 1, 3),
            (128, 64, 256, 4, 1, 3),
        ],
        "apply_downsample": [False, True, True],
        "use_lightweight_conv_block": [False, False, False],
    },
    "ResNetBackbone": {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 128, 256, 512],
        "stackwise_num_blocks": [2, 2, 2, 2],
        "stackwise_num_strides": [1, 2, 2, 2],
        "block_type": "basic_block",
    },
    "XceptionBackbone": {
        "stackwise_conv_filters": [[32, 64], [64, 128], [256, 256]],
        "stackwise_pooling": [True, True, False],
    },
}


def names(every_size: bool) -> list[str]:
    """The networks that a run without names tries."""
    applications = [name for family in APPLICATIONS for name in family[: None if every_size else 1]]
    return [*applications, *BACKBONES]


def build(name: str, dtype: str = "float32") -> keras.Model:
    """A network with random weights."""
    keras.config.set_dtype_policy(dtype)
    keras.utils.set_random_seed(0)
    if name in BACKBONES:
        backbone = getattr(importlib.import_module("keras_hub").models, name)
        shape = "input_shape" if name == "EfficientNetBackbone" else "image_shape"
        model = backbone(**{shape: IMAGE_SHAPE}, **BACKBONES[name])
    else:
        model = getattr(keras.applications, name)(
            input_shape=IMAGE_SHAPE, weights=None, classes=10, classifier_activation=None
        )
    return model


def norms_of(model: keras.Model) -> list[keras.Layer]:
    """The batch norms of a network, at any depth."""
    return [layer for layer in all_layers(model) if isinstance(layer, NORMS)]


def swap(name: str, original: keras.Model) -> tuple[keras.Model, str]:
    """The network with `BatchNorm`, and how it was swapped in."""
    try:
        return kerasbn.from_keras(original), "from_keras"
    except ValueError as error:
        if "makes its BatchNormalization" not in str(error):
            raise
    with mock.patch.object(keras.layers, "BatchNormalization", kerasbn.BatchNorm):
        model = build(name, original.dtype)
    model.set_weights(original.get_weights())
    return model, "class"


def switch_off_dropout(model: keras.Model) -> None:
    """Sets all dropout rates to 0, because random numbers differ between float32 and float64."""
    for layer in all_layers(model):
        if hasattr(layer, "rate"):
            layer.rate = 0.0


def vary(model: keras.Model, images: np.ndarray) -> None:
    """Gives every feature of every batch norm different parameters and statistics.

    The statistics lie around those of the images. Otherwise, activations would grow from layer to
    layer.
    """
    generator = np.random.default_rng(0)
    for norm in norms_of(model):
        shape = norm.moving_mean.shape
        if norm.gamma is not None:
            norm.gamma.assign(generator.uniform(0.5, 1.5, shape))
        if norm.beta is not None:
            norm.beta.assign(generator.normal(0.0, 0.3, shape))
    kerasbn.recalibrate(model, images, batch_size=BATCH_SIZE)
    for norm in norms_of(model):
        mean, variance = map(keras.ops.convert_to_numpy, (norm.moving_mean, norm.moving_variance))
        noise = generator.normal(size=mean.shape)
        norm.moving_mean.assign(mean + 0.3 * np.sqrt(variance) * noise)
        norm.moving_variance.assign(variance * generator.uniform(0.5, 2.0, mean.shape))


def _outputs(model: Callable[..., Any], images: np.ndarray) -> list[np.ndarray]:
    """The outputs in inference mode."""
    outputs = keras.tree.flatten(model(keras.ops.convert_to_tensor(images)))
    return [np.asarray(keras.ops.convert_to_numpy(y), "float64") for y in outputs]


def _difference(actual: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest difference of the outputs, relative to the standard deviation of that output.

    Relative to the largest value, a large mean could hide an error.
    """
    return max(float(np.abs(a - e).max() / e.std()) for a, e in zip(actual, expected, strict=True))


def _statistics(model: keras.Model) -> list[np.ndarray]:
    """The means (row 0) and variances (row 1) of each batch norm."""
    return [
        np.stack([keras.ops.convert_to_numpy(w) for w in (norm.moving_mean, norm.moving_variance)])
        for norm in norms_of(model)
    ]


def _batch_statistics(model: keras.Model, images: np.ndarray) -> list[np.ndarray]:
    """The statistics that Keras's layer computes in training mode, without an old average.

    Keras averages biased variances. Here they are multiplied by m/(m-1), as in `recalibrate`.
    """
    m: dict[int, int] = {}

    def call(norm, inputs, **options):
        m[id(norm)] = inputs.shape[0] * inputs.shape[1] * inputs.shape[2]
        return type(norm).call(norm, inputs, **options)

    norms = norms_of(model)
    with contextlib.ExitStack() as stack:
        for norm in norms:
            norm.momentum = 0.0
            stack.enter_context(replaced_call(norm, functools.partial(call, norm)))
        model(keras.ops.convert_to_tensor(images), training=True)
    corrections = [[[1.0], [m[id(norm)] / (m[id(norm)] - 1)]] for norm in norms]
    return [c * s for c, s in zip(corrections, _statistics(model), strict=True)]


def _statistics_error(actual: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """The largest difference, of means in standard deviations and of variances in variances."""
    errors = []
    for a, t in zip(actual, truth, strict=True):
        variance = t[1] + 1e-3  # so that constant features do not divide by 0
        errors.append(np.max(np.abs(a - t) / [np.sqrt(variance), variance]))
    return float(max(errors))


def _step(model: keras.Model, images: np.ndarray, targets: list[np.ndarray]) -> np.ndarray:
    """The change of the trainable weights in one step of SGD, as one vector.

    With a smaller learning rate, the rounding of the weights would hide the error of the gradients.
    """
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in model.trainable_weights]
    model.compile(keras.optimizers.SGD(1.0), ["mse"] * len(targets))
    model.train_on_batch(images, targets if len(targets) > 1 else targets[0])
    after = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    changes = [np.ravel(b - a).astype("float64") for a, b in zip(after, before, strict=True)]
    return np.concatenate(changes)


def _step_error(actual: np.ndarray, truth: np.ndarray) -> float:
    """The length of the difference of two steps, relative to the length of the true step."""
    return float(np.linalg.norm(actual - truth) / np.linalg.norm(truth))


def _reasons(decisions: list[folding.Decision]) -> str:
    """The reasons for keeping batch norms, without names of layers, and how often each occurs."""
    shortened = (re.sub(r"\S+ \((\w+)\)", r"\1", each.reason) for each in decisions)
    counted = collections.Counter(reason for reason in shortened if reason)
    return "; ".join(f"{count} x {reason}" for reason, count in counted.most_common())


def measure(name: str) -> dict[str, Any]:
    """Tries everything on one network. Returns the measured columns of its row."""
    original = build(name)
    generator = np.random.default_rng(0)
    images = generator.normal(size=(BATCH_SIZE, *IMAGE_SHAPE)).astype("float32")
    if any(isinstance(layer, keras.layers.Rescaling) for layer in original.layers):
        images = np.clip(128 + 64 * images, 0, 255)  # the network takes pixels
    vary(original, images)
    truth = build(name, "float64")
    truth.set_weights(original.get_weights())
    expected = _outputs(truth, images)
    exact, swapped_by = swap(name, truth)
    row: dict[str, Any] = {"swapped_by": swapped_by, "norms": len(norms_of(exact))}
    row["rounding"] = _difference(_outputs(original, images), expected)
    row["converted"] = _difference(_outputs(exact, images), expected)

    decisions = folding.plan(exact)
    row["folded"] = sum(bool(decision.into) for decision in decisions)
    row["kept"] = len(decisions) - row["folded"]
    row["reasons"] = _reasons(decisions)
    row["fold_error"] = _difference(_outputs(kerasbn.fold(exact), images), expected)

    with tempfile.TemporaryDirectory() as folder:
        exact.export(folder, verbose=False)
        served = importlib.import_module("tensorflow").saved_model.load(folder)
        row["exported"] = _difference(_outputs(served.serve, images), expected)

    keras.config.set_dtype_policy("float32")
    converted, _ = swap(name, original)
    for model in (truth, original, converted):
        switch_off_dropout(model)
    kerasbn.recalibrate(converted, images, batch_size=BATCH_SIZE)
    statistics = _batch_statistics(truth, images)
    row["recalibrated"] = _statistics_error(_statistics(converted), statistics)
    of_keras = _batch_statistics(original, images)
    row["keras_statistics"] = _statistics_error(of_keras, statistics)

    targets = [generator.normal(size=y.shape).astype("float32") for y in expected]
    step = _step(truth, images, targets)
    row["step"] = _step_error(_step(converted, images, targets), step)
    row["keras_step"] = _step_error(_step(original, images, targets), step)
    return row


def run(name: str) -> dict[str, Any]:
    """Measures one network in a new process. Returns its row."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--measure", name]
    process = subprocess.run(command, capture_output=True, text=True)
    lines = process.stdout.splitlines()
    if process.returncode == 0:
        row = {"status": "ok", **json.loads(lines[-1])}
    else:
        row = {"status": (process.stderr.splitlines() or [f"exit {process.returncode}"])[-1]}
    package = "keras-hub" if name in BACKBONES else "keras.applications"
    seconds = round(time.perf_counter() - start)
    return {"network": name, "package": package, **row, "seconds": seconds}


def save(rows: list[dict[str, Any]]) -> None:
    """Replaces the rows of these networks in the table and adds new ones."""
    table: dict[str, dict[str, Any]] = {}
    if TABLE.exists():
        with TABLE.open(newline="") as file:
            table = {row["network"]: row for row in csv.DictReader(file)}
    table |= {row["network"]: row for row in rows}
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        order = names(every_size=True)
        writer.writerows(sorted(table.values(), key=lambda row: order.index(row["network"])))


def main() -> int:
    """Measures the chosen networks one after the other and updates the table after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choices = names(every_size=True)
    parser.add_argument("network", nargs="*", help="Network to try. Default: one of each family.")
    parser.add_argument("--all", action="store_true", help="Try every size of each family.")
    parser.add_argument("--measure", metavar="NETWORK", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return 0
    if unknown := [name for name in arguments.network if name not in choices]:
        parser.error(f"unknown network {unknown[0]}. Expected one of: {', '.join(choices)}")
    chosen = arguments.network or names(arguments.all)
    failed = 0
    for number, name in enumerate(chosen, 1):
        print(f"{number}/{len(chosen)} {name}: ", end="", flush=True)
        row = run(name)
        failed += row["status"] != "ok"
        save([row])
        print(", ".join(f"{key} {value}" for key, value in list(row.items())[2:]), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
