"""`freeze` and `unfreeze`: stop the training of batch norms in place, and start it again."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import keras

from kerasbn._keras_private import all_layers
from kerasbn.batch_norm import BatchNorm
from kerasbn.tools._models import (
    batch_norms,
    check_weights,
    check_where,
    warn_none_chosen,
    warn_nothing_to_do,
)
from kerasbn.tools._wording import counted, described, listed

# Frozen values of all settings. Setting `trainable` of a layer also sets that of gamma and beta, so
# it comes first.
_FROZEN = {"statistics": "frozen", "trainable": False, "gamma": False, "beta": False}
# The settings that `freeze` changed, with their values before, by layer.
_BEFORE: weakref.WeakKeyDictionary[keras.Layer, dict[str, Any]] = weakref.WeakKeyDictionary()


def freeze(
    model: keras.Model,
    statistics: bool = True,
    affine: bool = False,
    *,
    where: Callable[[keras.Layer], bool] | None = None,
) -> None:
    """Freezes the batch norms of a model in place: their statistics, gamma and beta, or both.

    It reaches the batch norms at any depth that Keras tracks: in nested and subclassed models, in
    wrappers such as `TimeDistributed` and `Bidirectional`, in RNN cells and in custom layers. These
    are the settings that it changes:

        statistics    affine    BatchNorm                                  BatchNormalization
        True          False     statistics = "frozen"                      error
        True          True      statistics = "frozen", trainable = False   trainable = False
        False         True      trainable = False of gamma and beta        error

    With frozen statistics, a batch norm normalizes with the moving averages in training too, and
    does not update them. `keras.layers.BatchNormalization` cannot train gamma and beta then.
    `kerasbn.from_keras` converts it to a `BatchNorm`, which can.

    `freeze` only adds to what is frozen, so a second call may freeze the rest. `unfreeze` undoes
    all calls. Files keep `statistics` and `trainable` of a layer. They do not keep `trainable` of
    gamma and beta, so after loading a model that was frozen with `statistics=False`, freeze it
    again. Setting `layer.trainable = True`, or that of a model around it, also ends this state.

    **Compiled models.** Compiled functions of `model` and of the models inside it are made again,
    so the change takes effect at the next `fit`, and in a callback at the next step. A compiled
    model *around* `model` is not reached. So pass the model that you train, and use `where` to
    choose its layers. Or compile the outer model again.

    With `affine=True`, fewer weights train. A used optimizer has state for each weight. JAX needs
    a new optimizer in this case, so `compile` the model again. A warning says so.

    Args:
        model: Built model of any kind.
        statistics: Whether to freeze the moving averages. Default `True`.
        affine: Whether to freeze gamma and beta. Default `False`.
        where: Function that takes a batch norm and returns whether to freeze it. Default `None`:
            every batch norm is frozen.

    Raises:
        ValueError: If the model is not built, if both arguments are false or one is not a bool, or
            if a `BatchNormalization` cannot be frozen in this way. Then nothing changes.

    Examples:
        >>> import keras, kerasbn
        >>> norm = kerasbn.BatchNorm()
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), norm])
        >>> kerasbn.freeze(model)
        >>> norm.statistics, len(norm.trainable_weights)
        ('frozen', 2)
        >>> kerasbn.unfreeze(model)
        >>> norm.statistics
        'auto'
    """
    _check_flags(statistics, affine)
    norms = _chosen(model, where)
    if not (statistics and affine):
        _check_separable(norms, statistics)
    with _compiled_again(model, norms):
        for norm in norms:
            _freeze_one(norm, statistics, affine)


def unfreeze(model: keras.Model, *, where: Callable[[keras.Layer], bool] | None = None) -> None:
    """Undoes `freeze`: batch norms get back the settings that they had before.

    It restores the settings that `freeze` changed: `statistics`, `trainable` of the layer, and
    `trainable` of gamma and beta. It changes nothing else. A layer that was frozen with
    `trainable=False` before `freeze` stays frozen. A setting that has been changed since `freeze`
    stays, too.

    Copies of a model, such as one loaded from a file, do not remember `freeze`. In these,
    `statistics="frozen"` becomes "auto". `trainable` stays, because it is unknown who set it. A
    warning names the layers that stay frozen for this reason.

    Compiled models are handled as in `freeze`. If more weights train than before, the model needs
    a new optimizer on every backend. A warning says so.

    Args:
        model: Built model of any kind.
        where: Function that takes a batch norm and returns whether to unfreeze it. Default `None`:
            every batch norm.

    Raises:
        ValueError: If the model is not built.
    """
    norms = _chosen(model, where)
    remembered = [norm for norm in norms if norm in _BEFORE]
    with _compiled_again(model, norms) as changed:
        for norm in norms:
            _unfreeze_one(norm)
    if norms and not remembered:
        _warn_unclear(model, norms, anything=bool(changed))


def _freeze_one(norm, statistics, affine):
    settings = []
    if statistics and isinstance(norm, BatchNorm):
        settings.append("statistics")
    if statistics and affine:
        settings.append("trainable")
    if affine:
        settings += [name for name in ("gamma", "beta") if _has(norm, name)]
    before = _BEFORE.setdefault(norm, {})
    for name in settings:
        value = _get(norm, name)
        if value != _FROZEN[name] or name not in before:
            before[name] = value
    for name in settings:
        _set(norm, name, _FROZEN[name])


def _unfreeze_one(norm):
    before = _BEFORE.pop(norm, {"statistics": "auto"})
    frozen = [name for name in _settings(norm) if _get(norm, name) == _FROZEN[name]]
    for name in frozen:
        if name in before:
            _set(norm, name, before[name])


def _settings(norm):
    """The names of the settings that this batch norm has."""
    return [name for name in _FROZEN if _has(norm, name)]


def _has(norm, name):
    return getattr(norm, name, None) is not None


def _get(norm, name):
    setting = getattr(norm, name)
    return setting.trainable if name in ("gamma", "beta") else setting


def _set(norm, name, value):
    if _get(norm, name) == value:
        return
    if name in ("gamma", "beta"):
        getattr(norm, name).trainable = value
    else:
        setattr(norm, name, value)


@contextlib.contextmanager
def _compiled_again(model, norms):
    """Makes compiled functions again after a change, and warns if an optimizer no longer fits.

    It yields a list that contains the changed batch norms after the `with` block.
    """
    models = [layer for layer in all_layers(model) if isinstance(layer, keras.Model)]
    trained = [_trained(each) for each in models]
    settings = [_values(norm) for norm in norms]
    changed: list[keras.Layer] = []
    yield changed
    changed += [n for n, before in zip(norms, settings, strict=True) if _values(n) != before]
    if not changed:
        return
    for each in models:
        for name in ("train", "test", "predict"):
            if getattr(each, f"{name}_function") is not None:
                getattr(each, f"make_{name}_function")(force=True)
    misfits = [
        each.name
        for each, before in zip(models, trained, strict=True)
        if _trained(each) != before and each.compiled and getattr(each.optimizer, "built", False)
    ]
    if misfits:
        warnings.warn(
            f"The trainable weights of model {listed(map(repr, misfits))} have changed, but its "
            "optimizer was made for the old ones. Before the next `fit`, compile the model with a "
            "new optimizer, such as model.compile(keras.optimizers.Adam(), ...).",
            stacklevel=4,
        )


def _values(norm):
    return {name: _get(norm, name) for name in _settings(norm)}


def _trained(model):
    return {id(weight) for weight in model.trainable_variables}


def _check_flags(statistics, affine):
    for name, value in (("statistics", statistics), ("affine", affine)):
        if not isinstance(value, bool):
            raise ValueError(
                f"Expected {name} to be True or False: whether to freeze this part of each batch "
                f"norm. Received: {name}={described(value)}. To choose layers, use `where`."
            )
    if not (statistics or affine):
        raise ValueError(
            "Expected statistics=True, affine=True, or both. Received: statistics=False, "
            "affine=False, which freezes nothing. To undo `freeze`, call kerasbn.unfreeze."
        )


def _chosen(model, where):
    check_where(where, "change")
    check_weights(model)
    norms = batch_norms(model)
    if not norms:
        warn_nothing_to_do(model, "BatchNorm or BatchNormalization", stacklevel=4)
        return []
    chosen = norms if where is None else [norm for norm in norms if where(norm)]
    if not chosen:
        warn_none_chosen(model, len(norms), stacklevel=4)
    return chosen


def _check_separable(norms, statistics):
    """Raises a ValueError if a batch norm of Keras should freeze one of its parts."""
    keras_norms = [norm for norm in norms if not isinstance(norm, BatchNorm)]
    if not keras_norms:
        return
    names = listed(repr(norm.name) for norm in keras_norms)
    part, other = ("statistics", "affine") if statistics else ("affine", "statistics")
    raise ValueError(
        f"Expected batch norms that can freeze one part alone. Received: {part}=True, "
        f"{other}=False, and {counted(len(keras_norms), 'keras.layers.BatchNormalization')}: "
        f"{names}. Keras's layer can only freeze its statistics together with gamma and beta. "
        "Convert the model first with kerasbn.from_keras, or freeze both: "
        "kerasbn.freeze(model, affine=True)."
    )


def _warn_unclear(model, norms, anything):
    fixed = [norm.name for norm in norms if not norm.trainable]
    if fixed:
        warnings.warn(
            f"{counted(len(fixed), 'batch norm')} of model '{model.name}' with trainable=False "
            f"may still be frozen, because `freeze` was not called on this copy of the model: "
            f"{listed(fixed)}. To train them, set layer.trainable = True.",
            stacklevel=3,
        )
    elif not anything:
        warnings.warn(
            f"`freeze` has frozen no batch norm of model '{model.name}', which stays unchanged.",
            stacklevel=3,
        )
