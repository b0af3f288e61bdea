"""The networks that the tools are applied to."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np

import kerasbn
from sweeps.harness.data import Dataset
from sweeps.harness.training import models

_BATCH_NORMS = (keras.layers.BatchNormalization, kerasbn.BatchNorm)
_IMAGE_SHAPE = (96, 96, 3)


def trained_lenet(dataset: Dataset, epochs: int) -> keras.Model:
    """LeNet with kerasbn's layer, swapped in for Keras's and trained."""
    keras.utils.set_random_seed(0)
    model = kerasbn.from_keras(models.lenet(keras.layers.BatchNormalization))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1.0), loss)
    model.fit(images(dataset.x_train), dataset.y_train, batch_size=256, epochs=epochs, verbose=0)
    return model


def images(pixels: np.ndarray) -> np.ndarray:
    """Images as LeNet takes them: one channel, values from 0 to 1."""
    return pixels[..., None] / np.float32(255)


def application(name: str) -> keras.Model:
    """A network of `keras.applications` with random weights and kerasbn's layer swapped in."""
    keras.utils.set_random_seed(0)
    original = getattr(keras.applications, name)(
        input_shape=_IMAGE_SHAPE, weights=None, classes=10, classifier_activation=None
    )
    return kerasbn.from_keras(original)


def random_images(count: int) -> np.ndarray:
    """Random images for a network of `keras.applications`."""
    generator = np.random.default_rng(0)
    return generator.normal(size=(count, *_IMAGE_SHAPE)).astype(np.float32)


def batch_norms(model: keras.Model) -> Iterator[keras.Layer]:
    """The batch-norm layers of a model and of the models nested in it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from batch_norms(layer)
        elif isinstance(layer, _BATCH_NORMS):
            yield layer


def vary_batch_norms(model: keras.Model) -> None:
    """Gives every feature of every batch-norm layer different parameters and statistics.

    An untrained layer has the same parameters for all features, so folding could go wrong
    unnoticed.
    """
    generator = np.random.default_rng(0)
    for layer in batch_norms(model):
        mean, variance = map(keras.ops.convert_to_numpy, (layer.moving_mean, layer.moving_variance))
        noise = generator.normal(size=mean.shape)
        layer.moving_mean.assign(mean + 0.3 * np.sqrt(variance) * noise)
        layer.moving_variance.assign(variance * generator.uniform(0.5, 2.0, mean.shape))
        layer.gamma.assign(generator.uniform(0.5, 1.5, mean.shape))
        layer.beta.assign(generator.normal(0.0, 0.3, mean.shape))
