"""Batch normalization for Keras: a complete, exact and fast layer."""

try:
    import keras as _keras  # noqa: F401
except ModuleNotFoundError as error:
    from kerasbn._missing_backend import explained

    raise explained(error) from None

from kerasbn import folding, reference
from kerasbn.batch_norm import BatchNorm
from kerasbn.tools import (
    diagnose,
    fold,
    freeze,
    from_keras,
    load_weights,
    recalibrate,
    to_keras,
    unfreeze,
)

__version__ = "0.1.0"

__all__ = [
    "BatchNorm",
    "diagnose",
    "fold",
    "folding",
    "freeze",
    "from_keras",
    "load_weights",
    "recalibrate",
    "reference",
    "to_keras",
    "unfreeze",
]
