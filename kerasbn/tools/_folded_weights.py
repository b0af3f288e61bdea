"""Computes the weights of a layer after folding batch norms into it.

In inference, batch norm is an affine map of each channel, y = s x + t, with

    s = gamma / sqrt(moving_variance + epsilon)        t = beta - s moving_mean

A batch norm after a layer W x + b is folded *back* into it: (s W) x + (s b + t). A batch norm
before the layer is folded *forward*: W (s x + t) + b = (W s) x + (W t + b). Folding forward is
wrong if the layer pads its input, because the zeros are not scaled and shifted by the batch norm.
After folding, the padding would have to be -t/s.

All values are float64 NumPy arrays. They are cast once, when they are assigned.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from kerasbn.tools._model_cloning import clone_layer

_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_PLAIN = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D)


class Step(NamedTuple):
    """A batch norm to fold into a layer: y = s x + t.

    Attributes:
        back: Whether the batch norm comes after the layer.
        s: Scale of each channel.
        t: Offset of each channel.
    """

    back: bool
    s: np.ndarray
    t: np.ndarray


def scale_and_shift(batch_norm: keras.Layer) -> tuple[np.ndarray, np.ndarray]:
    """s and t of a built batch norm with a single axis."""
    s = 1.0 / np.sqrt(_float64(batch_norm.moving_variance) + batch_norm.epsilon)
    if batch_norm.scale:
        s *= _float64(batch_norm.gamma)
    beta = _float64(batch_norm.beta) if batch_norm.center else 0.0
    return s, beta - s * _float64(batch_norm.moving_mean)


def folded_weights(layer: keras.Layer, steps: Iterable[Step]) -> dict[str, np.ndarray]:
    """The kernels and the bias of a layer after all steps, by attribute name."""
    weights = {name: _float64(getattr(layer, name)) for name in kernels_of(layer)}
    weights["bias"] = 0.0 if layer.bias is None else _float64(layer.bias)
    for step in steps:
        (_fold_back if step.back else _fold_forward)(layer, weights, step.s, step.t)
    return weights


def kernels_of(layer: keras.Layer) -> list[str]:
    """The attribute names of the kernels of a Dense layer or convolution."""
    names = ("kernel", "depthwise_kernel", "pointwise_kernel")
    return [name for name in names if hasattr(layer, name)]


def by_channel(layer: keras.Layer, name: str) -> np.ndarray:
    """A kernel as a matrix with a row for each output channel."""
    kernel = _float64(getattr(layer, name))
    if name == "depthwise_kernel" or isinstance(layer, _DEPTHWISE):  # (..., channels, multiplier)
        return kernel.reshape(-1, kernel.shape[-2] * kernel.shape[-1]).T
    if isinstance(layer, _TRANSPOSED):  # (..., outputs, inputs)
        kernel = np.swapaxes(kernel, -1, -2)
    return kernel.reshape(-1, kernel.shape[-1]).T


def with_bias(layer: keras.Layer, steps: Iterable[Step]) -> keras.Layer:
    """A new layer for the folded weights, with a bias and without constraints on its weights."""
    config = {**layer.get_config(), "use_bias": True}
    config.update({key: None for key in config if key.endswith("_constraint")})
    if any(step.back for step in steps):
        config["activity_regularizer"] = None
    return clone_layer(layer, config)


def why_not(layer: keras.Layer, back: bool) -> str:
    """Why a batch norm after (`back`) or before a layer cannot be folded. Empty if it can."""
    # A subclass may compute something else.
    if type(layer) not in (*_PLAIN, *_DEPTHWISE, *_SEPARABLE, *_TRANSPOSED):
        return "is not a Dense or convolution layer"
    if layer.quantization_mode is not None:
        return f"is quantized to {layer.quantization_mode}"
    if getattr(layer, "lora_enabled", False):
        return "has LoRA weights"
    if back and layer.activation is not keras.activations.linear:
        return f"applies {getattr(layer.activation, '__name__', layer.activation)}"
    if not back and isinstance(layer, _TRANSPOSED):
        return "is transposed: outputs at the border depend on fewer inputs"
    pads = getattr(layer, "padding", "valid") != "valid" and set(layer.kernel_size) != {1}
    if not back and pads:
        return f"pads its input (padding={layer.padding!r})"
    return ""


def channel_axis(layer: keras.Layer, rank: int) -> int:
    """The channel axis in the inputs and outputs of a Dense layer or convolution."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def fits(layer: keras.Layer, weights: dict[str, np.ndarray]) -> bool:
    """Whether the weights are finite in the dtypes that the layer stores and computes in."""
    half = "float16" in (layer.variable_dtype, layer.compute_dtype)
    limit = np.finfo("float16" if half else "float32").max
    return all(np.abs(value).max(initial=0.0) <= limit for value in weights.values())


def _fold_back(layer, weights, s, t):
    name = "pointwise_kernel" if isinstance(layer, _SEPARABLE) else "kernel"
    if isinstance(layer, _DEPTHWISE):  # (..., channels, multiplier), the order of the outputs
        weights[name] *= s.reshape(weights[name].shape[-2:])
    elif isinstance(layer, _TRANSPOSED):  # (..., outputs, inputs)
        weights[name] *= s[:, None]
    else:  # (..., inputs, outputs)
        weights[name] *= s
    weights["bias"] = s * weights["bias"] + t


def _fold_forward(layer, weights, s, t):
    if isinstance(layer, (*_DEPTHWISE, *_SEPARABLE)):  # (..., channels, multiplier)
        kernel = weights["kernel" if isinstance(layer, _DEPTHWISE) else "depthwise_kernel"]
        shift = (t[:, None] * _sum_of_taps(kernel)).reshape(-1)
        kernel *= s[:, None]
        if isinstance(layer, _SEPARABLE):
            shift = shift @ _sum_of_taps(weights["pointwise_kernel"])
    else:  # (..., inputs of a group, outputs): input i of group g is channel i + g * inputs
        kernel = weights["kernel"]
        groups = getattr(layer, "groups", 1)

        def by_output(v):
            return np.repeat(v.reshape(groups, -1).T, kernel.shape[-1] // groups, axis=1)

        shift = (by_output(t) * _sum_of_taps(kernel)).sum(0)
        kernel *= by_output(s)
    weights["bias"] = weights["bias"] + shift


def _sum_of_taps(kernel):
    return kernel.sum(tuple(range(kernel.ndim - 2)))


def _float64(variable):
    return np.array(keras.ops.convert_to_numpy(variable)).astype(np.float64)
