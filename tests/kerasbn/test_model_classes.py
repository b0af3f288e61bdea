"""Which custom classes of Sequential and functional models the tools keep."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import kerasbn

TOOLS = [kerasbn.from_keras, kerasbn.to_keras, kerasbn.fold]
NEW_NORMS = {
    kerasbn.from_keras: [kerasbn.BatchNorm],
    kerasbn.to_keras: [layers.BatchNormalization],
    kerasbn.fold: [],
}
KINDS = {"keras": layers.BatchNormalization, "kerasbn": kerasbn.BatchNorm}
X = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")
registered = keras.saving.register_keras_serializable("kerasbn_test_model_classes")


@registered
class Plain(keras.Model):
    def doubled(self, x):
        return 2.0 * self(x)


@registered
class PassedOn(Plain):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


@registered
class WithOption(Plain):
    def __init__(self, inputs, outputs, factor=1.0, **kwargs):
        super().__init__(inputs, outputs, **kwargs)
        self.factor = factor

    def get_config(self):
        return {"factor": self.factor}

    def doubled(self, x):
        return 2.0 * self.factor * self(x)


@registered
class Silent(WithOption):
    """The value of `factor` is unknown without `get_config`."""

    get_config = keras.Model.get_config


@registered
class Stack(keras.Sequential):
    def doubled(self, x):
        return 2.0 * self(x)


@registered
class EmptyStack(Stack):
    """Keras makes such a model empty and then adds the layers, when it loads the model."""

    def __init__(self, name=None):
        super().__init__(name=name)


@registered
class BuiltStack(Stack):
    def __init__(self, kind="keras", name=None):
        super().__init__(layers_of(kind), name=name)
        self.kind = kind

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}


@registered
class NoName(Plain):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, name="mine")


@registered
class Builds(Plain):
    """Makes its layers itself, so a new one would have the old batch norm again."""

    def __init__(self, kind, name=None):
        super().__init__(*graph(kind), name=name)
        self.kind = kind

    def get_config(self):
        return {"kind": self.kind, "name": self.name}


@registered
class BuildsOrTakes(Plain):
    """Takes a graph, but makes the old one when it is loaded."""

    def __init__(self, kind, inputs=None, outputs=None, name=None):
        inputs, outputs = graph(kind) if inputs is None else (inputs, outputs)
        super().__init__(inputs, outputs, name=name)
        self.kind = kind

    get_config = Builds.get_config


def layers_of(kind):
    return [keras.Input((4,)), layers.Dense(3, name="dense"), KINDS[kind](name="bn")]


def graph(kind):
    x, dense, norm = layers_of(kind)
    return x, norm(dense(x))


def empty_stack(kind):
    model = EmptyStack(name="mine")
    for layer in layers_of(kind):
        model.add(layer)
    return model


KEPT = {
    "plain": lambda kind: Plain(*graph(kind), name="mine"),
    "passed_on": lambda kind: PassedOn(*graph(kind), name="mine"),
    "with_option": lambda kind: WithOption(*graph(kind), factor=3.0, name="mine"),
    "stack": lambda kind: Stack(layers_of(kind), name="mine"),
    "empty_stack": empty_stack,
}
LOST = {
    "builds": lambda kind: Builds(kind, name="mine"),
    "builds_or_takes": lambda kind: BuildsOrTakes(kind, name="mine"),
    "no_name": lambda kind: NoName(*graph(kind)),
    "silent": lambda kind: Silent(*graph(kind), 2.0, name="mine"),
    "built_stack": lambda kind: BuiltStack(kind, name="mine"),
}


def kind_for(tool):
    return "kerasbn" if tool is kerasbn.to_keras else "keras"


def with_random_weights(model):
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 2.0, weight.shape))
    return model


def assert_same(actual, desired):
    actual, desired = map(keras.ops.convert_to_numpy, (actual, desired))
    np.testing.assert_allclose(actual, desired, rtol=1e-5, atol=1e-5)


def norms_in(model):
    return [type(layer) for layer in model.layers if isinstance(layer, tuple(KINDS.values()))]


def reloaded(model, path):
    model.save(path)
    return keras.models.load_model(path)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("tool", TOOLS)
def test_a_class_that_takes_the_graph_keeps_its_methods(tool, name):
    model = with_random_weights(KEPT[name](kind_for(tool)))
    new = tool(model)
    assert type(new) is type(model)
    assert new is not model
    assert new.name == "mine"
    assert norms_in(new) == NEW_NORMS[tool]
    assert_same(new.doubled(X), model.doubled(X))


@pytest.mark.parametrize("name", sorted(KEPT.keys() - {"with_option"}))
@pytest.mark.parametrize("tool", TOOLS)
def test_a_kept_class_is_loaded_with_the_new_norms(tool, name, tmp_path):
    new = tool(with_random_weights(KEPT[name](kind_for(tool))))
    loaded = reloaded(new, tmp_path / "model.keras")
    assert type(loaded) is type(new)
    assert norms_in(loaded) == NEW_NORMS[tool]
    assert_same(loaded.doubled(X), new.doubled(X))


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("tool", TOOLS)
def test_nested_models_keep_their_class_too(tool):
    x = keras.Input((4,))
    inner = WithOption(*graph(kind_for(tool)), factor=3.0, name="inner")
    new = tool(keras.Model(x, inner(x)))
    assert type(new.get_layer("inner")) is WithOption
    assert new.get_layer("inner").factor == 3.0


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("tool", TOOLS)
def test_other_classes_become_plain_models(tool, name, tmp_path):
    model = with_random_weights(LOST[name](kind_for(tool)))
    with pytest.warns(UserWarning, match=rf"in place of 'mine' \({type(model).__name__}\)"):
        new = tool(model)
    loaded = reloaded(new, tmp_path / "model.keras")
    for each in (new, loaded):
        assert not isinstance(each, type(model))
        assert each.name == "mine"
        assert norms_in(each) == NEW_NORMS[tool]
        assert_same(each(X), model(X))


@pytest.mark.parametrize(
    ("tool", "advice"),
    [
        (kerasbn.from_keras, "Or use kerasbn.BatchNorm in its code and copy the weights with "),
        (kerasbn.to_keras, "Or use keras.layers.BatchNormalization in its code and copy "),
        (kerasbn.fold, ""),
    ],
)
def test_one_warning_names_all_classes_that_are_lost(tool, advice):
    x = keras.Input((4,))
    kind = kind_for(tool)
    first, second = Builds(kind, name="first"), BuiltStack(kind, name="second")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        tool(keras.Model(x, [first(x), second(x)]))
    (message,) = [str(each.message) for each in caught if each.category is UserWarning]
    assert "'first' (Builds), 'second' (BuiltStack)" in message
    assert advice in message
    assert len(message) < 500


def test_the_advice_keeps_the_class(tmp_path):
    """A class with the new batch norm in its code reads the weights of the old one."""
    old = with_random_weights(Builds("keras", name="mine"))
    old.save_weights(tmp_path / "old.weights.h5")
    new = Builds("kerasbn", name="mine")
    kerasbn.load_weights(new, tmp_path / "old.weights.h5")
    loaded = reloaded(new, tmp_path / "new.keras")
    for each in (new, loaded):
        assert type(each) is Builds
        assert norms_in(each) == [kerasbn.BatchNorm]
        assert_same(each.doubled(X), old.doubled(X))
