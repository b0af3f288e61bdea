"""Reads the layers before each batch norm from a model's graphs, and how the graph calls it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator

import keras
from keras import layers

from kerasbn.tools._model_graph import LayerCall, Token, Trace, traces
from kerasbn.tools._models import BATCH_NORMS

_DROPOUTS = (
    layers.Dropout,
    layers.GaussianDropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
)
_LINEAR = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D)
_WITH_BIAS = (
    *_LINEAR,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)
# Layers that move values but do not change them.
_MOVING = (layers.Flatten, layers.Reshape, layers.Permute)


@dataclasses.dataclass
class Surroundings:
    """The surroundings of one batch norm in a graph.

    Attributes:
        path: Names of the models around the layer and of the layer, with slashes between them.
        dropout: Dropout whose noise reaches the batch norm. Only a linear layer and layers that
            keep the scale, such as ReLU, are in between.
        linear: Dense or convolution layer between this dropout and the batch norm. No activation
            follows it.
        biased: Layer before the batch norm whose bias the batch norm removes.
        makes_mask: Layers before the batch norm that make masks.
        drops_mask: Layer between those and the batch norm that passes no mask on.
        always_training: Whether all calls in the graph have `training=True`.
    """

    path: str
    dropout: keras.Layer | None = None
    linear: keras.Layer | None = None
    biased: keras.Layer | None = None
    makes_mask: tuple[keras.Layer, ...] = ()
    drops_mask: keras.Layer | None = None
    always_training: bool = False


def surroundings(model: keras.Model) -> dict[int, Surroundings]:
    """The surroundings of the batch norms that are in a graph, by `id(layer)`.

    Batch norms in subclassed models and in custom layers are in no graph, so they are left out. If
    a batch norm is called several times, its first call counts.
    """
    found: dict[int, Surroundings] = {}
    for prefix, traced in traces(model):
        uses = Counter(token for call in traced.calls for token in call.inputs)
        modes: dict[int, list[bool]] = {}
        for call in traced.calls:
            norm = call.layer
            if not isinstance(norm, BATCH_NORMS):
                continue
            modes.setdefault(id(norm), []).append(call.training == {True})
            if id(norm) not in found:
                found[id(norm)] = _around(call, traced, prefix, uses)
        for key, training in modes.items():
            found[key].always_training = all(training)
    return found


def makes_mask(layer: keras.Layer) -> bool:
    """Whether a layer makes a mask from its inputs."""
    return isinstance(layer, layers.Masking) or (
        isinstance(layer, layers.Embedding) and layer.mask_zero
    )


def _around(call: LayerCall, traced: Trace, prefix: str, uses: Counter[Token]) -> Surroundings:
    before = list(_chain(call, traced.calls))
    dropout, linear = _dropout_in(before)
    makers, dropping = _masks_before(call, traced.calls)
    return Surroundings(
        path=prefix + traced.paths[id(call.layer)],
        dropout=dropout,
        linear=linear,
        biased=_biased(call, before, traced, uses),
        makes_mask=makers,
        drops_mask=dropping,
    )


def _chain(call: LayerCall, calls: list[LayerCall]) -> Iterator[LayerCall]:
    """The calls before a call, the nearest first, up to the first one with several inputs."""
    while len(call.inputs) == 1 and call.inputs[0][0] >= 0:
        call = calls[call.inputs[0][0]]
        yield call


def _dropout_in(before: list[LayerCall]) -> tuple[keras.Layer | None, keras.Layer | None]:
    linear, activated = None, False
    for call in before:
        layer = call.layer
        if type(layer) in _DROPOUTS:
            if 0 < layer.rate < 1:
                return layer, linear
        elif isinstance(layer, _MOVING):
            continue
        elif _scales_with_its_input(layer):
            activated = True
        elif linear is None and not activated and type(layer) in _LINEAR and _is_linear(layer):
            linear = layer
        else:
            break
    return None, None


def _scales_with_its_input(layer: keras.Layer) -> bool:
    """Whether f(a x) = a f(x) for a >= 0, so that the factors of dropout pass through."""
    if isinstance(layer, layers.ReLU):
        return layer.max_value is None and not layer.threshold
    activation = layer.activation if isinstance(layer, layers.Activation) else None
    return isinstance(layer, layers.LeakyReLU) or activation in (
        keras.activations.relu,
        keras.activations.leaky_relu,
        keras.activations.linear,
    )


def _is_linear(layer: keras.Layer) -> bool:
    return layer.activation in (None, keras.activations.linear)


def _biased(
    call: LayerCall, before: list[LayerCall], traced: Trace, uses: Counter[Token]
) -> keras.Layer | None:
    """The layer right before a batch norm, if nothing else uses its output and it has a bias."""
    if not before or type(before[0].layer) not in _WITH_BIAS:
        return None
    layer, token = before[0].layer, call.inputs[0]
    alone = uses[token] == 1 and token not in traced.outputs and not call.wrappers
    per_channel = _axes(call.layer) == [_channel_axis(layer, call.layer)]
    has_bias = layer.use_bias and layer.bias is not None and _is_linear(layer)
    return layer if alone and per_channel and has_bias else None


def _axes(norm: keras.Layer) -> list[int]:
    axes = norm.axis if isinstance(norm.axis, (list, tuple)) else [norm.axis]
    return [axis % norm.input_spec.ndim for axis in axes]


def _channel_axis(layer: keras.Layer, norm: keras.Layer) -> int:
    channels_first = getattr(layer, "data_format", "") == "channels_first"
    return 1 if channels_first else norm.input_spec.ndim - 1


def _masks_before(
    call: LayerCall, calls: list[LayerCall]
) -> tuple[tuple[keras.Layer, ...], keras.Layer | None]:
    """The layers that make masks anywhere before a call, and the nearest one that drops masks."""
    makers: dict[int, keras.Layer] = {}
    dropping = None
    waiting, seen = list(call.inputs), set()
    while waiting:
        number, _ = waiting.pop(0)
        if number < 0 or number in seen:
            continue
        seen.add(number)
        layer = calls[number].layer
        if isinstance(layer, keras.Layer) and makes_mask(layer):
            makers[id(layer)] = layer
            continue
        if dropping is None and not getattr(layer, "supports_masking", False):
            dropping = layer
        waiting += calls[number].inputs
    return tuple(makers.values()), dropping
