"""`fold`: the model without its batch norms, which become part of the layers beside them."""

from __future__ import annotations

import dataclasses

import keras

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
from kerasbn.tools._model_graph import (
    BATCH_NORMS,
    check_graph,
    is_graph,
    layers_of,
    trace,
    warn_nothing_to_do,
)


@dataclasses.dataclass(frozen=True)
class Decision:
    """What becomes of one batch norm.

    Attributes:
        layer: Its path: the names of the nested models around it and its own, joined by `/`.
        into: Paths of the layers into which it is folded; empty if it stays.
        reason: Why it stays; empty if it is folded.
    """

    layer: str
    into: tuple[str, ...] = ()
    reason: str = ""

    def __str__(self):
        return f"{self.layer}: " + (
            f"folded into {', '.join(self.into)}" if self.into else f"kept: {self.reason}"
        )


def fold(model: keras.Model, verbose: bool = False) -> keras.Model:
    """Returns a faster model of the same outputs: batch norms folded into the layers beside them.

    A `BatchNorm` or `keras.layers.BatchNormalization` is folded

    * back, into the Dense, Conv, DepthwiseConv, SeparableConv or ConvTranspose layer before it, if
      that has no activation of its own and its output has no other use;
    * else forward, into the Dense, Conv, DepthwiseConv or SeparableConv layer that alone takes its
      output, if that takes no other input and does not pad.

    A layer that is called several times is judged by all its calls, across nested models too, and
    a batch norm that follows several layers is folded into each of them. What cannot be folded
    stays; `plan` says what, and why. A batch norm that is an output of a functional model gives its
    place to an `Identity` of its name, so that the outputs keep their names.

    The folded model is a new one, of new layers; `model` is left as it is. Layers that take up a
    batch norm have a bias. They keep their regularizers of kernel and bias, and lose constraints,
    and the activity regularizer if a batch norm follows, which were about the unfolded values.

    The folded model is not compiled: call `compile` to train or evaluate it. It can be trained on,
    as the net without batch norm that it is. A model of a class of its own stays of that class if
    its constructor takes inputs and outputs alone, and else becomes a plain Keras model.

    Args:
        model: A built Sequential or functional model, with others in it or not. What lies in models
            and layers with a `call` of their own, `TimeDistributed` for one, stays as it is.
        verbose: Whether to print what was folded, and what was not and why. Default `False`.

    Returns:
        The folded model; `model` itself, with a warning, if there is no batch norm in it.

    Raises:
        ValueError: If the model is not built, has a `call` of its own, or a layer cannot be cloned.

    Example:

    >>> import keras, kerasbn, numpy as np
    >>> model = keras.Sequential([
    ...     keras.Input((28, 28, 1)),
    ...     keras.layers.Conv2D(8, 3, use_bias=False, name="conv"),
    ...     keras.layers.BatchNormalization(name="bn"),
    ...     keras.layers.ReLU(),
    ... ])
    >>> folded = kerasbn.fold(model, verbose=True)
    bn: folded into conv
    1 of 1 batch norm layers folded.
    >>> x = np.ones((1, 28, 28, 1))
    >>> np.allclose(folded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
    True

    Reference:
        Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3.2.
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

    folded, pairs = rebuild(model, make)
    for old, new in pairs:
        if id(old) not in steps:
            copy_state(old, new)
            continue
        for name, value in folded_weights(old, steps[id(old)]).items():
            getattr(new, name).assign(value)
    if verbose:
        count = sum(bool(decision.into) for decision in planner.decisions)
        print(*planner.decisions, sep="\n")
        print(f"{count} of {len(planner.decisions)} batch norm layers folded.")
    return folded


def plan(model: keras.Model) -> list[Decision]:
    """Says what `fold` does with each batch norm of a model, and why it keeps those that it keeps.

    Args:
        model: As for `fold`.

    Returns:
        A `Decision` for each batch norm at any depth: in the order of the model, then those inside
        layers whose `call` hides them.

    Raises:
        ValueError: As for `fold`.

    Example:

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
    """Decides for one batch norm after the other, on the graph without those folded before."""

    def __init__(self, model: keras.Model):
        self.calls, self.outputs, self.paths = trace(model)
        self.steps = {}  # what is folded into a layer, by its id
        self.dropped = set()  # ids of the batch norms that are folded
        self.passed = {}  # the output of a folded batch norm: its input
        called = {id(call.layer): call.layer for call in self.calls}.values()
        norms = [layer for layer in called if isinstance(layer, BATCH_NORMS)]
        # Back first, from the front, so that in Dense, BN, BN the second follows the first. What
        # stays goes forward from the end, so that in BN, BN, Dense the first follows the second.
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
        layers = {}
        for number in self._calls_of(norm):
            source, _ = self._origin(self.calls[number].inputs[0])
            if source < 0:
                return self._keep(norm, "it takes an input of the model")
            layers[source] = self.calls[source].layer
        for layer in layers.values():
            why = self._why_not(norm, layer, back=True) or self._other_use(layer, norm)
            if why:
                return self._keep(norm, f"before it, {self._name(layer)} {why}")
        return self._fold(norm, layers.values(), back=True)

    def _fold_forward(self, norm):
        outputs = {(number, 0) for number in self._calls_of(norm)}
        if any(map(self._is_output, outputs)):
            return self._keep(norm, "it is an output of the model")
        users = {id(user): user for output in outputs for user in self._users(output)}
        if len(users) != 1:
            names = " and ".join(map(self._name, users.values())) or "nothing"
            return self._keep(norm, f"it feeds {names}")
        (layer,) = users.values()
        why = self._why_not(norm, layer, back=False)
        taken = {self._origin(self.calls[n].inputs[0]) for n in self._calls_of(layer)}
        if not why and not taken <= outputs:
            why = "takes other inputs too"
        if why:
            return self._keep(norm, f"after it, {self._name(layer)} {why}")
        return self._fold(norm, [layer], back=False)

    def _fold(self, norm, layers, back):
        step = Step(back, *scale_and_shift(norm))
        layers = {id(layer): layer for layer in layers}
        for key, layer in layers.items():
            if not fits(layer, folded_weights(layer, [*self.steps.get(key, []), step])):
                why = f"the weights of {self._name(layer)} would leave the range of its dtype"
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
        if any(self.calls[number].training for number in self._calls_of(norm)):
            return "it is called with training=True"
        return ""

    def _why_not(self, norm, layer, back):
        if why := why_not(layer, back):
            return why
        rank = norm.input_spec.ndim
        axis = (norm.axis[0] if isinstance(norm.axis, tuple) else norm.axis) % rank
        if axis != channel_axis(layer, rank):
            return f"has its channels on axis {channel_axis(layer, rank)}, not {axis}"
        # Forward, the layer takes what the batch norm took: that may be integers, say.
        # (`input` is a list if there is a mask.)
        taken = norm.compute_dtype if back else keras.tree.flatten(norm.input)[0].dtype
        if {taken, norm.compute_dtype} != {layer.compute_dtype}:
            return f"computes in {layer.compute_dtype}, it in {norm.compute_dtype} from {taken}"
        return ""

    def _other_use(self, layer, norm):
        for number in self._calls_of(layer):
            if self._is_output((number, 0)):
                return "is an output of the model"
            for user in self._users((number, 0)):
                if user is not norm:
                    return f"also feeds {self._name(user)}"
        return ""

    def _inside(self, layer):
        for inner in layers_of(layer)[1:]:
            if isinstance(inner, BATCH_NORMS) and not is_graph(layer):
                path = f"{self.paths[id(layer)]}/{inner.name}"
                yield Decision(path, reason=f"it is inside {self._name(layer)}")

    def _keep(self, norm, reason):
        return Decision(self.paths[id(norm)], reason=reason)

    def _calls_of(self, layer):
        return [number for number, call in enumerate(self.calls) if call.layer is layer]

    def _users(self, token):
        return [
            call.layer
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
