"""Normalization by batch statistics and by given statistics: the fastest way of each Keras backend.

Every kernel module has the two functions below, and all of them compute the same thing; `generic`
is written in `keras.ops` for the backends that have none of their own, and is the plainest to read.

Exactness. Batch norm does not change when a constant is added to a feature, so each kernel first
subtracts a value p of the feature's own order: d = x - p. All further arithmetic has the magnitude
of the feature's spread and not of its offset. The mean is p + mean(d), kept as two numbers, since a
float32 sum of them would be off by 5e-4 at 1e4; and the variance is the mean of (d - mean(d))^2,
never a difference of large squares. p is the first value of the feature, under a mask the largest
that counts: |p - mean| / std is the |x_hat| of that value, so the rounding of d is never worse than
1e-7 of the largest output. And p has to be one number: a compiler may find the first value anew in
each place that uses it, but a mean in its place XLA computed twice, with different rounding, for
delta and for x_hat (dx wrong by 6e-4 at 1e4, std 0.1). Where the mean of the first few values is p,
it is therefore stored.

Backward. With s1 = sum dy, s2 = sum dy x_hat over all positions, w the mask and m = sum w:

    dbeta = s1    dgamma = s2    dx = gamma / sqrt(variance + epsilon) (dy - w/m (s1 + x_hat s2))

so the backward pass needs x, the mean and 1/std only. See `kerasbn.reference` for the steps.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

import keras

from kerasbn.kernels import native
from kerasbn.moments import Moments, Tensor


def batch_normalize(
    x: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    *,
    axes: tuple[int, ...],
    epsilon: float,
    mask: Tensor | None = None,
    synchronized: bool = False,
) -> tuple[Tensor, Moments]:
    """Normalizes x with its own statistics over `axes`.

    Args:
        x: float32 or float64 tensor.
        gamma: Scale, of the shape of the statistics (the rank of x, size 1 on `axes`); `None`: 1.
        beta: Offset, likewise; `None`: 0.
        axes: The axes that are reduced, ascending, not negative.
        epsilon: Added to the variance.
        mask: `None`, or booleans of the rank of x that broadcast to it: where false, a value counts
            in no statistic (it is normalized all the same).
        synchronized: Statistics over all replicas of a `tf.distribute` strategy (TensorFlow only).

    Returns:
        y, of the shape and dtype of x, and the `Moments`, through which no gradient flows.
    """
    return _of_backend().batch_normalize(
        x, gamma, beta, axes=axes, epsilon=epsilon, mask=mask, synchronized=synchronized
    )


def normalize(x: Tensor, mean: Tensor, variance: Tensor, gamma, beta, *, epsilon: float) -> Tensor:
    """Normalizes x with given statistics (inference); all of them broadcast to x."""
    return _of_backend().normalize(x, mean, variance, gamma, beta, epsilon=epsilon)


def reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The backend's own: that of `keras.ops` takes 80 us a call on PyTorch."""
    return _of_backend().reshape(x, shape)


def scale_and_shift(x_hat: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
    """gamma * x_hat + beta, either of them `None` for 1 and 0."""
    y = x_hat if gamma is None else x_hat * gamma
    return y if beta is None else y + beta


def native_status() -> native.Status:
    """Whether TensorFlow uses the native kernel for training on the CPU, and why not if it doesn't.

    The kernel is loaded by this call or by the first one that needs it.
    """
    if keras.backend.backend() != "tensorflow":
        return native.Status(False, "only the TensorFlow backend has one")
    return native.status()


def use_native(on: bool) -> None:
    """Switches the native kernel on or off, for later calls and for functions traced later.

    The environment variable KERASBN_NATIVE=0 switches it off from the start. Switch it off before
    you trace a function that another one with `jit_compile=True` calls, and before you save a
    training function for programs without kerasbn.
    """
    native.use(on)


@functools.cache
def _of_backend() -> ModuleType:
    backend = keras.backend.backend()
    name = backend if backend in ("tensorflow", "jax", "torch") else "generic"
    return importlib.import_module(f"kerasbn.kernels.{name}")
