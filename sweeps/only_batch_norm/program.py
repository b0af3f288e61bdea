"""Networks of which only a part trains, and recorders of their gammas and parameters.

The initial weights are those of Frankle et al. 2021: gammas from U(0, 1), and betas 0.
"""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import ops

from sweeps.harness.training import models
from sweeps.harness.training.recorders.base import Run, Stateless
from sweeps.harness.trial import Trial

_PER_UNIT = 2  # trained weights per unit or filter, as many as its gamma and beta


class _TwoWeights:
    """Base class of layers in which only two weights per unit train, at random positions.

    The other base class is a layer with a kernel.

    The kernel and the bias stay as they are. The trained changes are added to the kernel.

    Attributes:
        changes: Trained changes of the weights, one per position. Initially 0.
        positions: Positions of these weights in the kernel, as rows (input, unit). The inputs of a
            convolution are those of its kernel's pixels and channels, in the kernel's order.
    """

    name: str
    kernel: keras.Variable
    bias: keras.Variable

    def build(self, input_shape):
        """Makes the kernel and the bias, which do not train, and the changes, which do."""
        super().build(input_shape)
        self.kernel.trainable = self.bias.trainable = False
        count = _PER_UNIT * self.kernel.shape[-1]
        self.changes = self.add_weight(shape=(count,), initializer="zeros", name="changes")
        self.positions = self.add_weight(
            shape=(count, 2), initializer="zeros", dtype="int32", trainable=False, name="positions"
        )

    def draw_positions(self, generator: np.random.Generator) -> None:
        """Draws the positions: two different ones for each unit, if it has two inputs."""
        units = self.kernel.shape[-1]
        inputs = int(np.prod(self.kernel.shape[:-1]))
        if inputs < _PER_UNIT:
            raise ValueError(
                f"a unit of {self.name} has {inputs} weight, but {_PER_UNIT} are to train. Use "
                "wider layers."
            )
        drawn = [generator.choice(inputs, _PER_UNIT, replace=False) for _ in range(units)]
        of_units = np.repeat(np.arange(units), _PER_UNIT)
        self.positions.assign(np.stack([np.concatenate(drawn), of_units], axis=1))

    def save_own_variables(self, store):
        """Saves all variables. Keras's dense layer and convolution would save only their own."""
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        """Loads all variables."""
        keras.layers.Layer.load_own_variables(self, store)

    @property
    def changed_kernel(self):
        """The kernel with the trained changes."""
        inputs, units = int(np.prod(self.kernel.shape[:-1])), self.kernel.shape[-1]
        added = ops.scatter(self.positions, self.changes, (inputs, units))
        return self.kernel + ops.reshape(added, self.kernel.shape)


@keras.saving.register_keras_serializable("sweeps.only_batch_norm")
class TwoWeightsDense(_TwoWeights, keras.layers.Dense):
    """A dense layer in which two weights per unit train."""

    def call(self, inputs, training=None):
        """The outputs, with the changed kernel."""
        return self.activation(ops.matmul(inputs, self.changed_kernel) + self.bias)


@keras.saving.register_keras_serializable("sweeps.only_batch_norm")
class TwoWeightsConv2D(_TwoWeights, keras.layers.Conv2D):
    """A convolution in which two weights per filter train."""

    def call(self, inputs):
        """The outputs, with the changed kernel."""
        return self.activation(self.convolution_op(inputs, self.changed_kernel) + self.bias)


_OF_CLASS = {keras.layers.Dense: TwoWeightsDense, keras.layers.Conv2D: TwoWeightsConv2D}


def build(trial: Trial) -> keras.Model:
    """The trial's network. The option `trained` says which of its parameters train.

    "all": all parameters; "batch_norm": gamma and beta of all batch norms; "output": the output
    layer; "random": two weights of each unit that has a gamma and a beta. Statistics of batch norm
    are updated in all of them. The option `gamma_l2` is the factor of the squared gammas in the
    loss.
    """
    options = dict(trial.options)
    network = models.build(dataclasses.replace(trial, program=None, options=()))
    if options["trained"] == "random":
        network = _with_two_weights(network)
    last = _with_kernel(network)[-1]
    for layer in _with_kernel(network):
        trains = options["trained"] == "all" or (options["trained"] == "output" and layer is last)
        layer.kernel.trainable = layer.bias.trainable = trains
    for norm in norms(network):
        norm.gamma.trainable = norm.beta.trainable = options["trained"] in ("all", "batch_norm")
        if options["gamma_l2"]:
            norm.gamma.regularizer = keras.regularizers.L2(options["gamma_l2"])
    return network


def prepare(model: keras.Model, trial: Trial) -> None:
    """Draws the gammas, and the positions of the weights that train."""
    generator = np.random.default_rng(trial.seed)
    for norm in norms(model):
        norm.gamma.assign(generator.uniform(0, 1, norm.gamma.shape))
    for layer in _with_kernel(model):
        if isinstance(layer, _TwoWeights):
            layer.draw_positions(generator)


def norms(model: keras.Model) -> list[keras.layers.Layer]:
    """The batch norms of a network, the one nearest to the input first."""
    return [layer for layer in model.layers if hasattr(layer, "moving_variance")]


class Gammas(Stateless):
    """The scales of batch norm.

    Columns:
        layer: Number of the batch norm. Layer 1 is next to the input.
        unit: Number of the unit or filter in the layer, from 1.
        gamma: Scale of the unit, in six significant digits.
    """

    columns = ("layer", "unit", "gamma")

    def __init__(self, run: Run):
        self._norms = norms(run.estimator.model)

    def rows(self, step: int) -> list[tuple]:
        """One row per unit."""
        return [
            (layer, unit, float(f"{gamma:.6g}"))
            for layer, norm in enumerate(self._norms, 1)
            for unit, gamma in enumerate(norm.gamma.numpy(), 1)
        ]


class Parameters(Stateless):
    """The size of the network.

    Columns:
        parameters: Number of parameters that train.
        total: Number of kernels' entries, biases, gammas and betas.
    """

    columns = ("parameters", "total")

    def __init__(self, run: Run):
        self._model = run.estimator.model

    def rows(self, step: int) -> list[tuple]:
        """One row."""
        trained = sum(int(np.prod(v.shape)) for v in self._model.trainable_variables)
        parts = [v for layer in _with_kernel(self._model) for v in (layer.kernel, layer.bias)]
        parts += [v for norm in norms(self._model) for v in (norm.gamma, norm.beta)]
        return [(trained, sum(int(np.prod(v.shape)) for v in parts))]


RECORDERS = {"gammas": Gammas, "parameters": Parameters}


def _with_kernel(model):
    return [layer for layer in model.layers if hasattr(layer, "kernel_initializer")]


def _with_two_weights(network):
    """The network, with two trained weights per unit in each layer before a batch norm."""
    layers = [keras.Input(network.input_shape[1:], dtype="uint8")]
    followers = [*network.layers[1:], None]
    for layer, follower in zip(network.layers, followers, strict=True):
        normed = hasattr(follower, "moving_variance")
        made = _OF_CLASS[type(layer)] if normed else type(layer)
        layers.append(made.from_config(layer.get_config()))
    return keras.Sequential(layers)
