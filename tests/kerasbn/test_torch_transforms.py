"""Transforms of PyTorch: `torch.func`, `torch.autograd.functional` and forward mode.

The layer uses one kernel below 16 channels, PyTorch's own from there, and a third one with a mask.
Transforms work with all of them, at any depth. As with Keras's layer, `torch.func` needs
`stateless_call`, because it forbids that a function changes tensors from outside.
"""

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm, reference

if keras.backend.backend() != "torch":
    pytest.skip("the transforms are PyTorch's", allow_module_level=True)

import torch
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

N = 4  # examples
KINDS = {
    "3 channels": (3, {}, False),
    "18 channels": (18, {}, False),
    "3 channels, masked": (3, {}, True),
    "18 channels, masked": (18, {}, True),
    "no gamma": (3, {"scale": False}, False),
    "no beta, masked": (3, {"center": False}, True),
    "16 channels, no gamma and beta": (16, {"scale": False, "center": False}, False),
    "ghost": (3, {"virtual_batch_size": 2}, False),
}


class Case:
    """A layer as a function of x, and its float64 derivatives.

    Attributes:
        x: Input.
        v: Direction, or gradient of the output, in the shape of x.
        f: The layer in training mode as a pure function of x.
        layer: The layer.
    """

    def __init__(self, channels, options, masked):
        rng = np.random.default_rng(0)
        self.x, self.v = torch.tensor(rng.standard_normal((2, N, channels)))
        self.mask = torch.tensor([True, False, True, True]) if masked else None
        self.groups = N // options.get("virtual_batch_size", N)
        self.layer = BatchNorm(dtype="float64", **options)
        self.layer.build(self.x.shape)
        for weight in self.layer.trainable_weights:
            weight.assign(rng.uniform(1, 2, channels))
        self._weights = [
            [w.value.detach() for w in weights]
            for weights in (self.layer.trainable_weights, self.layer.non_trainable_weights)
        ]

    def f(self, x):
        return self.layer.stateless_call(*self._weights, x, training=True, mask=self.mask)[0]

    def loss(self, x):
        return (self.f(x) ** 3).sum()

    def y(self, x):
        return np.concatenate([self._forward(part)[0] for part in np.split(x, self.groups)])

    def gradient(self, x):
        """Gradient of `loss`."""
        forwards = [self._forward(part) for part in np.split(x, self.groups)]
        return np.concatenate([reference.backward(3 * y**2, cache)[0] for y, cache in forwards])

    def _forward(self, x):
        gamma, beta = (
            None if w is None else w.numpy() for w in (self.layer.gamma, self.layer.beta)
        )
        mask = None if self.mask is None else self.mask.numpy()[:, None]
        return reference.forward(x, gamma, beta, mask=mask)


def along(function, x, v, step=1e-6):
    """The numerical derivative of a function of x in the direction v."""
    x, v = np.asarray(x), np.asarray(v)
    return (function(x + step * v) - function(x - step * v)) / (2 * step)


def jacobian_of(function, x):
    """The numerical Jacobian: (shape of the value, shape of x)."""
    columns = [along(function, x, v.reshape(x.shape)) for v in np.eye(x.numel())]
    return np.stack(columns, -1).reshape(*columns[0].shape, *x.shape)


@pytest.fixture(params=KINDS)
def case(request):
    return Case(*KINDS[request.param])


def test_vector_products(case, assert_close):
    derivative = along(case.y, case.x, case.v)
    assert_close(jvp(case.f, (case.x,), (case.v,))[1], derivative, 1e-7)
    assert_close(torch.autograd.functional.jvp(case.f, case.x, case.v)[1], derivative, 1e-7)
    with forward_ad.dual_level():
        y = case.f(forward_ad.make_dual(case.x, case.v))
        assert_close(forward_ad.unpack_dual(y).tangent, derivative, 1e-7)
    assert_close(grad(case.loss)(case.x), case.gradient(case.x.numpy()), 1e-10)
    y, pull_back = vjp(case.f, case.x)
    assert_close(pull_back(3 * y**2)[0], case.gradient(case.x.numpy()), 1e-10)


def test_jacobians(case, assert_close):
    expected = jacobian_of(case.y, case.x)
    functional = torch.autograd.functional.jacobian
    for jacobian in (
        jacrev(case.f)(case.x),
        jacfwd(case.f)(case.x),
        functional(case.f, case.x),
        functional(case.f, case.x, vectorize=True),
        functional(case.f, case.x, vectorize=True, strategy="forward-mode"),
    ):
        assert_close(jacobian, expected, 1e-7)


def test_hessians(case, assert_close):
    expected = jacobian_of(case.gradient, case.x)
    functional = torch.autograd.functional.hessian
    for second_derivatives in (
        hessian(case.loss)(case.x),
        jacrev(jacrev(case.loss))(case.x),
        jacrev(jacfwd(case.loss))(case.x),
        jacfwd(jacfwd(case.loss))(case.x),
        functional(case.loss, case.x),
        functional(case.loss, case.x, vectorize=True),
        functional(case.loss, case.x, vectorize=True, outer_jacobian_strategy="forward-mode"),
    ):
        assert_close(second_derivatives, expected, 1e-6)


# Not of 18 unmasked channels: PyTorch's third derivative of its native kernel is wrong.
@pytest.mark.parametrize("name", ["3 channels", "3 channels, masked", "18 channels, masked"])
def test_third_derivative_by_autograd(assert_close, name):
    case = Case(*KINDS[name])
    x = case.x.clone().requires_grad_()
    (first,) = torch.autograd.grad(case.loss(x), x, create_graph=True)
    (second,) = torch.autograd.grad((first * case.v).sum(), x, create_graph=True)
    (third,) = torch.autograd.grad((second * case.v).sum(), x)
    assert_close(third, third_derivative(case), 1e-5)


@pytest.mark.parametrize("name", ["3 channels", "18 channels", "18 channels, masked"])
def test_third_derivative_by_torch_func(assert_close, name):
    case = Case(*KINDS[name])

    def along_v(function):
        return lambda x: (grad(function)(x) * case.v).sum()

    assert_close(grad(along_v(along_v(case.loss)))(case.x), third_derivative(case), 1e-5)


def third_derivative(case):
    """The numerical third derivative of `loss`, twice in the direction v."""
    return along(lambda x: along(case.gradient, x, case.v, 1e-4), case.x, case.v, 1e-4)


def test_vmap(case, assert_close):
    batches = torch.stack([case.x, 2 * case.x + 1, case.v])
    expected = np.stack([case.y(x) for x in batches.numpy()])
    assert_close(vmap(case.f)(batches), expected, 1e-10)
    assert_close(vmap(case.f, 1, 1)(batches.transpose(0, 1)), expected.swapaxes(0, 1), 1e-10)
    gradients = np.stack([case.gradient(x) for x in batches.numpy()])
    assert_close(vmap(grad(case.loss))(batches), gradients, 1e-10)
    assert_close(grad(lambda b: vmap(case.loss)(b).sum())(batches), gradients, 1e-10)
    derivative = np.stack([along(case.y, x, case.v) for x in batches])
    assert_close(vmap(lambda x: jvp(case.f, (x,), (case.v,))[1])(batches), derivative, 1e-7)


@pytest.mark.parametrize("channels", [3, 18])
def test_vmap_over_masks_and_parameters(assert_close, channels):
    case = Case(channels, {}, False)
    masks = torch.tensor([[1, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    gammas = torch.stack([torch.full((channels,), g, dtype=torch.float64) for g in (1, 2, 3)])
    beta, state = (
        torch.zeros(channels, dtype=torch.float64),
        [w.value.detach() for w in case.layer.non_trainable_weights],
    )

    def step(gamma, mask):
        y, moved = case.layer.stateless_call([gamma, beta], state, case.x, training=True, mask=mask)
        return y, moved[0]

    y, means = vmap(step)(gammas, masks)
    for i in range(3):
        expected, cache = reference.forward(
            case.x, gammas[i].numpy(), mask=masks[i].numpy()[:, None]
        )
        assert_close(y[i], expected, 1e-10)
        assert_close(means[i], 0.01 * cache.mu[0], 1e-10)


@pytest.mark.parametrize("channels", [3, 18])
def test_gradients_of_parameters(assert_close, channels):
    case = Case(channels, {}, False)
    values = [w.value.detach() for w in case.layer.trainable_weights]
    state = [w.value.detach() for w in case.layer.non_trainable_weights]

    def loss(values):
        y, moved = case.layer.stateless_call(values, state, case.x, training=True)
        return (y * case.v).sum(), moved

    (dgamma, dbeta), moved = grad(loss, has_aux=True)(values)
    _, cache = reference.forward(case.x, values[0].numpy())
    _, expected_dgamma, expected_dbeta = reference.backward(case.v, cache)
    assert_close(dgamma, expected_dgamma, 1e-10)
    assert_close(dbeta, expected_dbeta, 1e-10)
    assert_close(moved[0], 0.01 * cache.mu[0], 1e-10)


@pytest.mark.parametrize("norm", [BatchNorm, keras.layers.BatchNormalization])
@pytest.mark.parametrize("channels", [3, 18])
def test_torch_func_refuses_a_stateful_call_as_with_keras(norm, channels):
    layer = norm()
    layer.build((N, channels))
    with pytest.raises(RuntimeError, match="mutate a captured Tensor"):
        grad(lambda x: layer(x, training=True).sum())(torch.ones(N, channels))
