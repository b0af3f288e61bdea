"""Batch norm in TensorFlow: which kernel runs.

Training on the CPU uses the native kernel (`kerasbn.kernels.native`) if the features are on
neighbouring axes of known size. All other cases use the plain formula
(`kerasbn.kernels.tensorflow_plain`):

- Functions that XLA compiles. XLA cannot run the native operations, but it fuses the formula.
- GPUs and TPUs.
- Masks, ghost batches, and statistics over several replicas.
- Batch statistics in inference, because exported models need portable operations.
- A native kernel that could not be built, or is switched off.

docs/performance.md has the times of both kernels, as multiples of those of Keras's layer.

XLA on the CPU makes a loop of each axis, and a loop over a short axis is slow. So the formula gets
a view of x with neighbouring axes merged: the images of a batch and their pixels become one axis.
On matrices, the formula takes about as long as Keras's, because both have the same number of sums
and XLA makes one pass for each sum. In a chain with nothing between its layers, XLA recomputes the
output of one layer everywhere the next layer uses it. There, the pivot is one more vector to read.

Inference uses `generic.normalize`, a product and a sum that converters fold into the convolution
before them. It does not use TensorFlow's own operation for images, FusedBatchNormV3. That operation
is not always faster, and in ONNX it leaves two transposes unless a convolution comes before it. The
table shows its time in a chain of four layers as a multiple of the formula's, on two cores with
AVX-512. Each pair is with oneDNN and without.

                        32x56x56x64  16x28x28x32  64x14x14x256   conv + batch norm + ReLU
                                                               1x112x112x32  16x28x28x64
    FusedBatchNormV3      0.79 3.35    0.70 1.14     1.35 1.39    0.85 0.92    0.93 0.96
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import tensorflow as tf

from kerasbn._tensorflow_private import compiled_by_xla
from kerasbn.kernels import generic, in_rank_of, native, tensorflow_plain
from kerasbn.kernels.native import tensorflow as tensorflow_native
from kerasbn.moments import Moments, Tensor

normalize = generic.normalize
reshape = tf.reshape

# Most changes between kept and reduced axes. TensorFlow merges neighbouring axes of one kind, and
# broadcasts at most five of the merged axes. Ghost batches of rank 5 with axis=(1, 3) need six.
_MOST_CHANGES = 4


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
    """See `kerasbn.kernels.batch_normalize`."""
    x = tf.convert_to_tensor(x)  # tf.custom_gradient takes no variables from outside
    all_replicas = synchronized and not tf.distribute.in_cross_replica_context()
    plain = portable or all_replicas or mask is not None
    if not plain and tensorflow_native.suits(x, axes):
        library = _native_library()
        if library is not None:
            return tensorflow_native.batch_normalize(
                library.operations, x, gamma, beta, axes=axes, epsilon=epsilon
            )
    gamma, beta = in_rank_of(x, gamma, beta)
    if mask is None and compiled_by_xla() and tensorflow_plain.runs_on_cpu():
        return _with_merged_axes(x, gamma, beta, axes, epsilon, all_replicas)
    rank = len(x.shape)
    changes = sum((a in axes) != (a + 1 in axes) for a in range(rank - 1))
    if changes > _MOST_CHANGES:
        # Transpose: kept axes first, reduced axes last. Transpose the results back.
        order = sorted(range(rank), key=lambda a: a in axes)
        x, gamma, beta, mask = (_transpose(t, order) for t in (x, gamma, beta, mask))
        last = tuple(range(rank - len(axes), rank))
        y, moments = batch_normalize(
            x,
            gamma,
            beta,
            axes=last,
            epsilon=epsilon,
            mask=mask,
            synchronized=synchronized,
            portable=portable,
        )
        order = [order.index(a) for a in range(rank)]
        return _transpose(y, order), Moments(*(_transpose(t, order) for t in moments))
    return tensorflow_plain.batch_normalize(
        x, gamma, beta, axes=axes, epsilon=epsilon, mask=mask, all_replicas=all_replicas
    )


def move_averages(
    averages: Sequence[Tensor], values: Sequence[Tensor], rate: Tensor | float
) -> Sequence[Tensor]:
    """See `kerasbn.kernels.move_averages`.

    The native kernel moves two averages with one rate in one operation. It does so for every
    layer that trains on the CPU outside XLA, even if the plain formula normalizes.
    """
    if len(averages) == 2 and (isinstance(rate, float) or not rate.shape.rank):
        library = _native_library()
        if library is not None:
            return library.operations.kerasbn_move(*averages, *values, 1.0 - rate, rate)
    return generic.move_averages(averages, values, rate)


def _with_merged_axes(x, gamma, beta, axes, epsilon, all_replicas):
    """The plain formula on a view of x in which each group of neighbouring axes is one axis."""
    groups = [list(g) for _, g in itertools.groupby(range(len(x.shape)), lambda a: a in axes)]
    reduced = tuple(i for i, group in enumerate(groups) if group[0] in axes)
    y, moments = tensorflow_plain.batch_normalize(
        *(_merge_axes(t, groups) for t in (x, gamma, beta)),
        axes=reduced,
        epsilon=epsilon,
        mask=None,
        all_replicas=all_replicas,
    )
    sizes = _sizes(x)
    shape = [1 if a in axes else size for a, size in enumerate(sizes)]
    mean, variance = (tf.reshape(t, shape) for t in (moments.mean, moments.variance))
    return tf.reshape(y, sizes), Moments(mean, variance, moments.count)


def _merge_axes(t, groups):
    if t is None:
        return None
    sizes = _sizes(t)
    return tf.reshape(t, [math.prod(sizes[a] for a in group) for group in groups])


def _sizes(t):
    """The size of each axis: a number if it is known, or else a tensor."""
    sizes = tf.shape(t)
    return [sizes[a] if size is None else size for a, size in enumerate(t.shape)]


def _native_library():
    """The native kernel, or `None` if operations that are created here cannot use it."""
    if compiled_by_xla() or not tensorflow_plain.runs_on_cpu():
        return None
    return native.library()


def _transpose(t, order):
    return t if t is None or isinstance(t, float) or not len(t.shape) else tf.transpose(t, order)
