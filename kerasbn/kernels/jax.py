"""Batch norm in JAX: which kernel runs.

Training on the CPU uses the native kernel (`kerasbn.kernels.native`) if the features are on
neighbouring axes. All other cases use the plain formula (`kerasbn.kernels.jax_plain`):

- GPUs and TPUs. JAX lowers a function for each platform, so one trace serves all of them.
- Masks and ghost batches.
- Batch statistics in inference, because exported models need portable operations.
- A process with several CPU devices, because XLA cannot divide a native call among them.
- A native kernel that could not be built, or is switched off.

The table shows the time of a compiled training step as a multiple of that of Keras's layer. The
layer stood in a chain of eight, on two cores that were busy with other work.

                  500x500  500x25  256x28x28x6  256x10x10x16  32x56x56x64  64x14x14x256
    native           0.27    0.26         0.40          0.38         0.83          0.59
    plain            1.45    1.05         1.29          1.15         1.08          0.97

Inference uses `generic.normalize`, as on the other backends.
"""

from __future__ import annotations

import jax.numpy as jnp

from kerasbn.kernels import from_vector, generic, in_rank_of, jax_plain, native
from kerasbn.kernels.native import jax as jax_native
from kerasbn.moments import Moments, Tensor

move_averages = generic.move_averages
reshape = jnp.reshape


def batch_normalize(
    x: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    *,
    axes: tuple[int, ...],
    epsilon: float,
    mask: Tensor | None = None,
    portable: bool = False,
) -> tuple[Tensor, Moments]:
    """See `kerasbn.kernels.batch_normalize`."""
    gamma, beta = in_rank_of(x, gamma, beta)
    shape = tuple(1 if a in axes else size for a, size in enumerate(x.shape))
    gamma = jnp.ones(shape, x.dtype) if gamma is None else gamma
    beta = jnp.zeros(shape, x.dtype) if beta is None else beta
    plain = portable or mask is not None
    if not plain and jax_native.suits(x, axes) and native.library() is not None:
        return jax_native.batch_normalize(x, gamma, beta, axes=axes, epsilon=epsilon)
    return jax_plain.batch_normalize(x, gamma, beta, axes=axes, epsilon=epsilon, mask=mask)


def normalize(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    *,
    epsilon: float,
) -> Tensor:
    """See `kerasbn.kernels.normalize`."""
    # ONNX exporters fold a reshape of a vector, but turn its broadcast into an operation.
    given = (mean, variance, gamma, beta)
    shaped = (from_vector(t, x.ndim) if t is not None and t.ndim == 1 else t for t in given)
    return generic.normalize(x, *shaped, epsilon=epsilon)
