"""Models with one batch norm each. The tests of exports convert them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

import kerasbn


class Case(NamedTuple):
    """A model with one batch norm, built with our layer or with Keras's.

    Attributes:
        name: Name in the tests and in the table.
        shape: tuple[int | None, ...] of the input with the batch size; `None` is unknown.
        data_shape: tuple[int | None, ...] of the input that is computed.
        layers: Makes the layers from a function that makes the batch norm.
        options: Options of the batch norm.
        keras_options: Options for Keras's layer if it has to differ.
        dtype: Dtype policy of the layers.
    """

    name: str
    shape: tuple[int | None, ...]
    data_shape: tuple[int, ...]
    layers: Callable[[Callable[[], keras.Layer]], list[keras.Layer]]
    options: Mapping[str, Any] = MappingProxyType({})
    keras_options: Mapping[str, Any] | None = None
    dtype: str = "float32"

    def build(self, ours: bool) -> keras.Model:
        """The model with our layer or with Keras's. Both have the same weights."""
        options = self.options
        if not ours and self.keras_options is not None:
            options = self.keras_options
        cls = kerasbn.BatchNorm if ours else layers.BatchNormalization
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.dtype)
        try:
            inputs = keras.Input(self.shape[1:], batch_size=self.shape[0], name="x")
            y = inputs
            for layer in self.layers(lambda: cls(**options)):
                y = layer(y)
            model = keras.Model(inputs, y)
        finally:
            keras.config.set_dtype_policy(before)
        rng = np.random.default_rng(1)
        for weight in model.weights:
            low, high = (0.5, 1.5) if weight.name in ("gamma", "moving_variance") else (-1.0, 1.0)
            if weight.name == "kernel":
                high = np.prod(weight.shape[:-1]) ** -0.5
                low = -high
            weight.assign(rng.uniform(low, high, weight.shape))
        return model

    def data(self) -> np.ndarray:
        """An input whose features differ in mean and scale."""
        rng = np.random.default_rng(2)
        mean, scale = rng.uniform(((-2,), (0.5,)), 2, (2, self.data_shape[-1]))
        return (mean + scale * rng.standard_normal(self.data_shape)).astype("float32")


def _alone(norm):
    return [norm()]


def _after(layer):
    return lambda norm: [layer(), norm(), layers.ReLU()]


def _before(layer):
    return lambda norm: [norm(), layer()]


def _before_with_relu(layer):
    return lambda norm: [norm(), layers.ReLU(), layer()]


def _alone_cases():
    for size in ((8,), (10, 8), (8, 8, 8), (4, 4, 4, 8)):
        rank = len(size) + 1
        known, unknown = (4, *size), (None, *(None,) * (rank - 2), 8)

        def case(what, shape=(None, *size), *, name=f"rank {rank}", data=(4, *size), **fields):
            return Case(", ".join(filter(None, (name, what))), shape, data, _alone, **fields)

        yield case("")
        if rank in (2, 4):
            yield case("known batch", known)
        if rank > 2:
            yield case("unknown sizes", unknown)
            yield case("axis=1", options={"axis": 1})
            yield case("axis=(1, -1)", options={"axis": (1, -1)}, keras_options={"axis": 1})
        if rank in (2, 4):
            yield case("no beta", options={"center": False})
            yield case("no gamma", options={"scale": False})
            yield case("no gamma, no beta", options={"center": False, "scale": False})
            yield case("float16", dtype="mixed_float16")
            yield case("bfloat16", dtype="mixed_bfloat16")


_NEIGHBOURS = {
    "Dense": (lambda: layers.Dense(6), [(None, 16), (None, 10, 16)]),
    "Conv1D": (lambda: layers.Conv1D(6, 3), [(None, 12, 8)]),
    "Conv2D": (
        lambda: layers.Conv2D(6, 3),
        [(None, 8, 8, 8), (None, None, None, 8), (1, 224, 224, 16), (16, 56, 56, 64)],
    ),
    "Conv2D without bias": (lambda: layers.Conv2D(6, 3, use_bias=False), [(None, 8, 8, 8)]),
    "DepthwiseConv2D": (
        lambda: layers.DepthwiseConv2D(3),
        [(None, 8, 8, 8), (1, 224, 224, 16)],
    ),
    "Conv3D": (lambda: layers.Conv3D(6, 3), [(None, 6, 6, 6, 8)]),
}


def _neighbour_cases():
    for name, (layer, shapes) in _NEIGHBOURS.items():
        for shape in shapes:
            data = (shape[0] or 3, *(n or 9 for n in shape[1:]))
            text = "x".join("?" if n is None else str(n) for n in shape)
            yield Case(f"{name}, BN, ReLU: {text}", shape, data, _after(layer))
            if shape == shapes[0]:
                yield Case(f"BN, {name}: {text}", shape, data, _before(layer))
            yield Case(f"BN, ReLU, {name}: {text}", shape, data, _before_with_relu(layer))


CASES = [*_alone_cases(), *_neighbour_cases()]

# The cases that always run. Each failed in some format when the layer subtracted the mean first.
QUICK = [
    "rank 2",
    "rank 4, unknown sizes",
    "rank 4, axis=1",
    "Dense, BN, ReLU: ?x10x16",
    "Conv2D, BN, ReLU: 1x224x224x16",
    "BN, ReLU, Conv2D: ?x8x8x8",
]
