"""The layer: its options, weights and state. `kerasbn._normalization` does the arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import constraints, initializers, ops, regularizers

from kerasbn import _arguments, _inputs, kernels, moments
from kerasbn._keras_private import writes_legacy_file
from kerasbn._normalization import (
    Axes,
    broadcastable,
    cast,
    normalize_batch,
    renormalize_batch,
    statistics_dtype,
    value_of,
)
from kerasbn.moments import Moments, Tensor

# A value that the corresponding `keras.*.get` function takes: a name, a configuration or an object.
_Identifier = Any


@keras.saving.register_keras_serializable(package="kerasbn")
class BatchNorm(keras.layers.Layer):
    """Batch normalization, a drop-in replacement for `keras.layers.BatchNormalization`.

    In training mode, the layer normalizes each feature with the mean and the (biased) variance of
    its m values in the batch. Then it scales and shifts the result:

        mean     = 1/m * sum(x)
        variance = 1/m * sum((x - mean)^2)
        x_hat    = (x - mean) / sqrt(variance + epsilon)
        y        = gamma * x_hat + beta

    The moving averages take a step towards the batch's statistics:

        moving_mean     = momentum * moving_mean     + (1 - momentum) * mean
        moving_variance = momentum * moving_variance + (1 - momentum) * variance

    In inference mode, the layer normalizes with `moving_mean` and `moving_variance` and updates
    nothing.

    The layer is in training mode if it is called with `training=True` and `layer.trainable` is
    true. Otherwise it is in inference mode. So `trainable = False` means inference mode, as in
    Keras.

    `layer.statistics` selects the statistics that normalize, and can be set at any time:

        statistics    in training mode             in inference mode
        "auto"        batch; updates averages      moving averages
        "frozen"      moving averages              moving averages
        "batch"       batch; updates averages      batch

    In all states, gamma and beta train if `layer.trainable` is true. A compiled model uses a new
    value of `trainable` or `statistics` after the next `model.compile`, or after
    `model.make_train_function(force=True)`.

    The input x has the shape (batch, ...) and any rank from 1. The output y has the same shape.
    Each weight has one entry per feature. Its shape is (features,), or with several feature axes,
    the sizes of these axes.

    The layer computes and stores statistics in at least float32, for every dtype policy, and in
    float64 for a float64 policy. They stay accurate when the mean is large compared with the
    standard deviation. The output has the compute dtype of the policy.

    With `momentum=None` or `debias=True`, the layer has the additional weight `update_count`, the
    number of updates of each feature's moving averages.

    Args:
        axis: Feature axis, or a sequence of feature axes. With several axes, each combination of
            their indices is a feature. Default -1. Use 1 after a `channels_first` convolution.
        momentum: Weight of the *old* average, from 0 to 1. PyTorch's `momentum` is one minus this.
            `None` selects the cumulative average, in which all batches since the start have the
            same weight. Default 0.99.
        epsilon: Positive number added to the variance. Default 1e-3.
        center: Whether the layer has a `beta`. Default `True`.
        scale: Whether the layer has a `gamma`. Default `True`.
        beta_initializer: Initializer of `beta`. Default `"zeros"`.
        gamma_initializer: Initializer of `gamma`. Default `"ones"`.
        moving_mean_initializer: Initializer of `moving_mean`. Default `"zeros"`.
        moving_variance_initializer: Initializer of `moving_variance`. Default `"ones"`.
        beta_regularizer: Regularizer of `beta`. Default `None`.
        gamma_regularizer: Regularizer of `gamma`. Default `None`.
        beta_constraint: Constraint on `beta`. Default `None`.
        gamma_constraint: Constraint on `gamma`. Default `None`.
        renorm: Whether to use Batch Renormalization (Ioffe 2017). In training mode, the layer then
            replaces x_hat by x_hat * r + d. It computes r and d from the batch's statistics and
            separate moving averages, and no gradient flows through them. The layer has the
            additional weights `moving_stddev`, `renorm_mean` and `renorm_stddev`. Default `False`.
        renorm_clipping: Dictionary with any of the keys `"rmax"` and `"rmin"` (bounds of r) and
            `"dmax"` (bound of |d|). `None` means no bounds. Default `None`.
        renorm_momentum: Weight of the old average in `renorm_mean` and `renorm_stddev`. Default
            0.99.
        synchronized: Whether all replicas of a `tf.distribute` strategy, or all processes of
            `torch.distributed`, share their statistics. Masks are supported. JAX does not have this
            option: a batch that `keras.distribution` shards already counts as one batch. Default
            `False`.
        virtual_batch_size: Number of examples in a ghost batch (Hoffer et al. 2017), at least 2. In
            training mode, the layer splits each batch into ghost batches of this many examples. The
            last one may be smaller. Each ghost batch is normalized by itself. The moving averages
            use the mean of the ghost batches' statistics, weighted by their sizes. Default `None`:
            the whole batch is normalized together.
        unbiased_variance: Whether `moving_variance` averages m / (m - 1) times the batch variance,
            as in algorithm 2 of Ioffe & Szegedy (2015) and in PyTorch. Normalization always uses
            the biased variance. Default `False`, as in Keras.
        debias: Whether to remove the initial values from the moving averages. After t updates, the
            weights of the t batches then sum to one. Default `False`.
        statistics: Statistics that the layer normalizes with, and initial value of the attribute:
            `"auto"`, `"frozen"` or `"batch"`, see the table above. Default `"auto"`, as in Keras.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`, `trainable`,
            `activity_regularizer`.

    Raises:
        ValueError: If an argument is out of its range, or if two options exclude each other.

    Examples:
        >>> import keras, kerasbn, numpy as np
        >>> layer = kerasbn.BatchNorm(momentum=0.9)
        >>> x = np.array([[1.0, 10.0], [3.0, 30.0]], "float32")
        >>> y = layer(x, training=True)
        >>> np.round(keras.ops.convert_to_numpy(y), 3)
        array([[-1., -1.],
               [ 1.,  1.]], dtype=float32)
        >>> np.round(keras.ops.convert_to_numpy(layer.moving_mean), 3)
        array([0.2, 2. ], dtype=float32)

    References:
        Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167;
        Ioffe 2017 (renorm), https://arxiv.org/abs/1702.03275;
        Hoffer et al. 2017 (ghost batches), https://arxiv.org/abs/1705.08741.
    """

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        momentum: float | None = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: _Identifier = "zeros",
        gamma_initializer: _Identifier = "ones",
        moving_mean_initializer: _Identifier = "zeros",
        moving_variance_initializer: _Identifier = "ones",
        beta_regularizer: _Identifier = None,
        gamma_regularizer: _Identifier = None,
        beta_constraint: _Identifier = None,
        gamma_constraint: _Identifier = None,
        renorm: bool = False,
        renorm_clipping: Mapping[str, float | None] | None = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        *,
        virtual_batch_size: int | None = None,
        unbiased_variance: bool = False,
        debias: bool = False,
        statistics: str = "auto",
        **kwargs: Any,
    ) -> None:
        # Autocast would turn a float32 input of 70,000 into infinity under a float16 policy.
        super().__init__(autocast=False, **kwargs)
        self.axis = _arguments.checked_axis(axis)
        self.momentum = (
            None if momentum is None else _arguments.checked_fraction("momentum", momentum)
        )
        self.epsilon = _arguments.checked_epsilon(epsilon)
        self.center = center
        self.scale = scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)
        self.renorm = renorm
        self.renorm_clipping = _arguments.checked_clipping(renorm_clipping)
        self.renorm_momentum = _arguments.checked_fraction("renorm_momentum", renorm_momentum)
        self.synchronized = synchronized
        self.virtual_batch_size = _arguments.checked_group_size(virtual_batch_size)
        self.unbiased_variance = unbiased_variance
        self.debias = debias
        self.statistics = statistics
        _arguments.check_groups(self.virtual_batch_size, renorm=renorm, synchronized=synchronized)
        _arguments.check_synchronized(synchronized)
        self.supports_masking = True
        self.gamma = None
        self.beta = None

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Creates the weights for inputs of this shape.

        Args:
            input_shape: Shape of the inputs. The sizes of `axis` must be known.

        Raises:
            ValueError: If an axis is out of range or has an unknown size.
        """
        self._axes = Axes.of(self.axis, input_shape)
        _arguments.check_batch_axis(self.virtual_batch_size, self.axis, self._axes.features)
        shape = self._axes.feature_shape
        if self.scale:
            self.gamma = self.add_weight(
                shape=shape,
                name="gamma",
                initializer=self.gamma_initializer,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
                autocast=False,
            )
        if self.center:
            self.beta = self.add_weight(
                shape=shape,
                name="beta",
                initializer=self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
                autocast=False,
            )
        self.moving_mean = self._add_state("moving_mean", shape, self.moving_mean_initializer)
        self.moving_variance = self._add_state(
            "moving_variance", shape, self.moving_variance_initializer
        )
        if self.renorm:

            def stddev_initializer(shape, dtype=None):
                return ops.sqrt(self.moving_variance_initializer(shape, dtype=dtype))

            self.moving_stddev = self._add_state("moving_stddev", shape, stddev_initializer)
            self.renorm_mean = self._add_state("renorm_mean", shape, self.moving_mean_initializer)
            self.renorm_stddev = self._add_state("renorm_stddev", shape, stddev_initializer)
        if self._counts_updates:
            # float16 cannot count beyond 2048. float32 counts to 16.7 million, and a cumulative
            # average hardly changes after that many updates.
            self.update_count = self._add_state("update_count", shape, "zeros", dtype="float32")
        self.input_spec = keras.layers.InputSpec(
            ndim=len(input_shape), axes={a: input_shape[a] for a in self._axes.features}
        )

    def call(
        self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Normalizes the inputs.

        Args:
            inputs: Tensor with the rank and the feature sizes that the layer was built with. It may
                be sparse, and on TensorFlow ragged.
            training: Whether to run in training mode. A layer that is not trainable runs in
                inference mode in any case. A tensor must have a known value.
            mask: Boolean tensor in the shape of the inputs without the last axis; size 1
                broadcasts. False leaves a position out of the statistics. The layer still
                normalizes it. A fully masked feature keeps its moving averages.

        Returns:
            Tensor in the shape of the inputs and in the layer's compute dtype. It is ragged if the
            inputs are.

        Raises:
            ValueError: If the mask has the wrong shape, if the inputs are not real numbers, or if
                `training` has no known value.
        """
        if mask is not None:
            mask = ops.convert_to_tensor(mask)
            _arguments.check_mask(mask.shape, inputs.shape)
        x, mask, in_form_of_inputs = _inputs.to_dense(
            inputs, mask, self._statistics_dtype, keep_examples=self.virtual_batch_size is not None
        )
        in_training = _arguments.checked_training(training) and self.trainable
        if self.statistics == "batch" or (in_training and self.statistics == "auto"):
            y, batch = self._normalize_by_batch(x, mask, portable=not in_training)
            if in_training:
                self._update_averages(batch)
        else:
            y = self._normalize_by_moving_averages(x, trains=in_training)
        return in_form_of_inputs(cast(y, self.compute_dtype))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        """Returns the shape of the input."""
        _arguments.positive_axes(self.axis, input_shape, sizes_needed=False)
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the values of all options."""
        several = isinstance(self.axis, tuple) and writes_legacy_file()
        return {
            **super().get_config(),
            **({"axes": self.axis} if several else {}),
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "beta_initializer": initializers.serialize(self.beta_initializer),
            "gamma_initializer": initializers.serialize(self.gamma_initializer),
            "moving_mean_initializer": initializers.serialize(self.moving_mean_initializer),
            "moving_variance_initializer": initializers.serialize(self.moving_variance_initializer),
            "beta_regularizer": regularizers.serialize(self.beta_regularizer),
            "gamma_regularizer": regularizers.serialize(self.gamma_regularizer),
            "beta_constraint": constraints.serialize(self.beta_constraint),
            "gamma_constraint": constraints.serialize(self.gamma_constraint),
            "renorm": self.renorm,
            "renorm_clipping": None if self.renorm_clipping is None else dict(self.renorm_clipping),
            "renorm_momentum": self.renorm_momentum,
            "synchronized": self.synchronized,
            "virtual_batch_size": self.virtual_batch_size,
            "unbiased_variance": self.unbiased_variance,
            "debias": self.debias,
            "statistics": self.statistics,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BatchNorm:
        """Creates a layer from the values of its options."""
        # Keras drops an `axis` that is a sequence from legacy `.h5` files, so `get_config` also
        # stores it as `axes`.
        if "axes" in config:
            others = {key: value for key, value in config.items() if key != "axes"}
            config = {**others, "axis": config["axes"]}
        return super().from_config(config)

    @property
    def statistics(self) -> str:
        """The statistics that the layer normalizes with: `"auto"`, `"frozen"` or `"batch"`."""
        return self._statistics

    @statistics.setter
    def statistics(self, value: str) -> None:
        self._statistics = _arguments.checked_statistics(value)

    def _normalize_by_moving_averages(self, x: Tensor, *, trains: bool) -> Tensor:
        weights = (self.moving_mean, self.moving_variance, self.gamma, self.beta)
        mean, variance, gamma, beta = map(self._broadcast, weights)
        if trains:
            # Subtracts the mean first, so gamma's gradient keeps the digits of large means.
            x_hat = (x - mean) * ops.rsqrt(variance + self.epsilon)
            return kernels.scale_and_shift(x_hat, gamma, beta)
        return kernels.normalize(x, mean, variance, gamma, beta, epsilon=self.epsilon)

    def _normalize_by_batch(
        self, x: Tensor, mask: Tensor | None, *, portable: bool
    ) -> tuple[Tensor, Moments]:
        gamma, beta = self._broadcast(self.gamma), self._broadcast(self.beta)
        options: dict[str, Any] = {
            "axes": self._axes,
            "epsilon": self.epsilon,
            "mask": mask,
            "synchronized": self.synchronized,
            "portable": portable,
        }
        if self.renorm:
            return renormalize_batch(
                x,
                gamma,
                beta,
                self._broadcastable(self.renorm_mean),
                self._broadcastable(self.renorm_stddev),
                clipping=self.renorm_clipping or {},
                **options,
            )
        return normalize_batch(x, gamma, beta, group_size=self.virtual_batch_size, **options)

    def _update_averages(self, batch: Moments) -> None:
        if self.renorm:
            self._update_renorm_averages(batch)
        self._update_moving_averages(batch)

    def _update_renorm_averages(self, batch: Moments) -> None:
        rate = moments.update_rate(self.renorm_momentum, False, None)
        stddev = moments.stddev_of(batch.variance, self.epsilon)
        averages = [self.renorm_mean, self.renorm_stddev]
        self._move(averages, [batch.mean, stddev], rate, batch.count)

    def _update_moving_averages(self, batch: Moments) -> None:
        if self.unbiased_variance:
            batch = batch._replace(variance=moments.unbiased(batch))
        if self.virtual_batch_size is not None:
            batch = moments.pool_groups(batch)
        mean, variance, count = batch
        updates = None
        if self._counts_updates:
            updates = self._value(self.update_count) + 1.0
            self._move([self.update_count], [updates], 1.0, count)
        rate = moments.update_rate(self.momentum, self.debias, updates)
        if not self.renorm:
            self._move([self.moving_mean, self.moving_variance], [mean, variance], rate, count)
            return
        # As in Keras, the average is over standard deviations. The moving variance is computed
        # from it.
        stddev = moments.stddev_of(variance, self.epsilon)
        self._move([self.moving_mean, self.moving_stddev], [mean, stddev], rate, count)
        variance = moments.variance_of(self._value(self.moving_stddev), self.epsilon)
        self._move([self.moving_variance], [variance], 1.0, count)

    def _move(
        self,
        weights: list[keras.Variable],
        values: list[Tensor],
        rate: Tensor | float,
        count: Tensor | float,
    ) -> None:
        """Moves averages towards `values`. Features with a count of 0 keep theirs."""
        shape = weights[0].shape
        if isinstance(count, float):
            if count == 0:
                return
        else:
            rate = self._where_counted(rate, count, shape)
        values = [v if len(v.shape) == len(shape) else kernels.reshape(v, shape) for v in values]
        moved = kernels.move_averages([self._value(w) for w in weights], values, rate)
        for weight, average in zip(weights, moved, strict=True):
            weight.assign(average)

    def _where_counted(self, rate: Tensor | float, count: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The rate, and 0 for features whose count is 0."""
        counted = ops.cast(count > 0, count.dtype)
        if len(count.shape):  # one count for each feature
            counted = ops.broadcast_to(counted, self._axes.statistics_shape)
            counted = kernels.reshape(counted, shape)
        return counted * rate

    def _broadcast(self, weight: keras.Variable | None) -> Any:
        """The value of a weight in a shape that broadcasts to the inputs. `None` stays `None`."""
        if weight is not None and self._axes.last_only:  # vectors broadcast without a reshape
            return self._value(weight)
        return self._broadcastable(weight)

    def _broadcastable(self, weight: keras.Variable | None) -> Tensor | None:
        return broadcastable(weight, self._axes, self._statistics_dtype)

    def _value(self, weight: keras.Variable) -> Tensor:
        return value_of(weight, self._statistics_dtype)

    @property
    def _statistics_dtype(self) -> str:
        return statistics_dtype(self.compute_dtype)

    @property
    def _counts_updates(self) -> bool:
        return self.momentum is None or self.debias

    def _add_state(
        self,
        name: str,
        shape: tuple[int, ...],
        initializer: _Identifier,
        dtype: str | None = None,
    ) -> keras.Variable:
        return self.add_weight(
            shape=shape,
            name=name,
            initializer=initializer,
            dtype=dtype or statistics_dtype(self.variable_dtype),
            trainable=False,
            autocast=False,
            aggregation="mean",  # so that all replicas of a strategy hold the same value
        )
