"""`torch.compile` of the layer: right values, one graph for all batch sizes."""

import shutil

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm, reference

if keras.backend.backend() != "torch":
    pytest.skip("torch.compile is PyTorch's", allow_module_level=True)

import torch
import torch._dynamo.testing

# inductor takes seconds, and needs a C++ compiler.
BACKENDS = ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.full)]
SIZES = (8, 8, 5, 11, 7, 30, 13, 8, 9, 32)


@pytest.fixture(params=BACKENDS)
def counting(request):
    """A backend of `torch.compile` that counts its graphs."""
    if request.param == "inductor" and not shutil.which("g++"):
        pytest.skip("inductor needs a C++ compiler")
    torch._dynamo.reset()
    yield torch._dynamo.testing.CompileCounterWithBackend(request.param)
    torch._dynamo.reset()


def data(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


@pytest.mark.parametrize(
    ("channels", "masked", "options"),
    [
        (4, False, {}),
        (20, True, {"unbiased_variance": True}),
        (20, False, {"momentum": None}),
    ],
    ids=str,
)
def test_training_has_one_graph_for_all_batch_sizes(
    assert_close, counting, channels, masked, options
):
    compiled, eager = BatchNorm(**options), BatchNorm(**options)
    compiled.build((None, channels))
    eager.build((None, channels))
    call = torch.compile(compiled.call, backend=counting, fullgraph=True)
    for seed, n in enumerate(SIZES):
        x = torch.tensor(100 + data((n, channels), seed)).requires_grad_()
        dy = data((n, channels), 100 + seed)
        mask = np.random.default_rng(seed).random(n) < 0.7 if masked else None
        options = {} if mask is None else {"mask": torch.tensor(mask)}
        y = call(x, training=True, **options)
        y.backward(torch.tensor(dy))
        eager(x.detach(), training=True, **options)
        expected, cache = reference.forward(x.detach(), mask=mask[:, None] if masked else None)
        dx, _, _ = reference.backward(dy, cache)
        assert_close(y, expected, axes=0)
        assert_close(x.grad, dx, axes=0)
    for weight, expected in zip(compiled.weights, eager.weights, strict=True):
        assert_close(weight, expected)
    assert counting.frame_count <= 2  # one for the first size, one for all others


def test_inference_has_one_graph_for_all_batch_sizes(assert_close, counting):
    layer = BatchNorm()
    layer(data((50, 4), 0), training=True)
    call = torch.compile(layer.call, backend=counting, fullgraph=True)
    for n in SIZES:
        x = torch.tensor(data((n, 4), n))
        assert_close(call(x, training=False), layer(x, training=False).detach())
    assert counting.frame_count <= 2


@pytest.mark.parametrize("channels", [4, 20])
def test_model_trains_like_the_eager_one(assert_close, channels):
    def trained(compiled):
        torch._dynamo.reset()
        keras.utils.set_random_seed(2)
        parts = [keras.layers.Dense(channels, "tanh"), BatchNorm(momentum=0.9)]
        model = keras.Sequential([keras.Input((3,)), *parts])
        call = torch.compile(model, backend="eager") if compiled else model
        gradients = []
        for seed, n in enumerate(SIZES[:5]):
            x = torch.tensor(data((n, 3), seed)).requires_grad_()
            (call(x, training=True) ** 3).sum().backward()
            gradients.append(x.grad)
        return gradients, model.weights

    for ours, expected in zip(trained(True), trained(False), strict=True):
        for array, other in zip(ours, expected, strict=True):
            assert_close(array, other, 1e-4, at_least=1.0)
