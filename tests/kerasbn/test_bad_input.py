"""Bad arguments and inputs raise errors that say what was received and how to fix it."""

import re

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm, kernels


def refuses(*parts):
    """Expects a ValueError whose message contains the parts in this order."""
    return pytest.raises(ValueError, match="(?s)" + ".*".join(re.escape(part) for part in parts))


@pytest.mark.parametrize("axis", [1.5, "1", None, True, (), (1, 2.5), np.array([1, 2])])
def test_axis_that_is_no_integer(axis):
    with refuses("axis is an integer", f"Received: axis={axis!r}", "axis=-1", "axis=1"):
        BatchNorm(axis=axis)


@pytest.mark.parametrize(("axis", "shown"), [(3, "3"), (-4, "-4"), ((1, 5), "5")])
def test_axis_out_of_range(axis, shown):
    message = f"axis={shown} is out of range for an input of rank 3, whose axes are -3 to 2"
    with refuses(message, f"Received: axis={axis}, input shape (None, 4, 5)"):
        BatchNorm(axis=axis).build((None, 4, 5))


def test_axis_out_of_range_of_an_output_shape():
    with refuses("axis=2 is out of range", "input shape (8, 4)"):
        BatchNorm(axis=2).compute_output_shape((8, 4))


@pytest.mark.parametrize("axis", [(1, 1), (2, -1)])
def test_axis_named_twice(axis):
    positive = tuple(a % 3 for a in axis)
    with refuses("names an axis twice", f"axis={axis} is {positive}", "rank 3", "once"):
        BatchNorm(axis=axis).build((None, 4, 5))


@pytest.mark.parametrize(
    ("axis", "shape"), [(-1, (8, None)), (0, (None, 4)), ((1, 2), (8, None, 3))]
)
def test_size_of_the_axis_undefined(axis, shape):
    with refuses("must be defined", f"Received: axis={axis}, input shape {shape}", "fixed size"):
        BatchNorm(axis=axis).build(shape)


@pytest.mark.parametrize("name", ["momentum", "renorm_momentum"])
@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan"), "0.9", 1j, True])
def test_momentum_out_of_range(name, value):
    with refuses(
        f"{name} is the weight of the old average", "0 to 1", f"Received: {name}={value!r}"
    ):
        BatchNorm(**{name: value})


def test_renorm_momentum_is_never_cumulative():
    with refuses("renorm_momentum", "Received: renorm_momentum=None"):
        BatchNorm(renorm_momentum=None)


@pytest.mark.parametrize("epsilon", [0, -1e-3, float("nan"), float("inf"), None, "1e-3", True])
def test_epsilon_that_is_not_positive(epsilon):
    with refuses("epsilon", "positive", "1e-3", f"Received: epsilon={epsilon!r}"):
        BatchNorm(epsilon=epsilon)


@pytest.mark.parametrize("size", [1, 0, -4, 2.0, True, "8"])
def test_virtual_batch_size_below_two_or_no_integer(size):
    with refuses("at least 2", "None for the whole batch", f"virtual_batch_size={size!r}"):
        BatchNorm(virtual_batch_size=size)


def test_virtual_batch_size_with_renorm():
    with refuses(
        "virtual_batch_size", "renorm=True", "exclude", "virtual_batch_size=4", "Leave one"
    ):
        BatchNorm(virtual_batch_size=4, renorm=True)


def test_virtual_batch_size_with_synchronized():
    with refuses("synchronized=True", "exclude", "virtual_batch_size=4", "Leave one"):
        BatchNorm(virtual_batch_size=4, synchronized=True)


def test_virtual_batch_size_with_the_batch_axis_kept():
    with refuses("virtual_batch_size splits the batch axis", "axis=(0, 1)", "Leave one"):
        BatchNorm(virtual_batch_size=4, axis=(0, 1)).build((8, 3))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX has no synchronized")
def test_synchronized_on_jax():
    with refuses("synchronized=True", "TensorFlow", f"the {keras.backend.backend()} backend"):
        BatchNorm(synchronized=True)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX has no synchronized")
def test_synchronized_kernel_on_jax(features):
    x = keras.ops.convert_to_tensor(features((6, 3)))
    with refuses("synchronized", "TensorFlow"):
        kernels.batch_normalize(x, None, None, axes=(0,), epsilon=1e-3, synchronized=True)


@pytest.mark.parametrize(
    "clipping", [{"rmean": 1.0}, {"rmax": 1.0, "r": 2.0}, [("rmax", 1.0)], 3.0]
)
def test_renorm_clipping_of_unknown_keys(clipping):
    with refuses("invalid keys", repr(clipping), "['rmax', 'rmin', 'dmax']"):
        BatchNorm(renorm=True, renorm_clipping=clipping)


@pytest.mark.parametrize("value", ["3", float("nan"), [1.0]])
def test_renorm_clipping_that_is_no_number(value):
    with refuses("dmax in `renorm_clipping` is a number", f"Received: dmax={value!r}"):
        BatchNorm(renorm=True, renorm_clipping={"dmax": value})


def test_renorm_clipping_of_bounds_in_the_wrong_order():
    with refuses("rmax should be at least rmin", "Received: rmax=0.5, rmin=2.0"):
        BatchNorm(renorm=True, renorm_clipping={"rmax": 0.5, "rmin": 2.0})


def test_renorm_clipping_of_negative_dmax():
    with refuses("dmax should be non-negative", "Received: dmax=-1.0"):
        BatchNorm(renorm=True, renorm_clipping={"dmax": -1.0})


@pytest.mark.parametrize("shape", [(6,), (6, 5, 4), (6, 4), (5, 5), (6, 5, 1), ()])
def test_mask_of_a_wrong_shape(features, shape):
    with refuses(
        "one entry for each position of all axes of the input but the last",
        f"expected a mask of shape (6, 5). Received: mask of shape {shape}",
        "input of shape (6, 5, 4)",
    ):
        BatchNorm()(features((6, 5, 4)), training=True, mask=np.ones(shape, bool))


def test_mask_of_a_wrong_shape_in_inference(features):
    with refuses("expected a mask of shape (6, 5)", "mask of shape (6, 5, 4)"):
        BatchNorm()(features((6, 5, 4)), mask=np.ones((6, 5, 4), bool))


def test_input_of_another_size_than_built_for(features):
    layer = BatchNorm()
    layer(features((6, 4)))
    with refuses("expected axis 1 of input shape to have value 4", "(6, 5)"):
        layer(features((6, 5)))


def test_input_of_another_rank_than_built_for(features):
    layer = BatchNorm()
    layer(features((6, 4)))
    with refuses("expected ndim=2, found ndim=3", "(6, 2, 4)"):
        layer(features((6, 2, 4)))
