"""Batch normalization for Keras: a complete, exact and fast layer."""

from kerasbn import folding, reference
from kerasbn.batch_norm import BatchNorm
from kerasbn.tools import fold, from_keras, recalibrate, to_keras

__version__ = "0.1.0"

__all__ = ["BatchNorm", "fold", "folding", "from_keras", "recalibrate", "reference", "to_keras"]
