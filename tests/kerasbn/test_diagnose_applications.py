"""`diagnose` on networks of `keras.applications` with random weights, and its time in passes."""

from __future__ import annotations

import time

import keras
import numpy as np
import pytest

import kerasbn

NETWORKS = {  # name: (side of the images, number of batch norms)
    "MobileNetV2": (64, 52),
    "ResNet50": (64, 53),
    "EfficientNetB0": (64, 49),
    "Xception": (71, 40),
    "InceptionV3": (75, 94),
}


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NETWORKS)
def test_an_untrained_network_lags(name, capsys):
    keras.utils.set_random_seed(0)
    side, norms = NETWORKS[name]
    model = getattr(keras.applications, name)(input_shape=(side, side, 3), weights=None, classes=10)
    x = np.random.default_rng(0).normal(size=(8, side, side, 3)).astype("float32")
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
    lagging = [finding for finding in report.findings if finding.fault == "lagging averages"]
    assert len(lagging) > 10
    assert not {"training=True", "shared", "not finite", "mask ignored", "frozen"} & {
        finding.fault for finding in report.findings
    }
