"""Reads Keras models as graphs: the layer calls of one model, or of a model and all nested ones.

The graph comes from `get_config()`, the format of saved models. It names every layer call and the
tensors between the calls. Keras has to keep this format for as long as it can load saved models.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
from keras import tree

from kerasbn._keras_private import all_layers
from kerasbn.tools._models import config_of, is_graph, is_time_distributed


@dataclasses.dataclass(frozen=True)  # not a tuple, because `keras.tree` would flatten it
class Ref:
    """A tensor in the graph of one model.

    Attributes:
        layer: Name of the layer that computes it.
        call: Number of the layer's call.
        tensor: Number of the call's output.
    """

    layer: str
    call: int
    tensor: int


class Call(NamedTuple):
    """One call of a layer or operation.

    Attributes:
        operation: Layer or operation.
        number: Number of the call, counted per layer.
        args: Positional arguments, with a `Ref` in place of each tensor.
        kwargs: Keyword arguments, with a `Ref` in place of each tensor.
    """

    operation: keras.Operation
    number: int
    args: tuple
    kwargs: dict[str, Any]

    @property
    def refs(self) -> list[Ref]:
        """The tensors that the call takes, those of its first argument first."""
        return refs_in((self.args, self.kwargs))


class Graph(NamedTuple):
    """The graph of one model. A nested model is a single call.

    Attributes:
        inputs: Structure of the model's inputs.
        calls: Layer calls. Each comes after the calls whose outputs it needs.
        outputs: Structure of the model's outputs.
    """

    inputs: Any
    calls: list[Call]
    outputs: Any


Token = tuple[int, int]  # a tensor of the whole model: (number of the call, number of the output)


class LayerCall(NamedTuple):
    """A call in the whole model, in which nested models are replaced by their layers.

    Attributes:
        layer: Layer or operation.
        inputs: Tensors that the call takes.
        training: Values that the graph sets for `training`, for the call and the models around it.
        wrappers: `TimeDistributed` layers around the layer, the outermost first. The tensors that
            the call takes have one more axis for each of them.
    """

    layer: keras.Operation
    inputs: list[Token]
    training: frozenset[bool]
    wrappers: tuple[keras.layers.TimeDistributed, ...]

    def outer_axis(self, axis: int) -> int:
        """The axis of the tensors for a positive axis of the layer's inputs or outputs."""
        return axis + len(self.wrappers) if axis else 0


class Trace(NamedTuple):
    """A whole model, in which nested models and `TimeDistributed` are replaced by their layers.

    Attributes:
        calls: All layer calls, in order.
        outputs: Tensors that the model returns, or that a nested model both uses and returns.
        paths: Path of each layer by `id(layer)`.
    """

    calls: list[LayerCall]
    outputs: set[Token]
    paths: dict[int, str]


def read_graph(model: keras.Model) -> Graph:
    """The graph of a Sequential or functional model. Nested models are single calls."""
    if isinstance(model, keras.Sequential):
        return _read_sequential(model)
    return _read_functional(model)


def refs_in(structure: Any) -> list[Ref]:
    """The tensors in a structure of arguments."""
    return [leaf for leaf in tree.flatten(structure) if isinstance(leaf, Ref)]


def trace(model: keras.Model) -> Trace:
    """The layer calls of the whole model. Each call of a nested model adds the calls inside it.

    `TimeDistributed` applies a layer to each step, so it changes nothing about which layer takes
    the output of which other. The trace contains the layer inside, with its wrappers.
    """
    read = functools.cache(read_graph)
    calls: list[LayerCall] = []
    outputs: set[Token] = set()
    paths: dict[int, str] = {}
    outside = ((number, 0) for number in itertools.count(-1, -1))  # tensors of no known call

    def run(model, path, given, training, wrappers):
        graph = read(model)
        tokens = dict(zip(tree.flatten(graph.inputs), given, strict=True))
        leaves: dict[tuple[str, int], int] = {}  # from (name, call) to the number in `calls`

        def token(ref):
            leaf = leaves.get((ref.layer, ref.call))
            return tokens[ref] if leaf is None else (leaf, ref.tensor)

        used = set()
        for call in graph.calls:
            layer, inner_path, around = call.operation, path + call.operation.name, wrappers
            paths.setdefault(id(layer), inner_path)
            while is_time_distributed(layer):
                around, layer = (*around, layer), layer.layer
                inner_path += f"/{layer.name}"
                paths.setdefault(id(layer), inner_path)
            inputs = [token(ref) for ref in call.refs]
            used.update(inputs)
            given_training = call.kwargs.get("training")
            modes = training | ({given_training} if isinstance(given_training, bool) else set())
            if not is_graph(layer):
                leaves[call.operation.name, call.number] = len(calls)
                calls.append(LayerCall(layer, inputs, modes, around))
                continue
            passed = _as_inputs(call, read(layer).inputs)
            if passed is None:  # it is unclear which argument goes to which input
                calls.append(LayerCall(layer, inputs, modes, around))
                inside = list(itertools.islice(outside, len(tree.flatten(read(layer).inputs))))
            else:
                inside = [token(ref) for ref in passed]
            for i, out in enumerate(run(layer, f"{inner_path}/", inside, modes, around)):
                tokens[Ref(call.operation.name, call.number, i)] = out
        returned = [token(ref) for ref in tree.flatten(graph.outputs)]
        # If a nested model uses a tensor and returns it too, the tensor has a second use.
        outputs.update(used.intersection(returned))
        return returned

    inside = itertools.islice(outside, len(tree.flatten(read(model).inputs)))
    outputs.update(run(model, "", inside, frozenset(), ()))
    return Trace(calls, outputs, paths)


def traces(model: keras.Layer) -> Iterator[tuple[str, Trace]]:
    """Traces each Sequential or functional model in a model that is not inside another one.

    The model itself may be one. Other models have no graph that can be read. Models with a layer
    that has no configuration are left out.

    Yields:
        The start of all paths in the trace, such as "base/", and the trace.
    """
    traced: set[int] = set()
    for graph in filter(is_graph, all_layers(model)):
        if id(graph) in traced:
            continue
        traced.update(id(layer) for layer in all_layers(graph))
        with contextlib.suppress(ValueError):
            yield "" if graph is model else f"{graph.name}/", trace(graph)


def _as_inputs(call: Call, inputs: Any) -> list[Ref] | None:
    """The arguments of a nested model's call in the order of its inputs, or `None` if unclear."""
    given = [*call.args, *(v for k, v in call.kwargs.items() if k not in ("mask", "training"))]
    refs = refs_in(given)
    if len(refs) == len(tree.flatten(inputs)) == 1:
        return refs
    try:
        tree.assert_same_structure(tree.lists_to_tuples(given), tree.lists_to_tuples([inputs]))
    except (ValueError, TypeError):
        return None
    return refs if len(refs) == len(tree.flatten(inputs)) else None


def _read_sequential(model):
    inputs = ref = Ref("", 0, 0)
    calls: list[Call] = []
    counts: collections.Counter[str] = collections.Counter()
    for layer in model.layers:
        number = counts[layer.name]  # the list may contain a layer twice
        counts[layer.name] += 1
        calls.append(Call(layer, number, (ref,), {}))
        ref = Ref(layer.name, number, 0)
    return Graph(inputs, calls, ref)


def _read_functional(model):
    config = _functional_config(model)
    operations = {operation.name: operation for operation in model.operations}
    inputs = _read_ends(config["input_layers"], operations)
    known = {(ref.layer, ref.call) for ref in tree.flatten(inputs)}
    calls: list[Call] = []
    waiting: collections.deque[collections.deque[Call]] = collections.deque()
    for layer in config["layers"]:
        nodes = [
            Call(operations[layer["name"]], number, _read(node["args"]), _read(node["kwargs"]))
            for number, node in enumerate(layer["inbound_nodes"])
        ]
        waiting.append(collections.deque(nodes))
    # Layers are listed in the order of their first calls. A later call waits for its inputs.
    while waiting:
        layer = waiting.popleft()
        while layer and all((ref.layer, ref.call) in known for ref in layer[0].refs):
            calls.append(layer.popleft())
            known.add((calls[-1].operation.name, calls[-1].number))
        if layer:
            waiting.append(layer)
    return Graph(inputs, calls, _read_ends(config["output_layers"], operations))


def _functional_config(model):
    try:
        config = config_of(model)
    except ValueError:
        config = {}
    if "input_layers" in config:
        return config
    for layer in model.layers:
        config_of(layer)  # raises if this layer is the reason
    # A subclass may have another configuration. Read the same graph from a plain model.
    return config_of(keras.Model(model.input, model.output))


def _read(data):
    """Saved arguments of a call, with a `Ref` in place of each tensor."""
    if isinstance(data, dict):
        if data.get("class_name") == "__keras_tensor__":
            return Ref(*data["config"]["keras_history"])
        if "class_name" in data:
            return keras.saving.deserialize_keras_object(data, safe_mode=False)
        return {key: _read(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return type(data)(_read(value) for value in data)
    return data


def _read_ends(data, operations):
    """Saved inputs or outputs of a functional model: [name, call, tensor] for each."""
    if isinstance(data, dict):
        return {key: _read_ends(value, operations) for key, value in data.items()}
    if not isinstance(data[0], str):
        return type(data)(_read_ends(value, operations) for value in data)
    name, call, tensor = data
    # Here, unlike in the arguments of calls, Keras counts the calls of functional models from 1.
    return Ref(name, call - isinstance(operations[name], keras.Function), tensor)
