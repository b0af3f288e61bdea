"""Private APIs of other libraries. Each test names the function to repair when an API goes away."""

import keras
import numpy as np
import pytest

from sweeps.harness.results.tensorboard import histogram_metadata
from sweeps.harness.training._keras_private import adam_moments


def test_keras_still_has_the_moments_of_adam():
    weights = [keras.Variable(np.ones(shape), dtype="float64") for shape in (2, 3)]
    optimizer = keras.optimizers.Adam(0.01, beta_1=0.5, beta_2=0.75)
    optimizer.build(weights)
    gradients = [np.full(2, 4.0), np.full(3, 8.0)]
    optimizer.apply(gradients, weights)
    try:
        moments = [adam_moments(optimizer, weight.value) for weight in weights]
    except AttributeError as error:
        pytest.fail(
            f"Keras {keras.__version__} changed the private state of Adam ({error}). Correct "
            "adam_moments in sweeps/harness/training/_keras_private.py."
        )
    for gradient, (momentum, velocity) in zip(gradients, moments, strict=True):
        np.testing.assert_array_equal(momentum, 0.5 * gradient)
        np.testing.assert_array_equal(velocity, 0.25 * gradient**2)


def test_tensorboard_still_has_the_metadata_of_histograms():
    try:
        metadata = histogram_metadata()
    except (ImportError, AttributeError, TypeError) as error:
        pytest.fail(
            f"TensorBoard changed its histogram plugin ({error}). Correct histogram_metadata in "
            "sweeps/harness/results/tensorboard.py."
        )
    assert metadata.plugin_data.plugin_name == "histograms"
