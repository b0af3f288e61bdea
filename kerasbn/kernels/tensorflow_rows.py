"""Batch norm over all axes but the last, compiled by XLA in TensorFlow: few passes over x.

TensorFlow's own operations make twelve passes, and most of them allocate a tensor of x's size. The
compiled forward and backward functions make three passes each. The table shows where the speed
comes from, in microseconds per layer: medians of a chain of eight layers, forward and backward, in
graph mode on two cores (AVX2).

                              500x500  500x100  500x25  256x28x28x6  32x56x56x64  64x14x14x256
    Keras                        1269      304     163        11425        42181         12798
    compiled                      816      236     141         4969        16866          7465
    and sums in folds             676      207     166         2645        10389          5170
    and few channels widened      632      238     138         1762        13371          4129

- Folds. On the CPU, XLA writes all terms of a sum over rows into a tensor of x's size and then sums
  that tensor. Adding eight equal parts of the rows first, in the same pass, shrinks it to an
  eighth. XLA sums a part of fewer than 32 rows in a slow loop, so short inputs are cut into fewer
  parts.
- Widening. A row of six channels is too short for the processor's vectors, but a line of four such
  rows is not. Only the sums over lines have to be folded once more, which costs nothing.
- TensorFlow's fused kernel (FusedBatchNormV3) is fast only with oneDNN, and by default TensorFlow
  uses oneDNN only on processors with AVX-512. On the measured processor, it took 29,000 us in a
  case where this module takes 13,371.

Each new shape is compiled once, in a third of a second. So only inputs of some size are compiled.

If XLA compiles the whole step (`jit_compile=True`), these functions become part of it, and XLA
recomputes the result of one layer in every place where the next layer uses it. `_LinesWithin`
prevents that. The table shows the same chain, compiled as one function, in microseconds per layer:

               500x500  2048x512  256x28x28x6  64x24x24x20  16x20x20x48  32x56x56x64  64x14x14x256
    Keras          881      2351         3324         2001          971        30427         19842
    _Lines         802      5542        20662         3313         1134        29034         15067
    _LinesWithin     -      3258         4495         2399          834        16312          7124

It is slower than Keras's layer for few channels and many rows. Inference inside such a step uses
plain operations, because XLA fuses them into one loop, and the code in this module into several.
"""

from __future__ import annotations

import math

import tensorflow as tf
from tensorflow import Tensor

_FOLDS = range(8, 17)  # numbers of folds: the first without a remainder, else 8 or fewer
_FEWEST = 32  # smallest number of lines in a fold
_WIDTH = 16  # smallest number of values in a line
_BATCH = 128  # assumed number of examples if it is unknown
_LARGE = 2**19  # smallest number of values for `_LinesWithin`, for inputs of rank 2
_FIRST = 64  # number of lines whose mean is the pivot in `_LinesWithin`
SMALLEST = 8192  # smallest number of values that is worth compiling
# Numbers of values for which inference is compiled. TensorFlow's operations overwrite x in three
# passes. Within the cache, that is as fast as a compiled call. Beyond four million values, it is
# faster than allocating a new tensor.
INFERENCE = range(2**17 + 1, 2**22 + 1)


def suits(x: Tensor, axes: tuple[int, ...]) -> bool:
    """Whether this kernel can handle x, reduced over `axes`, and is worth compiling for it.

    The last axis must be the only kept one. All sizes but the batch size must be known, and x must
    be large. At rank 2, the batch size must be known too. Every new size triggers a compilation,
    and rows may be the words of a text or the nodes of a graph, whose number changes with every
    batch. Images come in batches of only two sizes: the usual one and a smaller last one.
    """
    return axes == tuple(range(len(x.shape) - 1)) and _values(x) >= SMALLEST


def suits_inference(x: Tensor) -> bool:
    """Whether `normalize` is worth compiling for x: known sizes, and not too small or too large."""
    return _values(x) in INFERENCE


def _values(x):
    """The number of values in x, with a guess for the batch size. 0 if it may change every step."""
    if None in x.shape[1:] or (x.shape[0] is None and len(x.shape) == 2):
        return 0
    return math.prod(x.shape[1:]) * (x.shape[0] or _BATCH)


@tf.function(jit_compile=True, autograph=False)
def forward(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, epsilon: float, within: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Normalizes x with its own statistics.

    Args:
        x: Tensor of shape (..., c).
        gamma: Scale of shape (c,), or `None` for 1.
        beta: Offset of shape (c,), or `None` for 0.
        epsilon: Number added to the variance.
        within: Whether the code becomes part of a larger function that XLA compiles.

    Returns:
        y, pivot, mean - pivot, variance and 1 / sqrt(variance + epsilon). All but y have shape
        (c,).
    """
    lines = _lines(x, within)
    m = _at_least_one(x)
    pivot = lines.pivot(x)
    (p,) = lines.repeated(pivot)
    d = lines.of(x) - p
    delta = lines.sum(d) / m
    (spread,) = lines.repeated(delta)
    variance = lines.sum(tf.square(d - spread)) / m
    inverse = tf.math.rsqrt(variance + epsilon)
    multiplier = inverse if gamma is None else inverse * gamma
    shift = -delta * multiplier if beta is None else beta - delta * multiplier
    a, b = lines.repeated(multiplier, shift)
    y = lines.stored(lambda: d * a + b, variance)
    return tf.reshape(y, tf.shape(x)), pivot, delta, variance, inverse


@tf.function(jit_compile=True, autograph=False)
def backward(
    dy: Tensor,
    x: Tensor,
    gamma: Tensor | None,
    pivot: Tensor,
    delta: Tensor,
    inverse: Tensor,
    within: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dgamma and dbeta from the results of `forward`, see `kerasbn.kernels`."""
    lines = _lines(x, within)
    m = _at_least_one(x)
    (p,), (spread,) = lines.repeated(pivot), lines.repeated(delta)
    d, dy = lines.of(x) - p, lines.of(dy)
    s1 = lines.sum(dy)
    s2 = lines.sum(dy * (d - spread)) * inverse
    multiplier = inverse if gamma is None else inverse * gamma
    # multiplier (dy - s1/m - x_hat s2/m), with x_hat = (d - delta) inverse
    slope = -multiplier * inverse * s2 / m
    constant = -multiplier * s1 / m - delta * slope
    a, b, c = lines.repeated(multiplier, slope, constant)
    dx = lines.stored(lambda: dy * a + d * b + c, inverse)
    return tf.reshape(dx, tf.shape(x)), s2, s1


@tf.function(jit_compile=True, autograph=False)
def normalize(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
) -> Tensor:
    """Normalizes x in one pass with given statistics of shape (c,)."""
    lines = _Lines(x)
    multiplier = tf.math.rsqrt(variance + epsilon)
    multiplier = multiplier if gamma is None else multiplier * gamma
    p, a = lines.repeated(mean, multiplier)
    y = (lines.of(x) - p) * a
    y = y if beta is None else y + lines.repeated(beta)[0]
    return tf.reshape(y, tf.shape(x))


def _lines(x, within):
    worth_it = len(x.shape) > 2 or _values(x) > _LARGE
    return _LinesWithin(x) if within and worth_it else _Lines(x)


class _Lines:
    """Views x as lines of one or more rows, so that a line fills the processor's vectors."""

    def __init__(self, x):
        self._c = x.shape[-1]
        known = math.prod(size or 1 for size in x.shape[:-1])
        self._rows = 1  # in a line
        while self._c * self._rows < _WIDTH and known % (2 * self._rows) == 0:
            self._rows *= 2
        lines = (known if x.shape[0] is not None else known * _BATCH) // self._rows
        exact = (n for n in _FOLDS if lines % n == 0 and lines // n >= _FEWEST)
        self._folds = next(exact, max(1, min(_FOLDS[0], lines // _FEWEST)))

    def of(self, t):
        return tf.reshape(t, (-1, self._rows * self._c))

    def pivot(self, x):
        """The first row, of shape (c,)."""
        return tf.reduce_sum(tf.reshape(x, (-1, self._c))[:1], 0)

    def repeated(self, *vectors):
        """Each vector of shape (c,), repeated to fill a line."""
        return [tf.tile(v, [self._rows]) for v in vectors]

    def stored(self, values, of_the_layer):
        """The result of the function `values`."""
        del of_the_layer
        return values()

    def sum(self, values):
        """The sum over all rows, of shape (c,)."""
        count = values.shape[0]
        count = tf.shape(values)[0] if count is None else count
        fold = count // self._folds
        parts = [values[i * fold : (i + 1) * fold] for i in range(self._folds)]
        total = tf.reduce_sum(sum(parts[1:], parts[0]), 0)
        if not isinstance(count, int) or count % self._folds:
            total += tf.reduce_sum(values[self._folds * fold :], 0)
        return tf.reduce_sum(tf.reshape(total, (self._rows, self._c)), 0)


class _LinesWithin(_Lines):
    """Keeps XLA from recomputing values within a larger compiled function.

    XLA cannot be asked to store a tensor. But it does store the result of a matrix product, and the
    result of a condition whose outcome it cannot predict.
    """

    def pivot(self, x):
        """The mean of the first lines, as a matrix product."""
        first = self.of(x)[:_FIRST]
        count = tf.maximum(tf.shape(first)[0], 1)
        total = tf.matmul(tf.ones((1, tf.shape(first)[0]), x.dtype), first)
        mean = tf.reduce_sum(tf.reshape(total, (self._rows, self._c)), 0)
        return mean / tf.cast(count * self._rows, x.dtype)

    def repeated(self, *vectors):
        lines = super().repeated(*vectors)
        if len(lines) == 1:  # XLA would remove a product with the number 1
            lines.append(tf.zeros_like(lines[0]))
        stored = tf.matmul(tf.eye(len(lines), dtype=lines[0].dtype), tf.stack(lines))
        return tf.unstack(stored)[: len(vectors)]

    def stored(self, values, of_the_layer):
        # Never true: a variance or 1 / std is not negative, and comparing NaN gives false.
        return tf.cond(of_the_layer[0] < 0, lambda: tf.zeros_like(values()), values)


def _at_least_one(x):
    rows = tf.size(x, out_type=tf.int64) // x.shape[-1]
    return tf.cast(tf.maximum(rows, 1), x.dtype)
