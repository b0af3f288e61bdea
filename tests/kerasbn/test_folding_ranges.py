"""`fold(verbose=True)` prints the weight ranges of each folded layer, channel by channel."""

import re

import keras
import numpy as np
import pytest
from keras import layers

import kerasbn
from kerasbn.tools._weight_ranges import range_of

pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")
SCALES = np.array([1.0, 0.5, 0.01, 4.0])  # of the output channels after folding


def with_scales(layer, shape, scales=SCALES):
    """The layer with kernels of ones, and a batch norm that multiplies channel i by scales[i]."""
    norm = kerasbn.BatchNorm(name="bn")
    model = keras.Sequential([keras.Input(shape), layer, norm])
    for weight in layer.weights:
        weight.assign(np.ones(weight.shape))
    norm.gamma.assign(scales * np.sqrt(1 + norm.epsilon))
    return model


LAYERS = {
    "Dense": (layers.Dense(4, name="layer"), (3,)),
    "Conv2D": (layers.Conv2D(4, 2, name="layer"), (5, 5, 3)),
    "grouped": (layers.Conv1D(4, 2, groups=2, name="layer"), (5, 6)),
    "DepthwiseConv2D": (layers.DepthwiseConv2D(2, depth_multiplier=2, name="layer"), (5, 5, 2)),
    "Conv2DTranspose": (layers.Conv2DTranspose(4, 2, name="layer"), (5, 5, 3)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_ranges_of_the_output_channels(kind):
    model = with_scales(*LAYERS[kind])
    before = range_of(model.get_layer("layer"), "kernel")
    after = range_of(kerasbn.fold(model).get_layer("layer"), "kernel")
    assert before == (1.0, 4, 1.0)
    assert after == pytest.approx((4.0, 4, 0.01 / 4.0), rel=1e-5)


def test_separable_kernels():
    model = with_scales(layers.SeparableConv2D(4, 2, name="layer"), (5, 5, 3))
    folded = kerasbn.fold(model).get_layer("layer")
    assert range_of(folded, "depthwise_kernel") == (1.0, 3, 1.0)
    assert range_of(folded, "pointwise_kernel").narrowest == pytest.approx(0.01 / 4.0, rel=1e-5)


def test_channels_of_zeros_do_not_count():
    for scales, expected in (([0.0, 2, 1, 0], (2.0, 4, 0.5)), ([0.0, 0, 0, 0], (0.0, 4, 1.0))):
        folded = kerasbn.fold(with_scales(layers.Dense(4, name="layer"), (3,), np.array(scales)))
        assert range_of(folded.get_layer("layer"), "kernel") == pytest.approx(expected, rel=1e-5)


def test_table(capsys):
    model = with_scales(layers.Dense(4, name="layer"), (3,), np.array([1.0, 0.5, 0.25, 4.0]))
    kerasbn.fold(model, verbose=True)
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "│ layer" in line]
    assert re.findall(r"[\w±.%]+", row) == ["layer", "4", "±4", "100.0%", "6.2%", "±8"]


def test_int8_steps_are_the_largest_quantized_weight():
    """Rounds a folded kernel to int8 with one scale, as a converter does."""
    rng = np.random.default_rng(0)
    model = with_scales(layers.Dense(4, name="layer"), (30,))
    model.get_layer("layer").kernel.assign(rng.normal(size=(30, 4)))
    folded = kerasbn.fold(model).get_layer("layer")
    kernel = keras.ops.convert_to_numpy(folded.kernel).astype("float64")
    quantized = np.round(kernel / np.abs(kernel).max() * 127)
    steps = np.abs(quantized).max(0).min()
    assert steps == np.round(127 * range_of(folded, "kernel").narrowest) < 2


def test_no_table_if_nothing_is_folded(capsys):
    model = keras.Sequential([keras.Input((3,)), kerasbn.BatchNorm()])
    kerasbn.fold(model, verbose=True)
    assert "Weight ranges" not in capsys.readouterr().out
