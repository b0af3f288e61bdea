"""Batch norm over all axes but the last, compiled by XLA: a few passes over x and nothing between.

TensorFlow's own operations make twelve passes, and a tensor of x's size in most of them. Compiled,
forward and backward are three passes each. What makes them fast, in microseconds a layer on two
cores (AVX2): medians of a chain of eight layers, forward and backward, in graph mode.

                              500x500  500x100  500x25  256x28x28x6  32x56x56x64  64x14x14x256
    Keras                        1269      304     163        11425        42181         12798
    compiled                      816      236     141         4969        16866          7465
    and sums in folds             676      207     166         2645        10389          5170
    and few channels widened      632      238     138         1762        13371          4129

- Folds. XLA on the CPU writes the terms of a sum over rows into a tensor of x's size and sums that.
  Adding up eight equal parts of the rows first, in the same pass, leaves an eighth of it. A part of
  less than 32 rows it would sum in a slow loop, so that there are fewer parts then.
- Widening. A row of six channels is too short for the processor's vectors; a line of four such rows
  is not. Only the sums over lines have to be folded once more, which costs nothing.
- TensorFlow's fused kernel (FusedBatchNormV3) is fast with oneDNN, which it uses by default on
  processors with AVX-512 alone. On this one it took 29,000 us where this takes 13,371.

Compiling takes a third of a second for each shape, once, so that it is for inputs of some size.

Where XLA compiles all of the step (`jit_compile=True`), these functions become part of it, and what
one layer gives is computed anew in each place of the next that uses it. `_LinesWithin` keeps XLA
from that. The same chain, compiled as one, microseconds a layer:

               500x500  2048x512  256x28x28x6  64x24x24x20  16x20x20x48  32x56x56x64  64x14x14x256
    Keras          881      2351         3324         2001          971        30427         19842
    _Lines         802      5542        20662         3313         1134        29034         15067
    _LinesWithin     -      3258         4495         2399          834        16312          7124

What it takes longer for than Keras is few channels and many rows. In inference plain operations are
best there: XLA makes one loop of them, and less of a loop of what is here.
"""

from __future__ import annotations

import math

import tensorflow as tf

_FOLDS = range(8, 17)  # as many as leave no remainder; if none does, the first or fewer
_FEWEST = 32  # lines in each fold
_WIDTH = 16  # values to have in a line
_BATCH = 128  # examples, where their number is not known
_LARGE = 2**19  # values of rows without other axes, to be worth the ways of `_LinesWithin`
_FIRST = 64  # lines that the pivot is the mean of, there
SMALLEST = 8192  # values, to be worth compiling
# In inference TensorFlow's operations overwrite x, and make three passes. In the cache that is no
# slower than a compiled call, and beyond four million values less than a new tensor.
INFERENCE = range(2**17 + 1, 2**22 + 1)  # values


def suits(x: tf.Tensor, axes: tuple[int, ...]) -> bool:
    """Whether x, reduced over `axes`, is for this kernel.

    The reduced axes come first and one kept axis last, all sizes are known but the batch's, and x
    is large. Of rows without other axes, the number has to be known: each new one is compiled anew,
    and while images come in batches of one size and a last one, there are as many rows as a text
    has words, or a graph nodes.
    """
    return axes == tuple(range(len(x.shape) - 1)) and _values(x) >= SMALLEST


def suits_inference(x: tf.Tensor) -> bool:
    """Whether `normalize` is for x: a shape as in `suits`, neither too small nor too large."""
    return _values(x) in INFERENCE


def _values(x):
    """How many values x has or will have; 0 where that may be another number in every step."""
    if None in x.shape[1:] or (x.shape[0] is None and len(x.shape) == 2):
        return 0
    return math.prod(x.shape[1:]) * (x.shape[0] or _BATCH)


@tf.function(jit_compile=True, autograph=False)
def forward(x, gamma, beta, epsilon: float, within: bool = False):
    """y; and the pivot, mean - pivot, variance and 1 / sqrt(variance + epsilon), each (c,).

    Args:
        x: (..., c).
        gamma: (c,), or `None`.
        beta: Likewise.
        epsilon: Added to the variance.
        within: Whether this becomes part of a larger function that XLA compiles.
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
def backward(dy, x, gamma, pivot, delta, inverse, within: bool = False):
    """dx, dgamma and dbeta from what `forward` gave; see `kerasbn.kernels`."""
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
def normalize(x, mean, variance, gamma, beta, epsilon: float):
    """y from given statistics, each (c,), in one pass."""
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
    """x seen as lines of one or more rows each, so that a line fills the processor's vectors."""

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
        """The first row, (c,)."""
        return tf.reduce_sum(tf.reshape(x, (-1, self._c))[:1], 0)

    def repeated(self, *vectors):
        """Each (c,) as a line."""
        return [tf.tile(v, [self._rows]) for v in vectors]

    def stored(self, values, of_the_layer):
        """What the function `values` gives."""
        del of_the_layer
        return values()

    def sum(self, values):
        """Over all rows, (c,)."""
        count = values.shape[0]
        count = tf.shape(values)[0] if count is None else count
        fold = count // self._folds
        parts = [values[i * fold : (i + 1) * fold] for i in range(self._folds)]
        total = tf.reduce_sum(sum(parts[1:], parts[0]), 0)
        if not isinstance(count, int) or count % self._folds:
            total += tf.reduce_sum(values[self._folds * fold :], 0)
        return tf.reduce_sum(tf.reshape(total, (self._rows, self._c)), 0)


class _LinesWithin(_Lines):
    """As part of a larger compiled function, where XLA would compute much anew in each place.

    It knows no way to say that a tensor is to be stored. Two things it does store: the result of a
    matrix product, and that of a condition whose outcome it can't foresee.
    """

    def pivot(self, x):
        """The mean of the first lines, by a matrix product."""
        first = self.of(x)[:_FIRST]
        count = tf.maximum(tf.shape(first)[0], 1)
        total = tf.matmul(tf.ones((1, tf.shape(first)[0]), x.dtype), first)
        mean = tf.reduce_sum(tf.reshape(total, (self._rows, self._c)), 0)
        return mean / tf.cast(count * self._rows, x.dtype)

    def repeated(self, *vectors):
        lines = super().repeated(*vectors)
        if len(lines) == 1:  # a product with the number 1 would go away
            lines.append(tf.zeros_like(lines[0]))
        stored = tf.matmul(tf.eye(len(lines), dtype=lines[0].dtype), tf.stack(lines))
        return tf.unstack(stored)[: len(vectors)]

    def stored(self, values, of_the_layer):
        # A variance or 1 / std is never below 0, and not even NaN is.
        return tf.cond(of_the_layer[0] < 0, lambda: tf.zeros_like(values()), values)


def _at_least_one(x):
    rows = tf.size(x, out_type=tf.int64) // x.shape[-1]
    return tf.cast(tf.maximum(rows, 1), x.dtype)
