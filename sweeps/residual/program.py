"""Residual networks, and the share of the variance that their branches contribute."""

from __future__ import annotations

import keras
import numpy as np

import kerasbn
from sweeps.harness.training.recorders.base import PROBE, Run, Stateless
from sweeps.harness.trial import Trial

# Mean and standard deviation of MNIST's pixels, from 0 to 1. With them, the inputs have variance 1
# as in the paper, and so does the output of the first layer.
_MEAN, _STD = 0.1307, 0.3081


@keras.saving.register_keras_serializable("kerasbn_sweeps")
class Scalar(keras.layers.Layer):
    """SkipInit: multiplies its input by a trainable scalar, initially 0."""

    def build(self, input_shape):
        """Creates the scalar."""
        self.scalar = self.add_weight(shape=(), initializer="zeros", name="scalar")

    def call(self, inputs):
        """The input times the scalar."""
        return self.scalar * inputs


def build(trial: Trial) -> keras.Model:
    """A residual network with one block per entry of `hidden_units`, all of the same width.

    The first layer maps the image to that width. Each block adds its branch to its input. The
    branch is [batch norm] -> activation -> Dense -> [scalar]. After the last block come [batch
    norm], the activation and the output layer.
    """
    layers = keras.layers
    width, branch_kind = trial.hidden_units[0], dict(trial.options)["branch"]

    def activated(x):
        if trial.batch_norm:
            norms = {"kerasbn": kerasbn.BatchNorm, "keras": layers.BatchNormalization}
            norm = norms[trial.bn_layer]
            x = norm(momentum=trial.bn_momentum, epsilon=trial.bn_epsilon)(x)
        return layers.Activation(trial.activation)(x)

    images = keras.Input((28, 28), dtype="uint8")
    x = layers.Flatten()(layers.Rescaling(1 / (255 * _STD), -_MEAN / _STD)(images))
    x = layers.Dense(width, kernel_initializer="lecun_normal")(x)
    for _ in range(trial.depth):
        branch = layers.Dense(width, kernel_initializer="he_normal")(activated(x))
        if branch_kind == "skip_init":
            branch = Scalar()(branch)
        x = layers.Add()([x, branch])
    return keras.Model(images, layers.Dense(10)(activated(x)))


class Branches(Stateless):
    """Variances in each block, on the first 1,000 test images.

    A variance is over images and units, because the paper's is over images and initial weights. The
    network is in training mode, so batch norm normalizes with the statistics of these images.

    Columns:
        block: Number of the block. Block 1 is next to the input.
        branch_variance: Variance of the branch's output.
        output_variance: Variance of the block's output, the sum of its input and its branch.
        share: `branch_variance` over `output_variance`.
    """

    columns = ("block", "branch_variance", "output_variance", "share")

    def __init__(self, run: Run):
        model = run.estimator.model
        blocks = [layer for layer in model.layers if isinstance(layer, keras.layers.Add)]
        tensors = [tensor for block in blocks for tensor in (block.input[1], block.output)]
        self._taps = keras.Model(model.inputs, tensors)
        self._images = run.test[0][:PROBE]

    def rows(self, step: int) -> list[tuple]:
        """One row per block."""
        # Tracing 200 blocks would take longer than these few calls.
        weights, state = self._taps.trainable_variables, self._taps.non_trainable_variables
        values, _ = self._taps.stateless_call(weights, state, [self._images], training=True)
        variances = [np.var(each.numpy(), dtype=np.float64).item() for each in values]
        pairs = zip(variances[::2], variances[1::2], strict=True)
        return [
            (block, branch, output, branch / output)
            for block, (branch, output) in enumerate(pairs, 1)
        ]


RECORDERS = {"branches": Branches}
