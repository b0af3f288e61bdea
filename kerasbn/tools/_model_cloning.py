"""Builds a new Keras model along the graph of an old one, with other layers in some places."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable

import keras
from keras import ops, tree

from kerasbn.tools._model_graph import Ref, config_of, is_graph, layers_of, read_graph

Pairs = list[tuple[keras.Layer, keras.Layer]]


def rebuild(
    model: keras.Model, make: Callable[[keras.Layer], keras.Layer | None]
) -> tuple[keras.Model, Pairs]:
    """Builds the model anew: names, nesting, sharing and `trainable` flags stay.

    `keras.models.clone_model` would not do: it cannot leave out a layer of a Sequential model,
    forgets which models are frozen, and compiles the clone, which fails with a loss of the user's.

    Args:
        model: Sequential or functional model.
        make: Gives a new layer for one of the old, or `None` to leave it out and pass its input on.
            It is asked once for each layer that is no nested model.

    Returns:
        The new model, not compiled, with initial weights; and the pairs of old and new layers,
        nested models apart. A model of a class of its own comes back as a plain `keras.Model`,
        unless its constructor takes inputs and outputs alone.
    """
    made = {}  # id: (old, new); holds the old ones, so that no id is used twice

    def new(old):
        if id(old) not in made:
            if not is_graph(old):
                layer = make(old) if isinstance(old, keras.Layer) else clone_layer(old)
            else:
                layer = sequential(old) if isinstance(old, keras.Sequential) else functional(old)
            made[id(old)] = old, layer
        return made[id(old)][1]

    def sequential(old):
        layers = [layer for layer in map(new, old.layers) if layer is not None]
        return keras.Sequential([_input_like(old, old.inputs[0]), *layers], name=old.name)

    def functional(old):
        graph = read_graph(old)
        inputs = [_input_like(old, tensor).output for tensor in old.inputs]
        values = dict(zip(tree.flatten(graph.inputs), inputs, strict=True))
        returned = {(ref.layer, ref.call) for ref in tree.flatten(graph.outputs)}

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
                    # Outputs go by the name of their layer; a loss may be given by that name.
                    dtype = call.operation.dtype_policy.name  # a policy it could not save
                    outputs = [keras.layers.Identity(name=name, dtype=dtype)(outputs[0])]
            values.update({Ref(name, call.number, i): out for i, out in enumerate(outputs)})
        cls = type(old) if _takes_inputs_and_outputs(type(old)) else keras.Model
        return cls(fill(graph.inputs), fill(graph.outputs), name=old.name)

    rebuilt = new(model)
    pairs = [(old, layer) for old, layer in made.values() if isinstance(layer, keras.Layer)]
    # Setting `trainable` on a model sets it on its layers: the outer ones first.
    for old, layer in reversed(pairs):
        _copy_settings(old, layer)
    return rebuilt, [(old, layer) for old, layer in pairs if not is_graph(old)]


def clone_layer(layer: keras.Operation, config: dict | None = None) -> keras.Operation:
    """A new layer of the same class and configuration, or of the configuration given."""
    config = _of_new_layers(config_of(layer) if config is None else config)
    try:
        if not isinstance(layer, keras.layers.Lambda):
            return type(layer).from_config(config)
        lambda_layer = type(layer).from_config(config, safe_mode=False)  # no file is loaded here
        # As saved, a lambda has lost the module in which it looks names up.
        lambda_layer.function = layer.function
        return lambda_layer
    except Exception as error:  # whatever a user's class raises
        raise ValueError(
            f"Layer '{layer.name}' of the class {type(layer).__name__} cannot be cloned: its "
            f"`from_config(get_config())` fails with {type(error).__name__}: {error}. Let "
            "`get_config` return all arguments of `__init__`, and register your own functions with "
            "`keras.saving.register_keras_serializable`."
        ) from error


def _of_new_layers(config):
    """A configuration whose inner layers are neither built nor compiled yet.

    Keras would restore both. But a block that builds its layers would then build them twice, and a
    loss may not be registered.
    """
    if isinstance(config, dict):
        left_out = ("build_config", "compile_config") if "class_name" in config else ()
        return {k: _of_new_layers(value) for k, value in config.items() if k not in left_out}
    if isinstance(config, (list, tuple)):
        return type(config)(map(_of_new_layers, config))
    return config


def copy_state(old: keras.Layer, new: keras.Layer) -> None:
    """Copies all state of a layer to its clone: weights, random generators, vocabularies."""
    shapes = [[tuple(v.shape) for v in layer.variables] for layer in (old, new)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"Layer '{old.name}' of the class {type(old).__name__} cannot be cloned: it has "
            f"weights of the shapes {shapes[0]}, `from_config(get_config())` gives {shapes[1]}. "
            "Create all weights in `__init__` or `build`, from arguments that `get_config` returns."
        )
    for source, target in zip(old.variables, new.variables, strict=True):
        # A copy: JAX would share the array, and `predict` of one model would delete the other's.
        target.assign(ops.copy(source.value))
    for source, target in zip(layers_of(old), layers_of(new), strict=True):
        _copy_preprocessing(source, target)


def _copy_preprocessing(old, new):
    """What preprocessing layers learn by `adapt` and keep elsewhere than in variables."""
    if isinstance(new, keras.layers.Normalization):
        new.finalize_state()  # it computes with constants made from its variables
    if hasattr(new, "load_assets"):  # vocabularies
        store = {}
        old.save_own_variables(store)
        new.load_own_variables(store)
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


def _copy_settings(old, new):
    if is_graph(old):
        inside = [(old, new)]
        if new.dtype_policy.name != old.dtype_policy.name:
            new.dtype_policy = old.dtype_policy
    else:
        inside = zip(layers_of(old), layers_of(new), strict=False)
    for source, target in inside:
        # Only where it differs: setting it would unfreeze what LoRA has frozen.
        if target.trainable != source.trainable:
            target.trainable = source.trainable


def _input_like(model, tensor):
    layers = (layer for layer in layers_of(model) if isinstance(layer, keras.layers.InputLayer))
    return clone_layer(next(layer for layer in layers if layer.output is tensor))


def _takes_inputs_and_outputs(cls):
    _, *parameters = inspect.signature(cls.__init__).parameters.values()
    needed = [
        p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    return needed == ["inputs", "outputs"]
