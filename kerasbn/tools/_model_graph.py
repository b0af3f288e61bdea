"""Walks Keras models: all layers in them, one model's graph of calls, a whole model's layer calls.

A graph is read from `get_config()`, the format of saved models. That names every call of every
layer and the tensors between them without Keras's internals, and lasts as long as saved models do.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import warnings
from typing import Any, NamedTuple

import keras
from keras import tree

from kerasbn.batch_norm import BatchNorm

BATCH_NORMS = (BatchNorm, keras.layers.BatchNormalization)


@dataclasses.dataclass(frozen=True)  # not a tuple, which `keras.tree` would take apart
class Ref:
    """A tensor in one model's graph: output number `tensor` of call number `call` of a layer."""

    layer: str
    call: int
    tensor: int


class Call(NamedTuple):
    """One call of a layer or operation; in its arguments a `Ref` stands for each tensor."""

    operation: keras.Operation
    number: int
    args: tuple
    kwargs: dict[str, Any]

    @property
    def refs(self) -> list[Ref]:
        """The tensors that the call takes, its first argument's first."""
        return refs_in((self.args, self.kwargs))


class Graph(NamedTuple):
    """The calls of one model, nested models being single calls, each after those that it needs."""

    inputs: Any
    calls: list[Call]
    outputs: Any


Token = tuple[int, int]  # a tensor of the whole model: (which `LayerCall`, which of its outputs)


class LayerCall(NamedTuple):
    """A call in the whole model, with nested models opened up."""

    layer: keras.Operation
    inputs: list[Token]
    training: bool  # whether the graph says `training=True`


class Trace(NamedTuple):
    """A whole model: its calls, which tensors are outputs, and layers' paths by `id(layer)`."""

    calls: list[LayerCall]
    outputs: set[Token]
    paths: dict[int, str]


def layers_of(layer: keras.Layer) -> list[keras.Layer]:
    """The layer or model itself and all layers in it, at any depth, each once."""
    # Keras has no public way to the layers inside a layer that is no model (a wrapper, a user's own
    # block). Its own `summary`, `weights` and saving rest on this method.
    return layer._flatten_layers(include_self=True, recursive=True)


def batch_norms(model: keras.Model) -> list[keras.Layer]:
    """Every BatchNorm and BatchNormalization in the model, subclasses included, at any depth."""
    return [layer for layer in layers_of(model) if isinstance(layer, BATCH_NORMS)]


def check_built(model: keras.Model) -> None:
    """Raises a ValueError unless `model` is a Keras model that has been built."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"Expected a built keras.Model. Received: {model!r} of type {type(model).__name__}. "
            "Put a single layer into keras.Sequential([keras.Input(shape), layer])."
        )
    if not model.built:
        raise ValueError(
            f"Expected a built model. Received: model '{model.name}', which has no weights yet. "
            "Give it an Input, call `model.build(input_shape)`, or call it once on a batch."
        )


def check_graph(model: keras.Model) -> None:
    """Raises a ValueError unless `model` is built, and Sequential or functional."""
    check_built(model)
    if not is_graph(model):
        raise ValueError(
            "Expected a Sequential or functional model, whose layer calls can be read and made "
            f"again. Received: model '{model.name}' of the class {type(model).__name__}, which has "
            "a `call` of its own and cannot be cloned. Write it with the functional API, or pass "
            "the Sequential and functional models in it one by one."
        )


def warn_nothing_to_do(model: keras.Model, wanted: str, stacklevel: int = 3) -> None:
    """Warns, in the name of the line that called the caller, that the model has no such layer."""
    message = f"Model '{model.name}' has no {wanted} layer and is left as it is."
    warnings.warn(message, stacklevel=stacklevel)


def is_graph(layer: Any) -> bool:
    """Whether it is a model that does what its graph says: Sequential or functional."""
    functional = isinstance(layer, keras.Model) and isinstance(layer, keras.Function)
    if not functional and not isinstance(layer, keras.Sequential):
        return False
    # A subclass with a `call` of its own may do anything.
    owner = next(cls for cls in type(layer).__mro__ if "call" in vars(cls))
    # A Sequential has inputs once it has its graph; on nested structures it never gets one.
    return owner.__module__.startswith("keras.") and hasattr(layer, "inputs")


def config_of(layer: keras.Operation) -> dict[str, Any]:
    """Its configuration, or a ValueError that says how to get one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras: that a `lambda` were unsafe to load
        try:
            return layer.get_config()
        except NotImplementedError as error:
            raise ValueError(
                f"'{layer.name}' of the class {type(layer).__name__} cannot be cloned, since it "
                f"has no configuration. Implement `get_config`. Keras says: {error}"
            ) from error


def read_graph(model: keras.Model) -> Graph:
    """The graph of a Sequential or functional model; nested models are single calls."""
    if isinstance(model, keras.Sequential):
        return _read_sequential(model)
    return _read_functional(model)


def refs_in(structure: Any) -> list[Ref]:
    """The tensors in a structure of arguments."""
    return [leaf for leaf in tree.flatten(structure) if isinstance(leaf, Ref)]


def trace(model: keras.Model) -> Trace:
    """The whole model's layer calls: nested models are opened, once for each call of them."""
    read = functools.cache(read_graph)
    calls, outputs, paths = [], set(), {}
    outside = ((number, 0) for number in itertools.count(-1, -1))  # of no known call

    def run(model, path, given, training):
        graph = read(model)
        tokens = dict(zip(tree.flatten(graph.inputs), given, strict=True))
        leaves = {}

        def token(ref):
            leaf = leaves.get((ref.layer, ref.call))
            return tokens[ref] if leaf is None else (leaf, ref.tensor)

        used = set()
        for call in graph.calls:
            layer = call.operation
            paths.setdefault(id(layer), path + layer.name)
            inputs = [token(ref) for ref in call.refs]
            used.update(inputs)
            in_training = training or call.kwargs.get("training") is True
            if not is_graph(layer):
                leaves[layer.name, call.number] = len(calls)
                calls.append(LayerCall(layer, inputs, in_training))
                continue
            passed = _as_inputs(call, read(layer).inputs)
            if passed is None:  # used, but it cannot be told for which input
                calls.append(LayerCall(layer, inputs, in_training))
                inside = list(itertools.islice(outside, len(tree.flatten(read(layer).inputs))))
            else:
                inside = [token(ref) for ref in passed]
            for i, out in enumerate(run(layer, f"{path}{layer.name}/", inside, in_training)):
                tokens[Ref(layer.name, call.number, i)] = out
        returned = [token(ref) for ref in tree.flatten(graph.outputs)]
        # What a nested model both uses and returns has a second use, taken up outside or not.
        outputs.update(used.intersection(returned))
        return returned

    inside = itertools.islice(outside, len(tree.flatten(read(model).inputs)))
    outputs.update(run(model, "", inside, False))
    return Trace(calls, outputs, paths)


def _as_inputs(call: Call, inputs: Any) -> list[Ref] | None:
    """The arguments of a nested model's call in the order of its inputs; `None` if unclear."""
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
    calls, counts = [], collections.Counter()
    for layer in model.layers:
        number = counts[layer.name]  # the same layer may stand in the list twice
        counts[layer.name] += 1
        calls.append(Call(layer, number, (ref,), {}))
        ref = Ref(layer.name, number, 0)
    return Graph(inputs, calls, ref)


def _read_functional(model):
    config = _functional_config(model)
    operations = {operation.name: operation for operation in model.operations}
    inputs = _read_ends(config["input_layers"], operations)
    known = {(ref.layer, ref.call) for ref in tree.flatten(inputs)}
    calls, waiting = [], collections.deque()
    for layer in config["layers"]:
        nodes = [
            Call(operations[layer["name"]], number, _read(node["args"]), _read(node["kwargs"]))
            for number, node in enumerate(layer["inbound_nodes"])
        ]
        waiting.append(collections.deque(nodes))
    # Layers stand in the order of their first calls; one that is called again further down waits.
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
        config_of(layer)  # fails for the one layer for which the model's has failed, if that is why
    # A subclass describes itself by arguments of its own: read the same graph as a plain model.
    return config_of(keras.Model(model.input, model.output))


def _read(data):
    """Arguments of a call, as saved, with a `Ref` for each tensor."""
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
    """Inputs or outputs of a functional model, as saved: [name, call, tensor] for each."""
    if isinstance(data, dict):
        return {key: _read_ends(value, operations) for key, value in data.items()}
    if not isinstance(data[0], str):
        return type(data)(_read_ends(value, operations) for value in data)
    name, call, tensor = data
    # Here, but not in the arguments of calls, Keras counts a functional model's calls from 1.
    return Ref(name, call - isinstance(operations[name], keras.Function), tensor)
