"""Batch normalization kernels: the fastest implementation for each Keras backend.

Every kernel module defines `batch_normalize`, `normalize`, `move_averages` and `reshape`. All
kernels compute the same values, up to rounding. `generic` uses `keras.ops` alone. It serves the
backends that have no kernel module, and it is the easiest one to read.

Exactness. Adding a constant to a feature does not change its normalized values. Each kernel
therefore starts by subtracting a pivot p, a number close to the feature's values: d = x - p. From
there on, rounding errors scale with the feature's spread and not with its offset.

- The mean is kept as two numbers, p and mean(d). Their float32 sum would be off by 5e-4 at 1e4.
- The variance is the mean of (d - mean(d))^2, never a difference of large squares.
- p is the first value of the feature, or the largest unmasked value if there is a mask. Since
  |p - mean| / std is the |x_hat| of that value, rounding d costs at most 1e-7 of the largest
  output.
- p must be the same number everywhere it is used. The first value always is, even if a compiler
  reads it twice. A mean need not be: XLA computed it for delta, then again for x_hat, and
  rounded the two differently. At mean 1e4 and std 0.1, dx was wrong by 6e-4. XLA on the CPU stores
  sums and does not compute them twice. So there p is the mean of the first few values, because
  that is faster.

Inference. y = x a + b with a = gamma / sqrt(variance + epsilon) and b = beta - mean a, on every
backend. Model converters fold this form into the layer before it. At large means, x a and b almost
cancel, but the rounding of the inputs alone costs about as many digits: y is the exact result for
an x and a mean that are each off by about one rounding. The table shows the largest error relative
to the largest output. Each entry is the median over 50 features of 2000 values, float32 against
float64.

    mean                                             0     10     1000   1e4
    deviation                                        1     0.5    0.5    0.5
    x, mean and variance rounded to float32     4.4e-8  3.5e-7  2.4e-5  3.6e-4
    the same, and (x - mean) a + beta in float32 1.0e-7  3.7e-7  2.4e-5  3.6e-4
    the same, and x a + b in float32            9.3e-8  6.6e-7  5.2e-5  6.1e-4

Backward pass. With s1 = sum dy and s2 = sum dy x_hat over all positions, mask w and m = sum w:

    dbeta = s1    dgamma = s2    dx = gamma / sqrt(variance + epsilon) (dy - w/m (s1 + x_hat s2))

So the backward pass needs only x, the mean and 1/std. `kerasbn.reference` derives the formula step
by step.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import ModuleType

import keras

from kerasbn._arguments import check_synchronized
from kerasbn.kernels import native
from kerasbn.moments import Moments, Tensor

_WITH_NATIVE = ("tensorflow", "jax", "torch")  # backends with a native kernel


def batch_normalize(
    x: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    *,
    axes: tuple[int, ...],
    epsilon: float,
    mask: Tensor | None = None,
    synchronized: bool = False,
    portable: bool = False,
) -> tuple[Tensor, Moments]:
    """Normalizes x with its own statistics over `axes`.

    Args:
        x: float32 or float64 tensor.
        gamma: Scale, in the shape of the statistics (the rank of x, size 1 on `axes`), or `None`
            for 1. If only the last axis is kept, it may be a vector.
        beta: Offset in the same shape, or `None` for 0.
        axes: Axes to reduce, ascending and not negative.
        epsilon: Number added to the variance.
        mask: Booleans of the rank of x that broadcast to its shape, or `None`. Values at false
            positions are normalized too, but no statistic includes them.
        synchronized: Whether to compute the statistics over all replicas of a `tf.distribute`
            strategy, or over all processes of `torch.distributed`.
        portable: Whether to use only operations that exported models may contain. This excludes
            the native kernel.

    Returns:
        y, in the shape and dtype of x, and the `Moments`, in the shape of the statistics or of
        gamma. No gradient flows through the moments.
    """
    check_synchronized(synchronized)
    # JAX's kernel and the generic one do not take `synchronized`.
    options = {"synchronized": True} if synchronized else {}
    if portable and keras.backend.backend() in _WITH_NATIVE:
        options["portable"] = True
    return _of_backend().batch_normalize(
        x, gamma, beta, axes=axes, epsilon=epsilon, mask=mask, **options
    )


def normalize(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    *,
    epsilon: float,
) -> Tensor:
    """Normalizes x with given statistics (inference). All arguments broadcast to x."""
    return _of_backend().normalize(x, mean, variance, gamma, beta, epsilon=epsilon)


def move_averages(
    averages: Sequence[Tensor], values: Sequence[Tensor], rate: Tensor | float
) -> Sequence[Tensor]:
    """Moves each average towards its value.

    Args:
        averages: Averages, each of the shape of its value.
        values: The newest values.
        rate: Weight of the newest value, from 0 to 1. It broadcasts to the averages.

    Returns:
        The new averages. At a rate of 0, they are the old ones.
    """
    return _of_backend().move_averages(averages, values, rate)


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The backend's own reshape. On PyTorch, that of `keras.ops` takes 80 us per call."""
    return _of_backend().reshape(x, shape)


def to_vector(t: Tensor | None) -> Tensor | None:
    """Reshapes per-feature values from the rank of x to (c,). `None` stays `None`."""
    return None if t is None else reshape(t, (-1,))


def from_vector(t: Tensor, rank: int) -> Tensor:
    """Reshapes (c,) to the rank of x: (1, ..., 1, c)."""
    return reshape(t, (1,) * (rank - 1) + (-1,))


def in_rank_of(x: Tensor, *weights: Tensor | None) -> tuple[Tensor | None, ...]:
    """The weights, with vectors reshaped to the rank of x. `None` stays `None`."""
    rank = len(x.shape)
    return tuple(
        from_vector(t, rank) if t is not None and len(t.shape) < rank else t for t in weights
    )


def scale_and_shift(x_hat: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
    """gamma * x_hat + beta, where `None` stands for a gamma of 1 or a beta of 0."""
    y = x_hat if gamma is None else x_hat * gamma
    return y if beta is None else y + beta


def native_status() -> native.Status:
    """Says whether training on the CPU uses the native kernel, and if not, why not.

    This call loads the kernel if no layer has used it yet.
    """
    if keras.backend.backend() not in _WITH_NATIVE:
        return native.Status(False, "only the backends TensorFlow, JAX and PyTorch have one")
    return native.status()


def use_native(on: bool) -> None:
    """Switches the native kernel on or off, for later calls and for functions traced later.

    The environment variable KERASBN_NATIVE=0 switches it off from the start. Four uses need it
    off while a training function is traced:

    - On TensorFlow, another function with `jit_compile=True` calls the training function.
    - On TensorFlow, a program without kerasbn loads the training function from a SavedModel.
    - On JAX, `jax.export` serializes the training function for the CPU.
    - On PyTorch, a program without kerasbn loads a training function from `torch.jit.trace`.

    Args:
        on: Whether to use the native kernel.
    """
    native.use(on)


@functools.cache
def _of_backend() -> ModuleType:
    # Written as `import` statements, because torch.compile cannot trace importlib.
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from kerasbn.kernels import tensorflow

        return tensorflow
    if backend == "jax":
        from kerasbn.kernels import jax

        return jax
    if backend == "torch":
        from kerasbn.kernels import torch

        return torch
    from kerasbn.kernels import generic

    return generic
