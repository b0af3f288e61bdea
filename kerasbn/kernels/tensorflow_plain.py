"""Batch norm in plain TensorFlow operations with the analytic gradient.

It works for all axes, with masks, and over the replicas of a strategy.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from kerasbn._tensorflow_private import compiled_by_xla
from kerasbn.kernels import generic
from kerasbn.moments import Moments, Tensor, count_values

_FIRST = 8  # indices of each reduced axis whose values enter the pivot under XLA


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
    """See `kerasbn.kernels.batch_normalize`.

    With `all_replicas`, the statistics include the values of all replicas of a strategy.
    """
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
                # To the tape, the statistics in `s` are constants, but they depend on x. So compute
                # them again under a tape, and let TensorFlow differentiate the formula.
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
        count = count_values(x, axes, mask)  # a Python number if the shape is known
    return y, Moments(tf.stop_gradient(mean), tf.stop_gradient(variance), count)


def runs_on_cpu() -> bool:
    """Whether operations that are created here will run on the CPU.

    The native operations exist for the CPU only. Next to operations on a GPU, TensorFlow would run
    them too, but copy their inputs to the CPU and their results back.
    """
    if all(device.device_type == "CPU" for device in tf.config.get_visible_devices()):
        return True
    # In a graph, the device is "" outside of a `tf.device` scope.
    return "CPU" in tf.constant(0.0).device


class Statistics(NamedTuple):
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


class Population(NamedTuple):
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
    ) -> tuple[Tensor, Statistics]:
        """y and the statistics."""
        s = self.statistics(x, epsilon)
        multiplier = s.inverse if gamma is None else s.inverse * gamma
        shift = -s.delta * multiplier
        return (x - s.pivot) * multiplier + (shift if beta is None else shift + beta), s

    def statistics(self, x: Tensor, epsilon: float) -> Statistics:
        """The statistics of x."""
        count = tf.convert_to_tensor(count_values(x, self.axes, self.mask), x.dtype)
        pivot = self._pivot(x)
        if self.all_replicas:
            # Replicas share one pivot: the mean of the pivots of those that have values.
            count, weighted = self._over_replicas(count, count * pivot)
            pivot = weighted / tf.maximum(count, 1.0)
        pivot = tf.stop_gradient(pivot)
        m = tf.maximum(count, 1.0)
        d = x - pivot
        delta = self._sum(d) / m
        variance = self._sum(tf.math.squared_difference(d, delta)) / m
        return Statistics(pivot, delta, variance, tf.math.rsqrt(variance + epsilon), count)

    def gradients(
        self,
        dy: Tensor,
        x: Tensor,
        gamma: Tensor | None,
        beta: Tensor | None,
        s: Statistics,
    ) -> tuple[Tensor, ...]:
        """dx, followed by dgamma and dbeta if gamma and beta are given."""
        centered = x - s.pivot - s.delta
        s1 = tf.reduce_sum(dy, self.axes, keepdims=True)
        s2 = tf.reduce_sum(dy * centered, self.axes, keepdims=True) * s.inverse
        parameters = ([] if gamma is None else [s2]) + ([] if beta is None else [s1])
        if self.all_replicas:  # the strategy itself sums dgamma and dbeta over replicas
            s1, s2 = self._over_replicas(s1, s2)
        m = tf.maximum(s.count, 1.0)
        multiplier = s.inverse if gamma is None else s.inverse * gamma
        # multiplier (dy - s1 / m - x_hat s2 / m), as a sum of two tensors of the size of x. XLA
        # would recompute a product with `multiplier` everywhere dx is used.
        slope = -multiplier * s.inverse * s2 / m
        through_statistics = centered * slope - multiplier * s1 / m
        if self.mask is not None:
            through_statistics = tf.where(self.mask, through_statistics, 0.0)
        return dy * multiplier + through_statistics, *parameters

    def _pivot(self, x):
        if self.mask is None and compiled_by_xla() and runs_on_cpu():
            # XLA on the CPU stores a sum, but would read a first value again at every use.
            first = x[tuple(slice(_FIRST if a in self.axes else None) for a in range(len(x.shape)))]
            count = tf.convert_to_tensor(count_values(first, self.axes, None), x.dtype)
            return tf.reduce_sum(first, self.axes, keepdims=True) / tf.maximum(count, 1.0)
        return generic.pivot_value(x, self.axes, self.mask)

    def _sum(self, values):
        total = self._local_sum(values)
        return self._over_replicas(total)[0] if self.all_replicas else total

    def _local_sum(self, values):
        counted = values if self.mask is None else tf.where(self.mask, values, 0.0)
        return tf.reduce_sum(counted, self.axes, keepdims=True)

    def _over_replicas(self, *tensors):
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors))
