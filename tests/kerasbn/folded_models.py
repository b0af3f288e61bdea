"""Small models for the tests of `fold`: built, filled with weights, and called."""

from __future__ import annotations

import keras
import numpy as np

import kerasbn

KINDS = [keras.layers.BatchNormalization, kerasbn.BatchNorm]
BACKEND = keras.backend.backend()


def randomized(model, seed=0):
    """Gives batch norms and biases random weights, as if the model had been trained."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        for weight in layer.weights if isinstance(layer, tuple(KINDS)) else []:
            positive = weight.name in ("gamma", "moving_variance", "moving_stddev")
            value = (
                rng.uniform(0.5, 2.0, weight.shape) if positive else rng.normal(size=weight.shape)
            )
            weight.assign(value)
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(size=layer.bias.shape))
    return model


def sequential(shape, *stack, seed=0):
    return randomized(keras.Sequential([keras.Input(shape), *stack]), seed)


def inputs_for(model, examples=3):
    rng = np.random.default_rng(1)
    return [rng.normal(1.0, 2.0, (examples, *t.shape[1:])).astype("float32") for t in model.inputs]


def outputs(model, x):
    def call(x):
        return model(x if len(x) > 1 else x[0], training=False)

    if BACKEND == "jax":  # an eager call would compile every operation
        import jax

        call = jax.jit(call)
    result = call(x)
    return [
        keras.ops.convert_to_numpy(keras.ops.cast(y, "float32")) for y in keras.tree.flatten(result)
    ]


def norms_in(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, tuple(KINDS))]


def bn(**options):
    return kerasbn.BatchNorm(name="bn", **options)
