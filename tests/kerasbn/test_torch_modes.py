"""PyTorch's ways to run a layer: changes in place, checkpointing, modes, memory formats, copies."""

import copy
import gc

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm, reference

if keras.backend.backend() != "torch":
    pytest.skip("these ways to run a layer are PyTorch's", allow_module_level=True)

import torch
from torch.utils import checkpoint

KINDS = {
    "3 channels": ((8, 3), {}),
    "18 channels": ((8, 18), {}),
    "6 channels of images": ((4, 2, 2, 6), {}),
    "channels first": ((4, 3, 2, 2), {"axis": 1}),
    "no gamma and beta": ((8, 3), {"scale": False, "center": False}),
    "ghost": ((8, 3), {"virtual_batch_size": 3}),
    "renorm": ((8, 3), {"renorm": True}),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def data(shape, seed=0):
    return torch.tensor(2 + np.random.default_rng(seed).standard_normal(shape, "float32"))


def mask_of(shape):
    return torch.tensor(np.random.default_rng(7).random(shape[:-1]) < 0.7)


def gradient_of(function, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad((function(x) * data(x.shape, 1)).sum(), x)[0]


IN_PLACE = {
    "relu_": (torch.relu_, torch.relu),
    "add_": (lambda y: y.add_(data(y.shape, 2)), lambda y: y + data(y.shape, 2)),
    "mul_": (lambda y: y.mul_(3.0), lambda y: y * 3.0),
    "part": (
        lambda y: y[:2].zero_() is None or y,
        lambda y: y * torch.tensor([0.0] * 2 + [1.0] * (len(y) - 2)).view(-1, *[1] * (y.ndim - 1)),
    ),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", IN_PLACE)
def test_output_may_be_changed_in_place(assert_close, kind, name, training, masked):
    shape, options = kind
    changed, copied = IN_PLACE[name]
    mask = mask_of(shape) if masked else None

    def through(change):
        layer = BatchNorm(**options)
        return gradient_of(lambda x: change(layer(x, training=training, mask=mask)), data(shape))

    assert_close(through(changed), through(copied), 1e-6)


def test_mask_changed_before_the_backward_pass_is_an_error():
    x, mask = data((8, 3)).requires_grad_(), mask_of((8, 3))
    y = BatchNorm()(x, training=True, mask=mask)
    mask.fill_(True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("masked", [False, True])
def test_backward_twice_gives_the_same_gradients(assert_close, kind, masked):
    shape, options = kind
    x = data(shape).requires_grad_()
    y = BatchNorm(**options)(x, training=True, mask=mask_of(shape) if masked else None)
    dy = data(shape, 1)
    first, second = (torch.autograd.grad(y, x, dy, retain_graph=True)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def network(norm, channels):
    keras.utils.set_random_seed(3)
    parts = [keras.layers.Dense(channels), norm(momentum=0.9), keras.layers.Activation("tanh")]
    return keras.Sequential([keras.Input((4,)), *parts])


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("channels", [3, 18])
def test_checkpointing_is_that_of_keras(assert_close, channels, reentrant):
    def trained(norm):
        model, gradients = network(norm, channels), []
        for n in (8, 5, 16, 8, 3):
            # Centered, because Keras computes the variance as a difference of squares.
            x = (data((n, 4), n) - 2).requires_grad_()
            y = checkpoint.checkpoint(lambda x: model(x, training=True), x, use_reentrant=reentrant)
            (y * data(y.shape, 1)).sum().backward()
            gradients += [x.grad, *(w.value.grad for w in model.trainable_weights)]
            model.zero_grad()
        return gradients, model.weights

    ours, theirs = trained(BatchNorm), trained(keras.layers.BatchNormalization)
    for gradient, expected in zip(ours[0], theirs[0], strict=True):
        assert_close(gradient, expected, at_least=1.0)
    for weight, expected in zip(ours[1], theirs[1], strict=True):
        assert_close(weight, expected)


@pytest.mark.parametrize("channels", [3, 18])
def test_checkpointed_step_moves_the_averages_twice(assert_close, channels):
    model = network(BatchNorm, channels)
    x = data((8, 4)).requires_grad_()
    mean = model.layers[0](x).detach().numpy().mean(0)
    checkpoint.checkpoint(
        lambda x: model(x, training=True), x, use_reentrant=False
    ).sum().backward()
    assert_close(model.layers[1].moving_mean, (1 - 0.9**2) * mean)


@pytest.mark.parametrize(("early_stop", "updates"), [(True, 1), (False, 2)])
@pytest.mark.parametrize("channels", [3, 18])
def test_last_layer_of_a_checkpointed_part(assert_close, channels, early_stop, updates):
    layer, x = BatchNorm(momentum=0.9), data((8, channels)).requires_grad_()
    layer.build(x.shape)
    with checkpoint.set_checkpoint_early_stop(early_stop):
        y = checkpoint.checkpoint(lambda x: layer(x, training=True), x, use_reentrant=False)
    y.sum().backward()
    assert_close(layer.moving_mean, (1 - 0.9**updates) * x.detach().numpy().mean(0))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("training", [False, True])
def test_calls_without_gradients_are_the_same(kind, mode, training):
    shape, options = kind
    plain, without = BatchNorm(**options), BatchNorm(**options)
    plain.build(shape)
    without.build(shape)
    expected = plain(data(shape), training=training)
    with mode():
        y = without(data(shape), training=training)
    assert not y.requires_grad
    np.testing.assert_array_equal(y, expected.detach())
    for weight, other in zip(without.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), other.numpy())
    gradient_of(lambda x: without(x, training=True), data(shape))  # the layer still trains


@pytest.mark.parametrize("channels", [3, 18])
@pytest.mark.parametrize("training", [False, True])
def test_autocast_keeps_float32_statistics(assert_close, channels, training):
    # The sum of 300,000 values near 100 is wrong in bfloat16, and so is their variance.
    x = (100 + data((512, channels))).bfloat16()
    layer = BatchNorm(momentum=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        if not training:
            layer(x, training=True)
        y = layer(x, training=training)
        dx = gradient_of(lambda x: layer(x, training=training), x)
    expected, cache = reference.forward(x.float())
    assert y.dtype == torch.float32
    assert_close(y, expected, axes=0)
    assert_close(layer.moving_variance, cache.sigma2[0])
    assert torch.isfinite(dx).all()


LAYOUTS = {
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "permuted": lambda t: t.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
    "strided": lambda t: torch.repeat_interleave(t, 2, 0)[::2],
    "expanded": lambda t: t[:1].expand(t.shape),
    "flipped": lambda t: torch.flip(t.flip(0), (0,)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("channels", [3, 18])
def test_memory_layout_does_not_change_the_values(assert_close, layout, axis, channels):
    shape = (4, channels, 5, 2) if axis == 1 else (4, 5, 2, channels)
    x = LAYOUTS[layout](data(shape))
    dy = LAYOUTS[layout](data(shape, 1))
    leaf = x.detach().requires_grad_()
    y = BatchNorm(axis=axis)(leaf, training=True)
    (dx,) = torch.autograd.grad(y, leaf, dy)
    expected, cache = reference.forward(x, axis=axis)
    assert_close(y, expected, axes=cache.axes)
    assert_close(dx, reference.backward(dy, cache)[0], at_least=1.0)


def test_deep_copy_trains_separately(kind):
    shape, options = kind
    layer = BatchNorm(**options)
    layer(data(shape), training=True)
    before = [w.numpy().copy() for w in layer.weights]
    other = copy.deepcopy(layer)
    for weight, expected in zip(other.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected)
    other(5 + data(shape), training=True)
    for weight, expected in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected)
    assert np.any(other.moving_mean.numpy() != layer.moving_mean.numpy())


@pytest.mark.parametrize("masked", [False, True])
def test_deterministic_algorithms(kind, masked):
    shape, options = kind
    torch.use_deterministic_algorithms(True)
    try:
        gradient_of(
            lambda x: BatchNorm(**options)(
                x, training=True, mask=mask_of(shape) if masked else None
            ),
            data(shape),
        )
    finally:
        torch.use_deterministic_algorithms(False)


def test_activations_are_freed_by_the_backward_pass():
    layer = BatchNorm()
    x = data((64, 32)).requires_grad_()
    loss = layer(x, training=True).square().sum()  # keeps the graph
    loss.backward()
    tensors = [each for each in gc.get_objects() if type(each) is torch.Tensor]
    assert {id(t) for t in tensors if t.numel() == x.numel()} <= {id(x), id(x.grad)}
