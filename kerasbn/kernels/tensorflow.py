"""Batch norm in TensorFlow with the analytic gradient: eager, graph and XLA, on many replicas.

Any axes, masks and replicas: `_Population`. The common case, over all axes but the last without a
mask: `kerasbn.kernels.tensorflow_rows`.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from kerasbn.kernels import generic, tensorflow_rows
from kerasbn.moments import Moments, Tensor, count_values

reshape = tf.reshape

# Between kept and reduced axes. TensorFlow merges neighbouring axes that broadcast alike, and more
# than five are then beyond it; ghost batches of rank 5 with axis=(1, 3) would need six.
_MOST_CHANGES = 4


def batch_normalize(x, gamma, beta, *, axes, epsilon, mask=None, synchronized=False):
    """See `kerasbn.kernels.batch_normalize`."""
    rank = len(x.shape)
    changes = sum((a in axes) != (a + 1 in axes) for a in range(rank - 1))
    if changes > _MOST_CHANGES:
        # Kept axes first, reduced ones last, and back again.
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
    if mask is None and not in_replica and tensorflow_rows.suits(x, axes):
        way = _Rows(len(x.shape), _compiled_by_xla())
    else:
        way = population
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
                # The statistics in `s` are constants to the tape. Here they vary with x, so they
                # are computed again in its sight and TensorFlow differentiates the formula itself.
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
        count = count_values(x, axes, mask)  # a Python number, where the shape says it
    return y, Moments(tf.stop_gradient(mean), tf.stop_gradient(variance), count)


def normalize(x, mean, variance, gamma, beta, *, epsilon):
    """See `kerasbn.kernels.normalize`."""
    within = _compiled_by_xla()  # one loop anyhow, which plain operations leave simple
    if within or len(mean.shape) > 1 or not tensorflow_rows.suits_inference(x):
        return generic.normalize(x, mean, variance, gamma, beta, epsilon=epsilon)
    # A variable given as it is would be one more reason to trace anew.
    given = (None if t is None else tf.convert_to_tensor(t) for t in (mean, variance, gamma, beta))
    y = tensorflow_rows.normalize(x, *given, epsilon)
    y.set_shape(x.shape)
    return y


def _transpose(t, order):
    return t if t is None or isinstance(t, float) or not len(t.shape) else tf.transpose(t, order)


class _Statistics(NamedTuple):
    """The mean is pivot + delta, see `kerasbn.kernels`; inverse is 1 / sqrt(variance + epsilon)."""

    pivot: Tensor
    delta: Tensor
    variance: Tensor
    inverse: Tensor
    count: Tensor


class _Population(NamedTuple):
    """The values that the statistics are of: which axes, which positions, one replica's or all."""

    axes: tuple[int, ...]
    mask: Tensor | None
    all_replicas: bool

    def forward(self, x: Tensor, gamma, beta, epsilon: float) -> tuple[Tensor, _Statistics]:
        s = self.statistics(x, epsilon)
        multiplier = s.inverse if gamma is None else s.inverse * gamma
        y = (x - s.pivot - s.delta) * multiplier
        return (y if beta is None else y + beta), s

    def statistics(self, x: Tensor, epsilon: float) -> _Statistics:
        count = tf.convert_to_tensor(count_values(x, self.axes, self.mask), x.dtype)
        pivot = generic.pivot_value(x, self.axes, self.mask)
        if self.all_replicas:
            # One pivot for all: the mean of theirs, replicas without values left out.
            count, weighted = self._over_replicas(count, count * pivot)
            pivot = weighted / tf.maximum(count, 1.0)
        pivot = tf.stop_gradient(pivot)
        m = tf.maximum(count, 1.0)
        d = x - pivot
        delta = self._sum(d) / m
        variance = self._sum(tf.math.squared_difference(d, delta)) / m
        return _Statistics(pivot, delta, variance, tf.math.rsqrt(variance + epsilon), count)

    def gradients(self, dy: Tensor, x: Tensor, gamma, beta, s: _Statistics) -> tuple[Tensor, ...]:
        """dx, and dgamma and dbeta where there is a gamma and a beta."""
        x_hat = (x - s.pivot - s.delta) * s.inverse
        s1 = tf.reduce_sum(dy, self.axes, keepdims=True)
        s2 = tf.reduce_sum(dy * x_hat, self.axes, keepdims=True)
        parameters = ([] if gamma is None else [s2]) + ([] if beta is None else [s1])
        if self.all_replicas:  # a strategy adds up the replicas' dgamma and dbeta itself
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
    """The same of a tensor that `tensorflow_rows` is for."""

    rank: int
    within: bool  # of a function that XLA compiles

    def forward(self, x, gamma, beta, epsilon) -> tuple[Tensor, _Statistics]:
        y, *statistics = tensorflow_rows.forward(x, _flat(gamma), _flat(beta), epsilon, self.within)
        y.set_shape(x.shape)
        count = tf.convert_to_tensor(count_values(x, tuple(range(self.rank - 1)), None), x.dtype)
        return y, _Statistics(*(self._of_full_rank(t) for t in statistics), count)

    def gradients(self, dy, x, gamma, beta, s) -> tuple[Tensor, ...]:
        given = (_flat(t) for t in (gamma, s.pivot, s.delta, s.inverse))
        dx, dgamma, dbeta = tensorflow_rows.backward(dy, x, *given, self.within)
        dx.set_shape(x.shape)
        parameters = ([] if gamma is None else [dgamma]) + ([] if beta is None else [dbeta])
        return dx, *(self._of_full_rank(t) for t in parameters)

    def _of_full_rank(self, t):
        return tf.reshape(t, [1] * (self.rank - 1) + [-1])


def _compiled_by_xla():
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def _flat(t):
    return None if t is None else tf.reshape(t, [-1])
