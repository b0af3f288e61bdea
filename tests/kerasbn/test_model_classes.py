"""Which custom classes of Sequential and functional models the tools keep."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kerasbn

TOOLS = [kerasbn.from_keras, kerasbn.to_keras, kerasbn.fold]
pytestmark = pytest.mark.usefixtures("seeded", "quick_initial_kernels")


class Plain(keras.Model):
    def doubled(self, x):
        return 2.0 * self(x)


class PassedOn(Plain):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class WithOption(Plain):
    def __init__(self, inputs, outputs, factor=1.0, **kwargs):
        super().__init__(inputs, outputs, **kwargs)
        self.factor = factor

    def get_config(self):
        return {"factor": self.factor}

    def doubled(self, x):
        return 2.0 * self.factor * self(x)


class Silent(WithOption):
    """The value of `factor` is unknown without `get_config`."""

    get_config = keras.Model.get_config


class Stack(keras.Sequential):
    def doubled(self, x):
        return 2.0 * self(x)


class Builds(Plain):
    """Makes its layers itself, so a new one would have the old batch norm again."""

    def __init__(self, kind, name):
        super().__init__(*graph(kind), name=name)


def graph(kind):
    x = keras.Input((4,))
    return x, kind(name="bn")(layers.Dense(3)(x))


def stack(kind, name):
    return Stack([keras.Input((4,)), layers.Dense(3), kind(name="bn")], name=name)


KEPT = {
    "plain": lambda kind: Plain(*graph(kind), name="mine"),
    "passed_on": lambda kind: PassedOn(*graph(kind), name="mine"),
    "with_option": lambda kind: WithOption(*graph(kind), factor=3.0, name="mine"),
    "stack": lambda kind: stack(kind, "mine"),
}


def kind_for(tool):
    return kerasbn.BatchNorm if tool is kerasbn.to_keras else layers.BatchNormalization


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("tool", TOOLS)
def test_a_class_that_takes_the_graph_keeps_its_methods(tool, name):
    model = KEPT[name](kind_for(tool))
    for weight in model.weights:
        weight.assign(np.random.default_rng(0).uniform(0.5, 2.0, weight.shape))
    new = tool(model)
    assert type(new) is type(model)
    assert new is not model
    assert new.name == "mine"
    x = np.ones((2, 4), "float32")
    actual, desired = (keras.ops.convert_to_numpy(each.doubled(x)) for each in (new, model))
    np.testing.assert_allclose(actual, desired, rtol=1e-5)


@pytest.mark.parametrize("tool", TOOLS)
def test_nested_models_keep_their_class_too(tool):
    x = keras.Input((4,))
    inner = WithOption(*graph(kind_for(tool)), factor=3.0, name="inner")
    new = tool(keras.Model(x, inner(x)))
    assert type(new.get_layer("inner")) is WithOption
    assert new.get_layer("inner").factor == 3.0


@pytest.mark.parametrize("cls", [Builds, Silent])
@pytest.mark.parametrize("tool", TOOLS)
def test_other_classes_become_plain_models(tool, cls):
    kind = kind_for(tool)
    model = Builds(kind, "mine") if cls is Builds else Silent(*graph(kind), 2.0, name="mine")
    new = tool(model)
    assert not isinstance(new, cls)
    assert new.name == "mine"
    x = np.ones((2, 4), "float32")
    actual, desired = (keras.ops.convert_to_numpy(each(x)) for each in (new, model))
    np.testing.assert_allclose(actual, desired, rtol=1e-5)
