"""`fold`: folds the batch norms of a model into the layers before or after them."""

from __future__ import annotations

import contextlib
import dataclasses

import keras
import numpy as np

from kerasbn._keras_private import all_layers
from kerasbn.tools._folded_weights import (
    Step,
    channel_axis,
    fits,
    folded_weights,
    scale_and_shift,
    why_not,
    with_bias,
)
from kerasbn.tools._model_cloning import clone_layer, copy_state, rebuild
from kerasbn.tools._model_graph import Token, trace
from kerasbn.tools._models import (
    BATCH_NORMS,
    check_graph,
    is_graph,
    warn_lost_classes,
    warn_nothing_to_do,
)
from kerasbn.tools._weight_ranges import print_ranges
from kerasbn.tools._wording import counted


@dataclasses.dataclass(frozen=True)
class Decision:
    """The decision to fold one batch norm or to keep it.

    Attributes:
        layer: Path of the batch norm: the names of the nested models around it and its name, joined
            by `/`.
        into: Paths of the layers that it is folded into. Empty if it stays.
        reason: Reason why it stays. Empty if it is folded.
    """

    layer: str
    into: tuple[str, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.layer}: " + (
            f"folded into {', '.join(self.into)}" if self.into else f"kept: {self.reason}"
        )


def fold(model: keras.Model, verbose: bool = False) -> keras.Model:
    """Returns a faster model with the same outputs: batch norms are folded into their neighbours.

    A `BatchNorm` or `keras.layers.BatchNormalization` can be folded in two directions.

    * *Back*, into the Dense, Conv, DepthwiseConv, SeparableConv or ConvTranspose layer before it.
      That layer must have no activation, and its output must have no other use.
    * *Forward*, into the Dense, Conv, DepthwiseConv or SeparableConv layer after it, if folding
      back is impossible. That layer must be the only user of the batch norm's output, must have no
      other input, and must not pad.

    `TimeDistributed` makes no difference: either layer, or a model that contains it, may be inside
    one. If a layer is called several times, all calls must allow folding, including those in nested
    models. A batch norm after several layers is folded into each of them. All other batch norms
    stay, and `plan` lists the reasons. If a folded batch norm is an output of a functional model,
    an `Identity` with its name replaces it, so the outputs keep their names.

    The folded model and its layers are new, and `model` does not change. Layers with a folded batch
    norm have a bias. They keep the regularizers of kernel and bias, and lose the constraints,
    because these are meant for the unfolded weights. After folding back, they also lose their
    activity regularizer.

    The folded model is not compiled. Call `compile` to evaluate it or to train it as a network
    without batch norm. A custom model class stays if its constructor takes the new layers, as in
    `kerasbn.from_keras`. Other classes become plain Keras models, with a warning.

    Args:
        model: Built Sequential or functional model. It may contain nested models. Batch norms
            inside other layers, such as `Bidirectional`, and inside models with their own `call`
            stay.
        verbose: Whether to print the decision for each batch norm, and a table of the weight
            ranges. The table compares the channel with the smallest weights with the whole kernel,
            before and after folding. If that channel has only a few int8 steps, quantization with
            one scale for the whole kernel loses it. Default `False`.

    Returns:
        The folded model. If there is no batch norm in `model`, `model` itself, with a warning.

    Raises:
        ValueError: If the model is not built or has its own `call`, or a layer cannot be cloned.

    Examples:
        >>> import keras, kerasbn, numpy as np
        >>> model = keras.Sequential([
        ...     keras.Input((28, 28, 1)),
        ...     keras.layers.Conv2D(8, 3, use_bias=False, name="conv"),
        ...     keras.layers.BatchNormalization(name="bn"),
        ...     keras.layers.ReLU(name="relu"),
        ... ])
        >>> folded = kerasbn.fold(model)
        >>> [layer.name for layer in folded.layers]
        ['conv', 'relu']
        >>> x = np.ones((1, 28, 28, 1))
        >>> np.allclose(folded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
        True

    References:
        Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3.2;
        Nagel et al. 2019 (weight ranges), https://arxiv.org/abs/1906.04721, section 3.1.
    """
    check_graph(model)
    planner = _Planner(model)
    if not planner.decisions:
        warn_nothing_to_do(model, "BatchNorm or BatchNormalization")
        return model
    steps, dropped = planner.steps, planner.dropped

    def make(layer):
        if id(layer) in dropped:
            return None
        return with_bias(layer, steps[id(layer)]) if id(layer) in steps else clone_layer(layer)

    folded, pairs, lost = rebuild(model, make)
    for old, new in pairs:
        if id(old) not in steps:
            copy_state(old, new)
            continue
        for name, value in folded_weights(old, steps[id(old)]).items():
            getattr(new, name).assign(value)
    warn_lost_classes(lost)
    if verbose:
        count = sum(bool(decision.into) for decision in planner.decisions)
        print(*planner.decisions, sep="\n")
        print(f"{count} of {counted(len(planner.decisions), 'batch norm layer')} folded.")
        changed = [(planner.paths[id(old)], old, new) for old, new in pairs if id(old) in steps]
        if changed:
            print_ranges(changed)
    return folded


def plan(model: keras.Model) -> list[Decision]:
    """Lists which batch norms `fold` would fold, and why it would keep the others.

    Args:
        model: Built Sequential or functional model. It may contain nested models.

    Returns:
        One `Decision` per batch norm at any depth, in the order of the model. Batch norms inside
        other layers and inside models with their own `call` come last.

    Raises:
        ValueError: If the model is not built or has its own `call`, or a layer cannot be cloned.

    Examples:
        >>> import keras, kerasbn
        >>> model = keras.Sequential([
        ...     keras.Input((4,)),
        ...     keras.layers.Dense(3, activation="relu", name="dense"),
        ...     keras.layers.BatchNormalization(name="bn"),
        ... ])
        >>> print(*kerasbn.folding.plan(model))
        bn: kept: before it, dense (Dense) applies relu; it is an output of the model
    """
    check_graph(model)
    return _Planner(model).decisions


class _Planner:
    """Decides about one batch norm at a time. Each decision takes the earlier ones into account.

    Attributes:
        decisions: Decision for each batch norm.
        steps: Steps to fold into a layer, by the layer's id.
        dropped: Ids of the folded batch norms.
    """

    def __init__(self, model: keras.Model) -> None:
        self.calls, self.outputs, self.paths = trace(model)
        self.steps: dict[int, list[Step]] = {}
        self.dropped: set[int] = set()
        self.passed: dict[Token, Token] = {}  # from the output of a folded batch norm to its input
        called = {id(call.layer): call.layer for call in self.calls}.values()
        norms = [layer for layer in called if isinstance(layer, BATCH_NORMS)]
        # First fold back, starting at the front, so that Dense, BN, BN becomes Dense. Then fold the
        # rest forward, starting at the end, so that BN, BN, Dense becomes Dense.
        found = {id(norm): self._fold_back(norm) for norm in norms}
        for norm in reversed(norms):
            if not found[id(norm)].into and not self._own_obstacle(norm):
                forward = self._fold_forward(norm)
                reason = f"{found[id(norm)].reason}; {forward.reason}"
                found[id(norm)] = forward if forward.into else self._keep(norm, reason)
        self.decisions = [*found.values()]
        for layer in called:
            if isinstance(layer, keras.Layer) and not isinstance(layer, BATCH_NORMS):
                self.decisions += self._inside(layer)

    def _fold_back(self, norm):
        if obstacle := self._own_obstacle(norm):
            return self._keep(norm, obstacle)
        pairs = []
        for number in self._calls_of(norm):
            source, _ = self._origin(self.calls[number].inputs[0])
            if source < 0:
                return self._keep(norm, "it takes an input of the model")
            pairs.append((self.calls[number], self.calls[source]))
        for of_norm, of_layer in pairs:
            layer = of_layer.layer
            why = self._why_not(of_norm, of_layer, back=True) or self._other_use(layer, norm)
            if why:
                return self._keep(norm, f"before it, {self._name(layer)} {why}")
        return self._fold(norm, [of_layer.layer for _, of_layer in pairs], back=True)

    def _fold_forward(self, norm):
        outputs = {(number, 0): self.calls[number] for number in self._calls_of(norm)}
        if any(map(self._is_output, outputs)):
            return self._keep(norm, "it is an output of the model")
        pairs = [(call, user) for output, call in outputs.items() for user in self._users(output)]
        users = {id(user.layer): user.layer for _, user in pairs}
        if len(users) != 1:
            names = " and ".join(map(self._name, users.values())) or "nothing"
            return self._keep(norm, f"it feeds {names}")
        (layer,) = users.values()
        why = next((w for pair in pairs if (w := self._why_not(*pair, back=False))), "")
        taken = {self._origin(self.calls[n].inputs[0]) for n in self._calls_of(layer)}
        if not why and not taken <= outputs.keys():
            why = "takes other inputs too"
        if why:
            return self._keep(norm, f"after it, {self._name(layer)} {why}")
        return self._fold(norm, [layer], back=False)

    def _fold(self, norm, layers, back):
        step = Step(back, *scale_and_shift(norm))
        layers = {id(layer): layer for layer in layers}
        for key, layer in layers.items():
            weights = folded_weights(layer, [*self.steps.get(key, []), step])
            if not fits(layer, weights):
                unknown = any(np.isnan(value).any() for value in weights.values())
                fault = "be NaN" if unknown else "leave the range of its dtype"
                why = f"the weights of {self._name(layer)} would {fault}"
                return self._keep(norm, why)
        for key in layers:
            self.steps.setdefault(key, []).append(step)
        for number in self._calls_of(norm):
            self.passed[number, 0] = self.calls[number].inputs[0]
        self.dropped.add(id(norm))
        return Decision(self.paths[id(norm)], into=tuple(self.paths[key] for key in layers))

    def _own_obstacle(self, norm):
        if type(norm) not in BATCH_NORMS:
            return f"its class {type(norm).__name__} may compute something else"
        if isinstance(norm.axis, tuple) and len(norm.axis) > 1:
            return f"it normalizes several axes, {norm.axis}"
        # Only a layer of this package has another value than "auto".
        statistics = getattr(norm, "statistics", "auto")
        if statistics == "batch":
            return 'it normalizes with batch statistics (statistics="batch")'
        in_training = any(True in self.calls[number].training for number in self._calls_of(norm))
        if in_training and statistics != "frozen":
            return "it is called with training=True"
        return ""

    def _why_not(self, of_norm, of_layer, back):
        norm, layer = of_norm.layer, of_layer.layer
        if why := why_not(layer, back):
            return why
        rank = norm.input_spec.ndim
        axis = (norm.axis[0] if isinstance(norm.axis, tuple) else norm.axis) % rank
        axis = of_norm.outer_axis(axis)
        rank += len(of_norm.wrappers)
        channels = of_layer.outer_axis(channel_axis(layer, rank - len(of_layer.wrappers)))
        if axis != channels:
            return f"has its channels on axis {channels}, not {axis}"
        # After folding forward, the layer takes the batch norm's input, which may be of another
        # dtype, such as integers.
        taken = {norm.compute_dtype} if back else _input_dtypes(of_norm)
        around = [wrapper.compute_dtype for wrapper in (*of_norm.wrappers, *of_layer.wrappers)]
        if {*taken, *around, norm.compute_dtype} != {layer.compute_dtype}:
            wrapped = f" in a TimeDistributed of {' and '.join(sorted({*around}))}" * bool(around)
            return (
                f"computes in {layer.compute_dtype}, but the batch norm computes in "
                f"{norm.compute_dtype} from {' and '.join(sorted(taken))}{wrapped}"
            )
        return ""

    def _other_use(self, layer, norm):
        for number in self._calls_of(layer):
            if self._is_output((number, 0)):
                return "is an output of the model"
            for user in self._users((number, 0)):
                if user.layer is not norm:
                    return f"also feeds {self._name(user.layer)}"
        return ""

    def _inside(self, layer):
        for inner in all_layers(layer)[1:]:
            if isinstance(inner, BATCH_NORMS) and not is_graph(layer):
                path = f"{self.paths[id(layer)]}/{inner.name}"
                yield Decision(path, reason=f"it is inside {self._name(layer)}")

    def _keep(self, norm, reason):
        return Decision(self.paths[id(norm)], reason=reason)

    def _calls_of(self, layer):
        return [number for number, call in enumerate(self.calls) if call.layer is layer]

    def _users(self, token):
        return [
            call
            for call in self.calls
            if id(call.layer) not in self.dropped and token in map(self._origin, call.inputs)
        ]

    def _is_output(self, token):
        return token in map(self._origin, self.outputs)

    def _origin(self, token):
        while token in self.passed:
            token = self.passed[token]
        return token

    def _name(self, layer):
        return f"{self.paths[id(layer)]} ({type(layer).__name__})"


def _input_dtypes(call):
    """The dtypes of the tensors that enter a call and the wrappers around it."""
    found = set()
    for layer in (call.layer, *call.wrappers):
        with contextlib.suppress(AttributeError):  # `TimeDistributed` runs `call` itself
            # `input` is a list if there is a mask.
            found.add(keras.tree.flatten(layer.input)[0].dtype)
    return found
