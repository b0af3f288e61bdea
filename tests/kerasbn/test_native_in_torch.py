"""The native kernel as PyTorch operators: exact in every memory layout, and visible to PyTorch."""

import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if keras.backend.backend() != "torch":
    pytest.skip("PyTorch's kernel", allow_module_level=True)

import torch

from kerasbn import BatchNorm, kernels, reference
from kerasbn.kernels import native
from kerasbn.kernels.native import sources

needs_library = pytest.mark.skipif(
    not kernels.native_status().used, reason=f"no native kernel: {kernels.native_status().reason}"
)
EPSILON = 1e-3
CALLS = ["kerasbn::forward", "kerasbn::backward"]


def normal(shape, seed=0, dtype="float32", mean=0.0):
    values = mean + np.random.default_rng(seed).standard_normal(shape)
    return torch.tensor(values.astype(dtype))


def gradients(x, dy, gamma, beta, axis=-1):
    """y, dx, dgamma and dbeta of the kernel that is in use."""
    axes = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
    shape = [1 if a in axes else n for a, n in enumerate(x.shape)]
    inputs = [t.detach().requires_grad_() for t in (x, gamma.view(shape), beta.view(shape))]
    y, _ = kernels.batch_normalize(*inputs, axes=axes, epsilon=EPSILON)
    return [y, *torch.autograd.grad(y, inputs, dy)]


def operators_of(function):
    """The native operators that a function calls."""
    with torch.profiler.profile() as profile:
        function()
    called = [event.name for event in profile.events()]
    return [name for name in called if name in CALLS]


def check(assert_close, x, dy, gamma, beta, axis):
    y, dx, dgamma, dbeta = gradients(x, dy, gamma, beta, axis)
    expected, cache = reference.forward(x, gamma, beta, EPSILON, axis=axis)
    d_x, d_gamma, d_beta = reference.backward(dy.numpy(), cache)
    axes = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
    assert y.shape == dx.shape == x.shape
    # The kernel sees x - first value, so float32 rounds at the size of the largest |x_hat|.
    size = np.abs(cache.x_hat).max() * np.abs(cache.gamma)
    assert_close(y.detach(), expected, 1e-5, axes=axes, at_least=size)
    steepness = np.abs(cache.gamma) * np.abs(dy.numpy()).max() / np.sqrt(cache.sigma2 + EPSILON)
    assert_close(dx, d_x, 2e-5, axes=axes, at_least=steepness)
    many = 2e-5 * np.sqrt(cache.m.max()) * max(1.0, np.abs(cache.x_hat).max())
    np.testing.assert_allclose(dgamma.ravel(), d_gamma, atol=many, rtol=1e-5)
    np.testing.assert_allclose(dbeta.ravel(), d_beta, atol=many, rtol=1e-5)


@st.composite
def cases(draw):
    channels = draw(st.one_of(st.integers(1, 10), st.sampled_from([17, 64, 65, 130, 2000])))
    batch = draw(st.sampled_from([2, 3, 7, 33, 129, 500, 4096]))
    axis = draw(st.sampled_from([-1, 1]))
    sizes = draw(st.lists(st.integers(1, 9), max_size=2))
    while np.prod([batch, channels, *sizes]) > 300_000:
        batch = batch // 2
    shape = (batch, *sizes, channels) if axis == -1 else (batch, channels, *sizes)
    return shape, axis, draw(st.permutations(range(len(shape))))


@needs_library
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    case=cases(),
    dtype=st.sampled_from(["float32", "float64"]),
    mean=st.sampled_from([0.0, 100.0, 1e4]),
    seed=st.integers(0, 1000),
)
def test_kernel_is_the_reference_in_every_layout(assert_close, case, dtype, mean, seed):
    """The order of the axes in memory is drawn for x, and dy has the usual one."""
    shape, axis, order = case
    x = normal([shape[a] for a in order], seed, dtype, mean).permute(np.argsort(order).tolist())
    dy = normal(shape, seed + 1, dtype)
    gamma, beta = (normal(shape[axis], seed + n, dtype) for n in (2, 3))
    assert operators_of(lambda: gradients(x, dy, gamma, beta, axis)) == CALLS
    check(assert_close, x, dy, gamma, beta, axis)


@needs_library
def test_images_with_the_channels_first_in_memory_are_not_copied():
    x = normal((4, 3, 8, 8)).movedim(1, -1)
    y, dx, *_ = gradients(x, normal(x.shape, 1), torch.ones(3), torch.zeros(3))
    assert y.stride() == dx.stride() == x.stride()
    with torch.profiler.profile() as profile:
        kernels.batch_normalize(x, None, None, axes=(0, 1, 2), epsilon=EPSILON)
    assert not {event.name for event in profile.events()} & {"aten::copy_", "aten::clone"}


@needs_library
@pytest.mark.parametrize("view", ["slice", "steps", "expanded", "shifted"])
def test_views(assert_close, view):
    whole = normal((40, 24), 5, mean=3.0)
    x = {
        "slice": whole[:, 3:20],
        "steps": whole[::3, ::2],
        "expanded": whole[:, :1].expand(40, 6),
        "shifted": whole.ravel()[7:-13].view(-1, 20),
    }[view]
    dy, (gamma, beta) = normal(x.shape, 6), normal((2, x.shape[1]), 7)
    check(assert_close, x, dy, gamma, beta, -1)
    # The gradient of a sum is one value, expanded.
    _, dx, *_ = gradients(x, torch.ones(()).expand(x.shape), gamma, beta)
    assert dx.abs().max() < 1e-4 * gamma.abs().max()


@needs_library
@pytest.mark.parametrize("shape", [(0, 4), (0, 3, 3, 4), (5, 0, 3, 4)])
def test_empty_batches(shape):
    y, dx, dgamma, dbeta = gradients(normal(shape), normal(shape), torch.ones(4), torch.zeros(4))
    assert y.shape == dx.shape == shape
    assert not dgamma.any()
    assert not dbeta.any()


@needs_library
@pytest.mark.parametrize("shape", [(3000, 25), (40, 30, 30, 6)])
@pytest.mark.parametrize("axis", [-1, 1])
def test_threads_and_instruction_sets_give_the_same_bits(shape, axis):
    symbols = native.load().symbols
    x, dy = normal(shape, mean=2.0), normal(shape, 1)
    gamma, beta = normal((2, shape[axis]), 2)

    def bits():
        return [t.detach().numpy().tobytes() for t in gradients(x, dy, gamma, beta, axis)]

    expected, threads = bits(), torch.get_num_threads()
    try:
        for instruction_set in range(symbols.kerasbn_instruction_sets()):
            symbols.kerasbn_use_instruction_set(instruction_set)
            for number in (1, 2, 5):
                torch.set_num_threads(number)
                assert bits() == expected
                assert symbols.kerasbn_threads() == number
    finally:
        torch.set_num_threads(threads)
        symbols.kerasbn_use_instruction_set(symbols.kerasbn_instruction_sets() - 1)


def layer_step(layer, x):
    y = layer(x, training=True)
    (y**2).sum().backward()
    return y


@needs_library
class TestChoice:
    @pytest.mark.parametrize(
        ("shape", "axis"),
        [((8, 4), -1), ((8, 5, 4), 1), ((8, 3, 3, 64), -1), ((4, 3, 5, 7), (2, 3))],
    )
    def test_training(self, shape, axis):
        x = normal(shape).requires_grad_()
        assert operators_of(lambda: layer_step(BatchNorm(axis=axis), x)) == CALLS

    @pytest.mark.parametrize(
        "call",
        [
            lambda x: BatchNorm()(x),
            lambda x: BatchNorm(axis=(1, 3))(x, training=True),  # not neighbours
            lambda x: BatchNorm()(x, training=True, mask=torch.ones(x.shape[:-1]) > 0),
            lambda x: torch.func.vmap(lambda t: t * BatchNorm()(x, training=True).sum())(
                x[:, 0, 0]
            ),
            lambda x: torch.func.jacrev(lambda t: BatchNorm()(t, training=True))(x),
            lambda x: BatchNorm(statistics="batch")(x),  # exports contain such layers
        ],
    )
    def test_other_cases(self, call):
        assert operators_of(lambda: call(normal((3, 2, 2, 2)))) == []

    def test_switch(self):
        kernels.use_native(False)
        try:
            assert operators_of(lambda: BatchNorm()(normal((8, 4)), training=True)) == []
            assert "switched off by kerasbn.kernels.use_native" in kernels.native_status().reason
        finally:
            kernels.use_native(True)

    def test_subclasses_of_tensors(self):
        class Recorded(torch.Tensor):
            pass

        x = normal((8, 4)).as_subclass(Recorded)
        y, _ = kernels.batch_normalize(x, None, None, axes=(0,), epsilon=EPSILON)
        np.testing.assert_allclose(y.numpy(), reference.forward(x.numpy())[0], atol=1e-5)

    @pytest.mark.parametrize("shape", [(8, 4), (8, 20), (1, 4), (0, 4)])
    def test_a_device_that_is_not_kerass_default(self, shape):
        x = torch.randn(shape, device="meta")
        assert (
            operators_of(lambda: kernels.batch_normalize(x, None, None, axes=(0,), epsilon=1e-3))
            == []
        )
        y, moments = kernels.batch_normalize(x, None, None, axes=(0,), epsilon=EPSILON)
        assert y.shape == shape
        assert {y.device.type, moments.mean.device.type} == {"meta"}

    def test_fake_tensors(self):
        from torch._subclasses import FakeTensorMode

        layer = BatchNorm()
        layer.build((None, 4))
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            x = mode.from_tensor(normal((8, 4)))
            assert layer(x, training=True).shape == (8, 4)


@needs_library
def test_recorded_programs_contain_the_kernel(assert_close):
    from torch.fx.experimental.proxy_tensor import make_fx

    layer = BatchNorm()
    layer.build((None, 4))

    def normalize(x):
        return kernels.batch_normalize(x, None, None, axes=(0,), epsilon=EPSILON)[0]

    program = make_fx(normalize)(normal((8, 4)))
    x = normal((8, 4), 1, mean=3.0)
    assert "kerasbn.forward" in program.code
    assert_close(program(x), reference.forward(x)[0], axes=0)


@needs_library
class TestOperators:
    def test_vectors_of_another_dtype(self):
        x = normal((8, 4), dtype="float64")
        gamma, beta = torch.full((1, 4), 2.0), torch.full((1, 4), 3.0)
        y = torch.ops.kerasbn.forward(x, gamma, beta, [0], EPSILON)[0]
        expected, _ = reference.forward(x.numpy(), gamma.ravel(), beta.ravel(), EPSILON)
        np.testing.assert_allclose(y, expected, atol=1e-12)

    def test_vectors_of_a_wrong_shape(self):
        x, right, wrong = normal((8, 4)), torch.ones(1, 4), torch.ones(1, 5)
        with pytest.raises(ValueError, match=r"beta must .* \(1, 4\). Received: \(1, 5\)"):
            torch.ops.kerasbn.forward(x, right, wrong, [0], EPSILON)
        with pytest.raises(ValueError, match="variance must"):
            torch.ops.kerasbn.backward(x, x, right, right, right, wrong, [0], EPSILON)

    def test_an_upstream_gradient_of_a_wrong_shape(self):
        x, vector = normal((8, 4)), torch.ones(1, 4)
        with pytest.raises(ValueError, match="dy must have the shape of x"):
            torch.ops.kerasbn.backward(normal((7, 4)), x, *[vector] * 4, [0], EPSILON)


@needs_library
def test_a_later_change_in_place_is_an_error():
    x = normal((8, 4)).requires_grad_()
    copy = x * 1
    y = BatchNorm()(copy, training=True)
    copy.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@needs_library
class TestWithoutLibrary:
    @pytest.mark.parametrize("channels", [4, 20])
    @pytest.mark.parametrize("how", ["missing", "for another processor"])
    def test_one_warning_and_the_other_kernels(self, load_from, assert_close, how, channels):
        content = sources.LIBRARY.read_bytes()
        # The machine that an ELF file is for; 0xF3 is RISC-V.
        load_from(None if how == "missing" else content[:18] + b"\xf3" + content[19:])
        layer, x = BatchNorm(), normal((8, channels), mean=2.0)
        with pytest.warns(UserWarning, match="without its native kernel"):
            y = layer(x, training=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            layer(x, training=True)
        assert_close(y.detach(), reference.forward(x)[0], axes=0)
        assert not kernels.native_status().used
        assert str(sources.LIBRARY) in kernels.native_status().reason

    def test_environment_variable(self):
        script = "from kerasbn import kernels; print(kernels.native_status().reason)"
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "KERASBN_NATIVE": "0"},
            capture_output=True,
            text=True,
        )
        assert "switched off by the variable KERASBN_NATIVE" in done.stdout, done.stderr
