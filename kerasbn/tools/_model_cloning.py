"""Rebuilds a Keras model from its graph and replaces some of its layers."""

from __future__ import annotations

import contextlib
import inspect
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops, tree

from kerasbn._keras_private import all_layers
from kerasbn.tools._model_graph import Ref, read_graph
from kerasbn.tools._models import config_of, is_graph, is_time_distributed

Pairs = list[tuple[keras.Layer, keras.Layer]]


def rebuild(
    model: keras.Model, make: Callable[[keras.Layer], keras.Layer | None]
) -> tuple[keras.Model, Pairs, list[keras.Model]]:
    """Rebuilds a model with new layers. Names, nesting, sharing and `trainable` flags stay.

    It replaces `keras.models.clone_model` for three reasons. That function cannot leave out a layer
    of a Sequential model. It does not keep frozen models frozen. It compiles the clone, and that
    fails with a custom loss.

    Args:
        model: Sequential or functional model.
        make: Function that returns a new layer for an old one, or `None` to leave the layer out and
            pass its input on. It is called once for each layer, including layers inside nested
            models and `TimeDistributed`. It is not called for the nested models and the
            `TimeDistributed` themselves.

    Returns:
        The new model, the pairs of old and new layers, and the old models whose class is lost. The
        new model has initial weights and is not compiled. It keeps a custom class if the class can
        hold the new graph, see `_of_same_class`. The pairs do not include nested models and
        `TimeDistributed`.
    """
    lost: list[keras.Model] = []
    # Keys are ids. The values keep the old layers alive, so Python cannot reuse an id.
    made: dict[int, tuple[keras.Operation, Any]] = {}

    def new(old):
        if id(old) not in made:
            if is_time_distributed(old):
                layer = time_distributed(old)
            elif not is_graph(old):
                layer = make(old) if isinstance(old, keras.Layer) else clone_layer(old)
            else:
                layer = sequential(old) if isinstance(old, keras.Sequential) else functional(old)
            made[id(old)] = old, layer
        return made[id(old)][1]

    def sequential(old):
        layers = [layer for layer in map(new, old.layers) if layer is not None]
        layers = [_input_like(old, old.inputs[0]), *layers]
        return of_same_class(old, keras.Sequential, {"layers": layers})

    def time_distributed(old):
        layer = new(old.layer)
        config = {key: value for key, value in config_of(old).items() if key != "layer"}
        return None if layer is None else keras.layers.TimeDistributed(layer, **config)

    def functional(old):
        graph = read_graph(old)
        inputs = [_input_like(old, tensor).output for tensor in old.inputs]
        values = dict(zip(tree.flatten(graph.inputs), inputs, strict=True))
        returned = {(ref.layer, ref.call) for ref in tree.flatten(graph.outputs)}
        identities: dict[str, keras.layers.Identity] = {}

        def fill(structure):
            return tree.map_structure(
                lambda leaf: values[leaf] if isinstance(leaf, Ref) else leaf, structure
            )

        for call in graph.calls:
            name, layer = call.operation.name, new(call.operation)
            if layer is not None:
                outputs = tree.flatten(layer(*fill(call.args), **fill(call.kwargs)))
            else:
                outputs = [values[call.refs[0]]]
                if (name, call.number) in returned:
                    # Losses may refer to an output by the name of its layer. A layer that is called
                    # several times can have several outputs.
                    if name not in identities:
                        dtype = call.operation.dtype_policy.name  # Identity cannot save a policy
                        identities[name] = keras.layers.Identity(name=name, dtype=dtype)
                    outputs = [identities[name](outputs[0])]
            values.update({Ref(name, call.number, i): out for i, out in enumerate(outputs)})
        ends = {"inputs": fill(graph.inputs), "outputs": fill(graph.outputs)}
        return of_same_class(old, keras.Model, ends)

    def of_same_class(old, plain, graph):
        new = _of_same_class(old, graph)
        if new is None:
            lost.append(old)
            new = plain(**graph, name=old.name)
        return new

    rebuilt = new(model)
    pairs = [(old, layer) for old, layer in made.values() if isinstance(layer, keras.Layer)]
    # Outer models first, because setting `trainable` on a model sets it on all its layers.
    for old, layer in reversed(pairs):
        _copy_settings(old, layer)
    return rebuilt, [(old, layer) for old, layer in pairs if not _is_structure(old)], lost


def clone_layer(layer: keras.Operation, config: dict[str, Any] | None = None) -> keras.Operation:
    """A new layer of the same class, with the same configuration or the given one."""
    config = _of_new_layers(config_of(layer) if config is None else config)
    try:
        if not isinstance(layer, keras.layers.Lambda):
            return type(layer).from_config(config)
        lambda_layer = type(layer).from_config(config, safe_mode=False)  # no code from a file
        # A deserialized lambda no longer has the module in which it looks up names.
        lambda_layer.function = layer.function
        return lambda_layer
    except Exception as error:  # a custom class may raise anything
        raise ValueError(
            f"Layer '{layer.name}' of the class {type(layer).__name__} cannot be cloned: its "
            f"`from_config(get_config())` fails with {type(error).__name__}: {error}. Let "
            "`get_config` return all arguments of `__init__`, and register your own functions with "
            "`keras.saving.register_keras_serializable`."
        ) from error


def _of_new_layers(config):
    """A configuration from which Keras does not build and compile the inner layers.

    Otherwise, a block that builds its own layers would build them twice, and compiling would fail
    if a loss is not registered.
    """
    if isinstance(config, dict):
        left_out = ("build_config", "compile_config") if "class_name" in config else ()
        return {k: _of_new_layers(value) for k, value in config.items() if k not in left_out}
    if isinstance(config, (list, tuple)):
        return type(config)(map(_of_new_layers, config))
    return config


def copy_state(
    old: keras.Layer,
    new: keras.Layer,
    left_out: Sequence[tuple[keras.Layer, keras.Layer]] = (),
) -> None:
    """Copies the state of a layer to its clone: weights, random generators and vocabularies.

    Args:
        old: Layer to copy from.
        new: Clone of the layer.
        left_out: Old and new layers inside them whose weights are not copied.
    """
    ignored = {id(v) for pair in left_out for layer in pair for v in layer.variables}
    states = [[v for v in layer.variables if id(v) not in ignored] for layer in (old, new)]
    shapes = [[tuple(v.shape) for v in state] for state in states]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"Layer '{old.name}' of the class {type(old).__name__} cannot be cloned: it has "
            f"weights of the shapes {shapes[0]}, but `from_config(get_config())` gives "
            f"{shapes[1]}. "
            "Create all weights in `__init__` or `build`, from arguments that `get_config` returns."
        )
    for source, target in zip(*states, strict=True):
        # Copied, because JAX would share the array, and one model's `predict` would delete it.
        target.assign(ops.copy(source.value))
    for source, target in zip(all_layers(old), all_layers(new), strict=True):
        _copy_preprocessing(source, target)


def _copy_preprocessing(old, new):
    """Copies the state that preprocessing layers learn by `adapt` and keep outside variables."""
    if isinstance(new, keras.layers.Normalization):
        new.finalize_state()  # turns its variables into the constants that it uses
    if hasattr(new, "load_assets"):  # vocabularies
        store: dict[str, Any] = {}
        old.save_own_variables(store)
        new.load_own_variables(store)
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


def _is_structure(layer):
    return is_graph(layer) or is_time_distributed(layer)


def _copy_settings(old, new):
    if _is_structure(old):
        inside = [(old, new)]
        if new.dtype_policy.name != old.dtype_policy.name:
            new.dtype_policy = old.dtype_policy
    else:
        inside = list(zip(all_layers(old), all_layers(new), strict=False))
    for source, target in inside:
        # Set only if it differs, because setting it would unfreeze weights that LoRA froze.
        if target.trainable != source.trainable:
            target.trainable = source.trainable


def _input_like(model, tensor):
    layers = (layer for layer in all_layers(model) if isinstance(layer, keras.layers.InputLayer))
    return clone_layer(next(layer for layer in layers if layer.output is tensor))


def _of_same_class(old, graph):
    """Makes a model with a new graph and the class of `old`, or `None` if that is impossible.

    A constructor that creates the layers itself would create the old ones again, now and whenever
    the model is loaded from a file. The same holds if the graph is an optional argument, because
    `from_config` leaves it out. Only `Sequential.from_config` adds the layers afterwards.

    Args:
        old: Model to replace.
        graph: Arguments for the constructor of the plain class, by name.
    """
    cls, sequential = type(old), isinstance(old, keras.Sequential)
    _, *parameters = inspect.signature(cls.__init__).parameters.values()
    kinds = {p.kind for p in parameters}
    named = {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    others = [name for name in named if name not in (*graph, "name", "trainable")]
    config = {}
    if others:
        with contextlib.suppress(ValueError):  # it has no `get_config`
            config = config_of(old)
    takes_name = "name" in named or inspect.Parameter.VAR_KEYWORD in kinds
    if not takes_name or not set(others) <= set(config):
        return None
    options = {name: config[name] for name in others}
    passes_on = not named and inspect.Parameter.VAR_POSITIONAL in kinds
    if passes_on or set(graph) <= {
        n for n, p in named.items() if sequential or p.default is p.empty
    }:
        return cls(**graph, **options, name=old.name)
    if not sequential:
        return None
    new = cls(**options, name=old.name)
    if new.layers:
        return None
    for layer in graph["layers"]:
        new.add(layer)
    return new
