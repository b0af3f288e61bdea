"""`diagnose` on networks of `keras.applications` with random weights, and its time in passes."""

from __future__ import annotations

import time

import keras
import numpy as np
import pytest

import kerasbn

LIMIT = 0.6  # of the drift for so few images
NETWORKS = {  # name: (side of the images, their standard deviation, number of batch norms)
    "MobileNetV2": (64, 1, 52),
    "ResNet50": (64, 1, 53),
    "EfficientNetB0": (64, 255, 49),  # it divides its inputs by 255
    "Xception": (71, 1, 40),
    "InceptionV3": (75, 1, 94),
}


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NETWORKS)
def test_an_untrained_network_lags(name, capsys):
    keras.utils.set_random_seed(0)
    side, deviation, norms = NETWORKS[name]
    model = getattr(keras.applications, name)(input_shape=(side, side, 3), weights=None, classes=10)
    x = np.random.default_rng(0).normal(0, deviation, (8, side, side, 3))
    x = x.astype("float32")
    model.predict(x, batch_size=4, verbose=0)
    start = time.perf_counter()
    model.predict(x, batch_size=4, verbose=0)
    seconds_of_a_pass = time.perf_counter() - start
    start = time.perf_counter()
    report = kerasbn.diagnose(model, x, batch_size=4)
    seconds = time.perf_counter() - start
    examined = sum(layer.effect is not None for layer in report.layers)
    with capsys.disabled():
        print(
            f"\n{keras.backend.backend()} {name}: {report.passes} passes in {seconds:.1f} s with "
            f"compilation, {seconds / seconds_of_a_pass / report.passes:.1f} times predict"
        )
    assert len(report.layers) == norms
    assert report.passes == 3 + examined <= 3 + norms
    drifting = {each.layer for each in report.layers if each.drift > LIMIT}
    lagging = {each.layer for each in report.findings if each.fault == "lagging averages"}
    # The last layers of InceptionV3 see one pixel per image, which explains a mild drift.
    small = {each.layer for each in report.findings if each.fault == "small batches"}
    assert drifting - small <= lagging <= drifting
    assert lagging
    assert not {"training=True", "shared", "not finite", "mask ignored", "frozen"} & {
        finding.fault for finding in report.findings
    }
