"""The layer: options, weights, state. The arithmetic is in `kerasbn.kernels` and `.moments`."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import constraints, initializers, ops, regularizers

from kerasbn import kernels, moments

_CLIPPING_KEYS = ("rmax", "rmin", "dmax")


@keras.saving.register_keras_serializable(package="kerasbn")
class BatchNorm(keras.layers.Layer):
    """Batch normalization, a drop-in for `keras.layers.BatchNormalization`.

    In training, each feature is normalized with the mean and the (biased) variance of its m values
    in the batch, then scaled and shifted:

        mean     = 1/m sum x                          one value a feature
        variance = 1/m sum (x - mean)^2
        y        = gamma (x - mean) / sqrt(variance + epsilon) + beta

    and the moving averages take a step towards the batch's statistics:

        moving_mean     = momentum moving_mean     + (1 - momentum) mean
        moving_variance = momentum moving_variance + (1 - momentum) variance

    In inference, `moving_mean` and `moving_variance` stand in their place and nothing is updated.

    `training=True` and `layer.trainable`: training. Anything else: inference; `trainable = False`
    means inference mode, as in Keras.

    Shapes: x and y (batch, ...), any rank from 1; gamma, beta, moving_mean, moving_variance: the
    sizes of `axis`, which for one axis is (features,).

    Statistics are computed and kept in float32 at least (float64 in a float64 layer), whatever the
    dtype policy, and stay exact at large offsets; the output has the policy's compute dtype.

    Args:
        axis: The feature axis, or several: each index combination of theirs has its own statistics,
            gamma and beta. Default -1; 1 after a `channels_first` convolution.
        momentum: Weight of the *old* average, from 0 to 1; default 0.99. PyTorch's `momentum` is
            one minus this. `None`: the cumulative average, in which each batch since the start has
            the same weight.
        epsilon: Added to the variance; positive, default 1e-3.
        center: Whether there is a `beta`; default `True`.
        scale: Whether there is a `gamma`; default `True`.
        beta_initializer: Default `"zeros"`.
        gamma_initializer: Default `"ones"`.
        moving_mean_initializer: Default `"zeros"`.
        moving_variance_initializer: Default `"ones"`.
        beta_regularizer: Default none.
        gamma_regularizer: Default none.
        beta_constraint: Default none.
        gamma_constraint: Default none.
        renorm: Batch Renormalization (Ioffe 2017): in training, x_hat r + d takes the place of
            x_hat, with r and d, constants to the gradient, from moving averages of their own. Adds
            the weights `moving_stddev`, `renorm_mean`, `renorm_stddev`. Default `False`.
        renorm_clipping: `None` or a dictionary with any of `"rmax"`, `"rmin"` (bounds of r) and
            `"dmax"` (bound of |d|).
        renorm_momentum: Weight of the old average in `renorm_mean` and `renorm_stddev`; default
            0.99.
        synchronized: Statistics over all replicas of a `tf.distribute` strategy, masks included
            (TensorFlow only; on JAX a batch that is sharded by `keras.distribution` is one batch
            already). Default `False`.
        virtual_batch_size: Ghost batch norm (Hoffer et al. 2017): in training, each run of so many
            examples is normalized with its own statistics; a smaller last group holds the
            remainder. The moving averages get the groups' means and variances, weighted by group
            size. At least 2; default `None`: the whole batch.
        unbiased_variance: Whether `moving_variance` is fed m/(m-1) times the batch variance, as in
            the paper's algorithm 2 and in PyTorch. Normalization uses the biased one either way.
            Default `False`, as in Keras.
        debias: Whether the moving averages are kept free of their initial values: after t updates
            the weights of the t batches sum to one. Default `False`.
        **kwargs: Keras's `name`, `dtype`, `trainable`, `activity_regularizer`.

    Call arguments:
        inputs: Tensor with the rank, and the sizes of `axis`, that the layer was built with.
        training: Python boolean.
        mask: Tensor with an entry for each position of all axes but the last (or of size 1, to
            broadcast). Values where it is false count in no statistic; they are normalized all the
            same. A feature without any counting value leaves its moving averages as they are.

    Raises:
        ValueError: If an argument is out of its range, or options exclude each other; from `build`,
            if an axis is out of the input's range or its size is undefined; from a call, if the
            mask has the wrong shape.

    With `momentum=None` or `debias`, the weight `update_count` counts each feature's updates.

    Example:

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
        beta_initializer="zeros",
        gamma_initializer="ones",
        moving_mean_initializer="zeros",
        moving_variance_initializer="ones",
        beta_regularizer=None,
        gamma_regularizer=None,
        beta_constraint=None,
        gamma_constraint=None,
        renorm: bool = False,
        renorm_clipping: Mapping[str, float] | None = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        *,
        virtual_batch_size: int | None = None,
        unbiased_variance: bool = False,
        debias: bool = False,
        **kwargs,
    ):
        # Keras would cast float32 inputs to a float16 policy before `call`, and 70,000 to infinity.
        super().__init__(autocast=False, **kwargs)
        self.axis = _checked_axis(axis)
        self.momentum = None if momentum is None else _checked_fraction("momentum", momentum)
        self.epsilon = _checked_epsilon(epsilon)
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
        self.renorm_clipping = _checked_clipping(renorm_clipping)
        self.renorm_momentum = _checked_fraction("renorm_momentum", renorm_momentum)
        self.synchronized = synchronized
        self.virtual_batch_size = _checked_group_size(virtual_batch_size)
        self.unbiased_variance = unbiased_variance
        self.debias = debias
        self._check_combination()
        if synchronized and keras.backend.backend() != "tensorflow":
            raise ValueError(
                "synchronized=True gathers statistics over the replicas of a tf.distribute "
                "strategy and needs the TensorFlow backend. Received: the "
                f"{keras.backend.backend()} backend. Leave it out: under keras.distribution the "
                "sharded batch is one batch already."
            )
        self.supports_masking = True
        self.gamma = None
        self.beta = None

    def build(self, input_shape):
        """Creates the weights for inputs of this shape; the sizes of `axis` must be known."""
        self._axes = _positive_axes(self.axis, input_shape)
        self._reduced = tuple(a for a in range(len(input_shape)) if a not in self._axes)
        if self.virtual_batch_size is not None and 0 in self._axes:
            raise ValueError(
                f"virtual_batch_size splits the batch axis, but axis={self.axis} keeps axis 0 as a "
                "feature axis. Leave one of them out."
            )
        shape = tuple(input_shape[a] for a in self._axes)
        self._statistics_shape = tuple(
            size if a in self._axes else 1 for a, size in enumerate(input_shape)
        )
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
            # float32 in every policy: float16 counts to 2048 only. float32 counts to 16.7 million,
            # and beyond that the rate of a cumulative average no longer matters.
            self.update_count = self._add_state("update_count", shape, "zeros", dtype="float32")
        self.input_spec = keras.layers.InputSpec(
            ndim=len(input_shape), axes={a: input_shape[a] for a in self._axes}
        )

    def call(self, inputs, training=None, mask=None):
        """Normalizes; see the class."""
        if mask is not None:
            mask = ops.convert_to_tensor(mask)
            _check_mask(mask, inputs)
        x = _cast(ops.convert_to_tensor(inputs), self._statistics_dtype)
        if training and self.trainable:
            y = self._normalize_and_update(x, mask)
        else:
            weights = (self.moving_mean, self.moving_variance, self.gamma, self.beta)
            if self._axes == (len(x.shape) - 1,):  # they broadcast as they are
                weights = (None if w is None else self._value(w) for w in weights)
            else:
                weights = (self._of_full_rank(w) for w in weights)
            y = kernels.normalize(x, *weights, epsilon=self.epsilon)
        return _cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """The shape of the input."""
        _positive_axes(self.axis, input_shape, sizes_needed=False)
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Every option: what `keras.layers.BatchNormalization` has, and the options it lacks."""
        return {
            **super().get_config(),
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
        }

    @property
    def _counts_updates(self) -> bool:
        return self.momentum is None or self.debias

    def _normalize_and_update(self, x, mask):
        if mask is not None:
            mask = moments.position_mask(mask)
        gamma, beta = self._of_full_rank(self.gamma), self._of_full_rank(self.beta)
        if self.virtual_batch_size is not None:
            y, batch = self._normalize_groups(x, gamma, beta, mask)
        elif self.renorm:
            y, batch = self._renormalize(x, gamma, beta, mask)
        else:
            y, batch = self._normalize(x, gamma, beta, self._reduced, mask)
        self._move_averages(self._population(batch))
        return y

    def _normalize(self, x, gamma, beta, axes, mask):
        return kernels.batch_normalize(
            x,
            gamma,
            beta,
            axes=axes,
            epsilon=self.epsilon,
            mask=mask,
            synchronized=self.synchronized,
        )

    def _normalize_groups(self, x, gamma, beta, mask):
        groups, mask = moments.to_groups(x, self.virtual_batch_size, mask)
        each = [ops.shape(groups)[0], *self._statistics_shape]  # one gamma and beta for all groups
        y, batch = self._normalize(
            groups,
            None if gamma is None else ops.broadcast_to(gamma, each),
            None if beta is None else ops.broadcast_to(beta, each),
            tuple(a + 1 for a in self._reduced),
            mask,
        )
        return moments.from_groups(y, x), batch

    def _renormalize(self, x, gamma, beta, mask):
        x_hat, batch = self._normalize(x, None, None, self._reduced, mask)
        r, d = moments.renorm_correction(
            batch,
            self._of_full_rank(self.renorm_mean),
            self._of_full_rank(self.renorm_stddev),
            self.epsilon,
            self.renorm_clipping or {},
        )
        rate = 1.0 - self.renorm_momentum
        self._move(self.renorm_mean, batch.mean, rate, batch.count)
        stddev = ops.sqrt(batch.variance + self.epsilon)
        self._move(self.renorm_stddev, stddev, rate, batch.count)
        return kernels.scale_and_shift(x_hat * r + d, gamma, beta), batch

    def _population(self, batch: moments.Moments) -> moments.Moments:
        """What the moving averages are fed."""
        if self.unbiased_variance:
            batch = batch._replace(variance=moments.unbiased(batch))
        return batch if self.virtual_batch_size is None else moments.pool_groups(batch)

    def _move_averages(self, population):
        mean, variance, count = population
        updates = None
        if self._counts_updates:
            updates = self._value(self.update_count) + 1.0
            self._move(self.update_count, updates, 1.0, count)
        rate = moments.update_rate(self.momentum, self.debias, updates)
        self._move(self.moving_mean, mean, rate, count)
        if self.renorm:
            # As in Keras: the standard deviation is averaged, and the variance follows from it.
            self._move(self.moving_stddev, ops.sqrt(variance + self.epsilon), rate, count)
            stddev = self._value(self.moving_stddev)
            variance, rate = moments.at_least(ops.square(stddev) - self.epsilon, 0.0), 1.0
        self._move(self.moving_variance, variance, rate, count)

    def _move(self, weight, value, rate, count):
        """Moves an average towards `value`, but not where no value stands behind it."""
        counted = None
        if not isinstance(count, float):
            counted = ops.broadcast_to(count > 0, self._statistics_shape)
            counted = kernels.reshape(counted, weight.shape)
        elif count == 0:
            return
        value = kernels.reshape(value, weight.shape)
        weight.assign(moments.move_average(self._value(weight), value, rate, counted))

    def _of_full_rank(self, weight):
        """A weight's value, of the shape of the statistics."""
        if weight is None:
            return None
        return kernels.reshape(self._value(weight), self._statistics_shape)

    def _value(self, weight):
        """A weight's value, in the dtype of the statistics."""
        dtype = self._statistics_dtype
        return weight.value if weight.dtype == dtype else ops.cast(weight.value, dtype)

    @property
    def _statistics_dtype(self) -> str:
        return _at_least_float32(self.compute_dtype)

    def _add_state(self, name, shape, initializer, dtype=None):
        # float16 has no variance above 65,504, and in bfloat16's 8 bits an average that moves by a
        # hundredth of the distance rounds its steps away.
        dtype = dtype or _at_least_float32(self.variable_dtype)
        return self.add_weight(
            shape=shape,
            name=name,
            initializer=initializer,
            dtype=dtype,
            trainable=False,
            autocast=False,
            aggregation="mean",  # over the replicas of a strategy: each holds the same afterwards
        )

    def _check_combination(self):
        size = self.virtual_batch_size
        if size is None:
            return
        for name in ("renorm", "synchronized"):
            if getattr(self, name):
                raise ValueError(
                    f"virtual_batch_size makes the statistics of a small group, and {name}=True "
                    f"those of more than the batch: they exclude each other. Received: "
                    f"virtual_batch_size={size}, {name}=True. Leave one of them out."
                )


def _cast(x, dtype):
    # Even a cast to the same dtype takes 30 us on PyTorch.
    return x if keras.backend.standardize_dtype(x.dtype) == dtype else ops.cast(x, dtype)


def _at_least_float32(dtype: str) -> str:
    # Not keras.backend.result_type: on JAX and PyTorch it makes float32 of float64.
    return dtype if dtype == "float64" else "float32"


def _checked_axis(axis):
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    if not axes or any(isinstance(a, bool) or not isinstance(a, numbers.Integral) for a in axes):
        raise ValueError(
            f"axis is an integer or a nonempty sequence of integers. Received: axis={axis!r}. "
            "For the last axis use axis=-1, for channels_first data axis=1."
        )
    return tuple(int(a) for a in axes) if axes is axis else int(axis)


def _positive_axes(axis, input_shape, sizes_needed=True):
    rank = len(input_shape)
    axes = axis if isinstance(axis, tuple) else (axis,)
    for a in axes:
        if not -rank <= a < rank:
            raise ValueError(
                f"axis={a} is out of range for an input of rank {rank}, which has axes {-rank} to "
                f"{rank - 1}. Received: axis={axis}, input shape {tuple(input_shape)}."
            )
        if sizes_needed and input_shape[a] is None:
            raise ValueError(
                f"The size of axis {a} must be defined, since gamma, beta and the moving averages "
                f"have one value for each index of it. Received: axis={axis}, input shape "
                f"{tuple(input_shape)}. Give the input a fixed size there, or choose another axis."
            )
    positive = tuple(sorted(a % rank for a in axes))
    if len(set(positive)) < len(positive):
        raise ValueError(
            f"axis names an axis twice: axis={axis} is {positive} for an input of rank {rank}. "
            "Name each axis once."
        )
    return positive


def _checked_fraction(name, value):
    if not isinstance(value, numbers.Real) or not 0.0 <= value <= 1.0:
        hint = " or None, for the cumulative average" if name == "momentum" else ""
        raise ValueError(
            f"{name} is the weight of the old average, a number from 0 to 1{hint}. "
            f"Received: {name}={value!r}. (PyTorch's momentum is one minus Keras's.)"
        )
    return float(value)


def _checked_epsilon(epsilon):
    if not isinstance(epsilon, numbers.Real) or not 0.0 < epsilon < math.inf:
        raise ValueError(
            "epsilon is added to the variance before its root is taken, so that it must be a "
            f"positive number, such as 1e-3. Received: epsilon={epsilon!r}."
        )
    return float(epsilon)


def _checked_group_size(size):
    if size is None:
        return None
    if not isinstance(size, numbers.Integral) or isinstance(size, bool) or size < 2:
        raise ValueError(
            "virtual_batch_size is the number of examples in a group, at least 2, or None for the "
            f"whole batch. Received: virtual_batch_size={size!r}."
        )
    return int(size)


def _checked_clipping(clipping):
    if clipping is None:
        return None
    if not isinstance(clipping, Mapping) or set(clipping) - set(_CLIPPING_KEYS):
        raise ValueError(
            f"Received invalid keys for `renorm_clipping`: {clipping!r}. It is None or a "
            f"dictionary with any of the keys {list(_CLIPPING_KEYS)}."
        )
    for key, value in clipping.items():
        if value is not None and (not isinstance(value, numbers.Real) or math.isnan(value)):
            raise ValueError(
                f"{key} in `renorm_clipping` is a number, or None for no bound. "
                f"Received: {key}={value!r}."
            )
    rmin, rmax, dmax = (clipping.get(key) for key in ("rmin", "rmax", "dmax"))
    if rmin is not None and rmax is not None and rmax < rmin:
        raise ValueError(
            "rmax should be at least rmin in `renorm_clipping`. "
            f"Received: rmax={rmax}, rmin={rmin}."
        )
    if dmax is not None and dmax < 0:
        raise ValueError(
            f"dmax should be non-negative in `renorm_clipping`. Received: dmax={dmax}."
        )
    return {key: None if value is None else float(value) for key, value in clipping.items()}


def _check_mask(mask, inputs):
    expected = tuple(inputs.shape)[:-1]
    received = tuple(mask.shape)
    fits = len(received) == len(expected) and all(
        m in (1, None) or size is None or m == size
        for m, size in zip(received, expected, strict=True)
    )
    if not fits:
        raise ValueError(
            "The mask has one entry for each position of all axes of the input but the last (or "
            f"size 1, to broadcast): expected a mask of shape {expected}. Received: mask of shape "
            f"{received}, input of shape {tuple(inputs.shape)}."
        )
