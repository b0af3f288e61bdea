"""Batch norm in TensorFlow with the analytic gradient: eager, graph and XLA, on many replicas.

`_Population` handles any axes, masks and replicas. The common case, all axes but the last and no
mask, is in `kerasbn.kernels.tensorflow_rows`.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from kerasbn._tensorflow_private import compiled_by_xla
from kerasbn.kernels import from_vector, generic, tensorflow_rows, to_vector
from kerasbn.moments import Moments, Tensor, count_values

reshape = tf.reshape

# How often the axes may alternate between kept and reduced. TensorFlow merges neighbouring axes of
# one kind and broadcasts at most five. Ghost batches of rank 5 with axis=(1, 3) would need six.
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
) -> tuple[Tensor, Moments]:
    """See `kerasbn.kernels.batch_normalize`."""
    rank = len(x.shape)
    changes = sum((a in axes) != (a + 1 in axes) for a in range(rank - 1))
    if changes > _MOST_CHANGES:
        # Transpose: kept axes first, reduced axes last. Transpose the results back.
        order = sorted(range(rank), key=lambda a: a in axes)
        x, gamma, beta, mask = (_transpose(t, order) for t in (x, gamma, beta, mask))
        last = tuple(range(rank - len(axes), rank))
        y, moments = batch_normalize(
            x, gamma, beta, axes=last, epsilon=epsilon, mask=mask, synchronized=synchronized
        )
        order = [order.index(a) for a in range(rank)]
        return _transpose(y, order), Moments(*(_transpose(t, order) for t in moments))
    in_replica = synchronized and not tf.distribute.in_cross_replica_context()
    population = _Population(axes, mask, all_replicas=in_replica)
    way: _Rows | _Population = population
    if mask is None and not in_replica and tensorflow_rows.suits(x, axes):
        way = _Rows(len(x.shape), compiled_by_xla())
    offered = [t for t in (gamma, beta) if t is not None]

    @tf.custom_gradient
    def forward(x, *parameters):
        scale = parameters[0] if gamma is not None else None
        shift = parameters[-1] if beta is not None else None
        y, s = way.forward(x, scale, shift, epsilon)

        @tf.custom_gradient
        def gradients(dy, x, *parameters):
            first = way.gradients(dy, x, scale, shift, s)

            def second_order(*upstream):
                # The tape takes the statistics in `s` for constants, but they depend on x. So
                # compute them again under a tape and let TensorFlow differentiate the formula.
                with tf.GradientTape() as tape:
                    tape.watch([dy, x, *parameters])
                    scale = parameters[0] if gamma is not None else None
                    again = population.gradients(
                        dy, x, scale, shift, population.statistics(x, epsilon)
                    )
                return tape.gradient(
                    again, [dy, x, *parameters], list(upstream), unconnected_gradients="zero"
                )

            return first, second_order

        def backward(dy, *_):
            return gradients(dy, x, *parameters)

        return (y, s.pivot + s.delta, s.variance, s.count), backward

    y, mean, variance, count = forward(x, *offered)
    if not in_replica:
        count = count_values(x, axes, mask)  # a Python number if the shape is known
    return y, Moments(tf.stop_gradient(mean), tf.stop_gradient(variance), count)


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
    within = compiled_by_xla()  # XLA fuses plain operations into one simple loop
    if within or len(mean.shape) > 1 or not tensorflow_rows.suits_inference(x):
        return generic.normalize(x, mean, variance, gamma, beta, epsilon=epsilon)
    # Passing a variable would be one more reason for `tf.function` to retrace.
    given = (None if t is None else tf.convert_to_tensor(t) for t in (mean, variance, gamma, beta))
    y = tensorflow_rows.normalize(x, *given, epsilon)
    y.set_shape(x.shape)
    return y


def _transpose(t, order):
    return t if t is None or isinstance(t, float) or not len(t.shape) else tf.transpose(t, order)


class _Statistics(NamedTuple):
    """Statistics of a batch, see `kerasbn.kernels`.

    Attributes:
        pivot: Number close to the feature's values.
        delta: Mean minus pivot.
        variance: Biased variance.
        inverse: 1 / sqrt(variance + epsilon).
        count: Number of values of each feature.
    """

    pivot: Tensor
    delta: Tensor
    variance: Tensor
    inverse: Tensor
    count: Tensor


class _Population(NamedTuple):
    """The set of values that enter the statistics.

    Attributes:
        axes: Reduced axes.
        mask: Booleans that are true at the positions that count, or `None` for all positions.
        all_replicas: Whether to include the values of all replicas.
    """

    axes: tuple[int, ...]
    mask: Tensor | None
    all_replicas: bool

    def forward(
        self, x: Tensor, gamma: Tensor | None, beta: Tensor | None, epsilon: float
    ) -> tuple[Tensor, _Statistics]:
        s = self.statistics(x, epsilon)
        multiplier = s.inverse if gamma is None else s.inverse * gamma
        y = (x - s.pivot - s.delta) * multiplier
        return (y if beta is None else y + beta), s

    def statistics(self, x: Tensor, epsilon: float) -> _Statistics:
        count = tf.convert_to_tensor(count_values(x, self.axes, self.mask), x.dtype)
        pivot = generic.pivot_value(x, self.axes, self.mask)
        if self.all_replicas:
            # Replicas share one pivot: the mean of the pivots of those that have values.
            count, weighted = self._over_replicas(count, count * pivot)
            pivot = weighted / tf.maximum(count, 1.0)
        pivot = tf.stop_gradient(pivot)
        m = tf.maximum(count, 1.0)
        d = x - pivot
        delta = self._sum(d) / m
        variance = self._sum(tf.math.squared_difference(d, delta)) / m
        return _Statistics(pivot, delta, variance, tf.math.rsqrt(variance + epsilon), count)

    def gradients(
        self,
        dy: Tensor,
        x: Tensor,
        gamma: Tensor | None,
        beta: Tensor | None,
        s: _Statistics,
    ) -> tuple[Tensor, ...]:
        """dx, followed by dgamma and dbeta if gamma and beta are given."""
        x_hat = (x - s.pivot - s.delta) * s.inverse
        s1 = tf.reduce_sum(dy, self.axes, keepdims=True)
        s2 = tf.reduce_sum(dy * x_hat, self.axes, keepdims=True)
        parameters = ([] if gamma is None else [s2]) + ([] if beta is None else [s1])
        if self.all_replicas:  # the strategy itself sums dgamma and dbeta over replicas
            s1, s2 = self._over_replicas(s1, s2)
        m = tf.maximum(s.count, 1.0)
        through_statistics = s1 / m + x_hat * (s2 / m)
        if self.mask is not None:
            through_statistics = tf.where(self.mask, through_statistics, 0.0)
        multiplier = s.inverse if gamma is None else s.inverse * gamma
        return (dy - through_statistics) * multiplier, *parameters

    def _sum(self, values):
        total = self._local_sum(values)
        return self._over_replicas(total)[0] if self.all_replicas else total

    def _local_sum(self, values):
        counted = values if self.mask is None else tf.where(self.mask, values, 0.0)
        return tf.reduce_sum(counted, self.axes, keepdims=True)

    def _over_replicas(self, *tensors):
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors))


class _Rows(NamedTuple):
    """The same two functions as in `_Population`, for inputs that suit `tensorflow_rows`.

    Attributes:
        rank: Rank of the input.
        within: Whether the code becomes part of a function that XLA compiles.
    """

    rank: int
    within: bool

    def forward(
        self, x: Tensor, gamma: Tensor | None, beta: Tensor | None, epsilon: float
    ) -> tuple[Tensor, _Statistics]:
        y, *statistics = tensorflow_rows.forward(
            x, to_vector(gamma), to_vector(beta), epsilon, self.within
        )
        y.set_shape(x.shape)
        pivot, delta, variance, inverse = (from_vector(t, self.rank) for t in statistics)
        count = tf.convert_to_tensor(count_values(x, tuple(range(self.rank - 1)), None), x.dtype)
        return y, _Statistics(pivot, delta, variance, inverse, count)

    def gradients(
        self,
        dy: Tensor,
        x: Tensor,
        gamma: Tensor | None,
        beta: Tensor | None,
        s: _Statistics,
    ) -> tuple[Tensor, ...]:
        given = (to_vector(t) for t in (gamma, s.pivot, s.delta, s.inverse))
        dx, dgamma, dbeta = tensorflow_rows.backward(dy, x, *given, self.within)
        dx.set_shape(x.shape)
        parameters = ([] if gamma is None else [dgamma]) + ([] if beta is None else [dbeta])
        return dx, *(from_vector(t, self.rank) for t in parameters)
