"""Batch norm in plain TensorFlow operations, with the analytic gradient: any axes, masks, replicas."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from kerasbn.kernels import generic
from kerasbn.moments import Moments, Tensor, count_values


def batch_normalize(
    x: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    *,
    axes: tuple[int, ...],
    epsilon: float,
    mask: Tensor | None,
    all_replicas: bool,
) -> tuple[Tensor, Moments]:
    """See `kerasbn.kernels.batch_normalize`; `all_replicas`: within a replica of a strategy."""
    population = Population(axes, mask, all_replicas)
    offered = [t for t in (gamma, beta) if t is not None]

    @tf.custom_gradient
    def forward(x, *parameters):
        scale = parameters[0] if gamma is not None else None
        shift = parameters[-1] if beta is not None else None
        y, s = population.forward(x, scale, shift, epsilon)

        @tf.custom_gradient
        def gradients(dy, x, *parameters):
            first = population.gradients(dy, x, scale, shift, s)

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
    if not all_replicas:
        count = count_values(x, axes, mask)  # a Python number, where the shape says it
    return y, Moments(tf.stop_gradient(mean), tf.stop_gradient(variance), count)


class Statistics(NamedTuple):
    """The mean is pivot + delta, see `kerasbn.kernels`; inverse is 1 / sqrt(variance + epsilon)."""

    pivot: Tensor
    delta: Tensor
    variance: Tensor
    inverse: Tensor
    count: Tensor


class Population(NamedTuple):
    """The values that the statistics are of: which axes, which positions, one replica's or all."""

    axes: tuple[int, ...]
    mask: Tensor | None
    all_replicas: bool

    def forward(self, x: Tensor, gamma, beta, epsilon: float) -> tuple[Tensor, Statistics]:
        s = self.statistics(x, epsilon)
        multiplier = s.inverse if gamma is None else s.inverse * gamma
        y = (x - s.pivot - s.delta) * multiplier
        return (y if beta is None else y + beta), s

    def statistics(self, x: Tensor, epsilon: float) -> Statistics:
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
        return Statistics(pivot, delta, variance, tf.math.rsqrt(variance + epsilon), count)

    def gradients(self, dy: Tensor, x: Tensor, gamma, beta, s: Statistics) -> tuple[Tensor, ...]:
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
