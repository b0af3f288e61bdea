"""The layer agrees with PyTorch's layers on every backend of Keras."""

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(
    ("theirs", "shape"),
    [("BatchNorm1d", (16, 5)), ("BatchNorm1d", (8, 5, 7)), ("BatchNorm2d", (6, 5, 4, 4))],
)
def test_running_statistics_after_twenty_batches_are_pytorchs(
    features, assert_close, theirs, shape, momentum
):
    theirs = getattr(torch.nn, theirs)(5, momentum=momentum)
    ours = BatchNorm(
        axis=1,
        momentum=None if momentum is None else 1 - momentum,
        epsilon=theirs.eps,
        unbiased_variance=True,
    )
    for step in range(20):
        x = features(shape, 1, seed=step)
        y = ours(x, training=True)
        expected = theirs(torch.tensor(x)).detach().numpy()
        axes = tuple(a for a in range(x.ndim) if a != 1)
        assert_close(y, expected, axes=axes)
    assert_close(ours.moving_mean, theirs.running_mean.numpy(), axes=())
    assert_close(ours.moving_variance, theirs.running_var.numpy(), axes=())
    assert_close(ours(x), theirs.eval()(torch.tensor(x)).detach().numpy(), axes=axes)


def test_gradients_are_pytorchs(features, run, assert_close):
    shape = (6, 5, 4, 4)
    x, dy = features(shape, 1), features(shape, 1, seed=1)
    gamma, beta = np.random.default_rng(2).uniform(0.5, 2, (2, 5)).astype("float32")
    theirs = torch.nn.BatchNorm2d(5)
    theirs.load_state_dict(
        {**theirs.state_dict(), "weight": torch.tensor(gamma), "bias": torch.tensor(beta)}
    )
    inputs = torch.tensor(x, requires_grad=True)
    theirs(inputs).backward(torch.tensor(dy))
    ours = BatchNorm(
        axis=1,
        epsilon=theirs.eps,
        gamma_initializer=keras.initializers.Constant(gamma),
        beta_initializer=keras.initializers.Constant(beta),
    )
    result = run(ours, x, dy)
    assert_close(result.dx, inputs.grad.numpy(), axes=(0, 2, 3))
    assert_close(result.dgamma, theirs.weight.grad.numpy())
    assert_close(result.dbeta, theirs.bias.grad.numpy())
