"""The native kernel as JAX operations, differentiable in forward and reverse mode, to any order.

JAX transposes the derivative of y to get gradients. So the derivative is a primitive, and its
transpose is the primitive of the gradients. On the CPU, the forward pass and the gradients are
native calls. The plain formula does the rest: other platforms, forward-mode derivatives,
derivatives of higher order, and `jax.vmap` of a derivative.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from kerasbn.kernels import jax_plain, native
from kerasbn.kernels.jax_plain import Statistics
from kerasbn.moments import Moments, count_values

_HANDLERS = ("kerasbn_xla_forward", "kerasbn_xla_backward")


def load(path: Path) -> native.Library | str:
    """Loads the library and registers its functions with XLA. Returns the reason if that fails."""
    try:
        symbols = ctypes.CDLL(str(path))
        jax.devices("cpu")  # a failed registration raises an error only if the backend runs
        for name in _HANDLERS:
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(symbols, name)), "cpu")
    except (OSError, AttributeError, RuntimeError) as error:
        return f"{path} could not be loaded: {error}"
    return native.Library(symbols)


def threads() -> int:
    """The number of threads that the user has set for XLA, or 0."""
    number = os.environ.get("NPROC", "")
    return int(number) if number.isdecimal() else 0


def suits(x: jax.Array, axes: tuple[int, ...]) -> bool:
    """Whether the native kernel can normalize x over `axes`.

    The other axes, those of the features, must be neighbours. XLA cannot divide a native call among
    several CPU devices, which may belong to several processes.
    """
    kept = [a for a in range(x.ndim) if a not in axes]
    return (
        x.dtype in (jnp.float32, jnp.float64)
        and bool(kept)
        and kept[-1] - kept[0] + 1 == len(kept)
        and _has_one_cpu()
    )


def _has_one_cpu():
    try:
        return len(jax.devices("cpu")) == 1
    except RuntimeError:  # the user chose other platforms, as with JAX_PLATFORMS=cuda
        return False


def batch_normalize(
    x: jax.Array, gamma: jax.Array, beta: jax.Array, *, axes: tuple[int, ...], epsilon: float
) -> tuple[jax.Array, Moments]:
    """See `kerasbn.kernels.batch_normalize`."""
    y, mean, s = _forward(axes, epsilon, x, gamma, beta)
    count = count_values(x, axes, None)
    return y, Moments(jax.lax.stop_gradient(mean), jax.lax.stop_gradient(s.variance), count)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _forward(axes, epsilon, x, gamma, beta):
    """Returns y, the mean and the statistics."""

    def native(x, gamma, beta):
        results = [jax.ShapeDtypeStruct(t.shape, t.dtype) for t in (x, *[gamma] * 4)]
        call = jax.ffi.ffi_call("kerasbn_xla_forward", results, vmap_method="sequential")
        y, mean, variance, pivot, delta = call(x, gamma, beta, jnp.asarray(epsilon, x.dtype))
        return y, mean, Statistics(pivot, delta, variance)

    def plain(x, gamma, beta):
        s = jax_plain.statistics(x, axes)
        return jax_plain.output(x, gamma, beta, s, epsilon), s.pivot + s.delta, s

    return jax.lax.platform_dependent(x, gamma, beta, cpu=native, default=plain)


@_forward.defjvp
def _forward_jvp(axes, epsilon, primals, tangents):
    x, gamma, beta = primals
    y, mean, s = _forward(axes, epsilon, x, gamma, beta)
    constant = [jax.lax.stop_gradient(v) for v in s]
    dy = _derivative.bind(*tangents, x, gamma, *constant, axes=axes, epsilon=epsilon)
    none = jnp.zeros_like(mean)  # the moments carry no gradient
    return (y, mean, s), (dy, none, Statistics(none, none, none))


# dx, dgamma, dbeta, x, gamma, pivot, delta, variance -> dy, linear in the first three
_derivative = Primitive("kerasbn_derivative")
# dy, x, gamma, pivot, delta, variance -> dx, dgamma, dbeta: the transpose of the derivative
_gradients = Primitive("kerasbn_gradients")
_gradients.multiple_results = True


def _plain_derivative(t, dgamma, dbeta, x, gamma, *s, axes, epsilon):
    return jax_plain.derivative(axes, epsilon, (t, dgamma, dbeta), x, gamma, Statistics(*s))


def _plain_gradients(dy, x, gamma, *s, axes, epsilon):
    def derivative(t, dgamma, dbeta):
        return _plain_derivative(t, dgamma, dbeta, x, gamma, *s, axes=axes, epsilon=epsilon)

    return list(jax.linear_transpose(derivative, x, gamma, gamma)(dy))


def _native_gradients(dy, x, gamma, *s, axes, epsilon):
    results = [jax.ShapeDtypeStruct(t.shape, t.dtype) for t in (x, gamma, gamma)]
    call = jax.ffi.ffi_call("kerasbn_xla_backward", results)
    return call(dy, x, gamma, *s, jnp.asarray(epsilon, x.dtype))


def _with_fresh_statistics(plain, linear):
    """The plain formula as a function of only its linear arguments, x and gamma.

    It recomputes the statistics, so that further derivatives include their dependence on x.
    """

    def function(*arguments, axes, epsilon):
        x = arguments[linear]
        s = jax_plain.statistics(x, axes)
        return plain(*arguments, *s, axes=axes, epsilon=epsilon)

    return function


def _define(primitive, plain, linear):
    """Gives a primitive its rules, except for its transpose.

    Args:
        primitive: Primitive to define.
        plain: Plain formula with the same arguments.
        linear: Number of leading arguments in which the primitive is linear. The arguments after
            them are x, gamma and the statistics.
    """
    fresh = _with_fresh_statistics(plain, linear)
    count = linear + 2  # arguments of `fresh`

    @functools.cache
    def compiled(axes, epsilon):
        return jax.jit(functools.partial(primitive.bind, axes=axes, epsilon=epsilon))

    def shapes(*arguments, axes, epsilon):
        x, gamma = arguments[linear : linear + 2]
        return [x, gamma, gamma] if primitive.multiple_results else x

    def differentiate(primals, tangents, **settings):
        directions = tuple(ad.instantiate_zeros(t) for t in tangents[:count])
        return jax.jvp(functools.partial(fresh, **settings), tuple(primals[:count]), directions)

    def batch(arguments, axes_of_batch, **settings):
        # `fresh`, because an outer transformation may differentiate the result.
        function = functools.partial(fresh, **settings)
        results = jax.vmap(function, axes_of_batch[:count])(*arguments[:count])
        return results, [0] * len(results) if primitive.multiple_results else 0

    primitive.def_impl(lambda *arguments, **settings: compiled(**settings)(*arguments))
    primitive.def_abstract_eval(shapes)
    ad.primitive_jvps[primitive] = differentiate
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(plain, primitive.multiple_results))


def _transpose_derivative(dy, *arguments, **settings):
    *linear, x, gamma, pivot, delta, variance = arguments
    dy = ad.instantiate_zeros(dy)
    gradients = _gradients.bind(dy, x, gamma, pivot, delta, variance, **settings)
    pairs = zip(gradients, linear, strict=True)
    return [g if ad.is_undefined_primal(t) else None for g, t in pairs] + [None] * 5


def _transpose_gradients(upstream, _, x, gamma, *s, **settings):
    directions = [ad.instantiate_zeros(u) for u in upstream]
    return [_derivative.bind(*directions, x, gamma, *s, **settings)] + [None] * 5


_define(_derivative, _plain_derivative, linear=3)
_define(_gradients, _plain_gradients, linear=1)
ad.primitive_transposes[_derivative] = _transpose_derivative
ad.primitive_transposes[_gradients] = _transpose_gradients
mlir.register_lowering(_gradients, mlir.lower_fun(_native_gradients, True), platform="cpu")
