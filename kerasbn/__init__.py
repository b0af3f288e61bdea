"""Batch normalization for Keras: a complete, exact and fast layer."""

from kerasbn import reference
from kerasbn.batch_norm import BatchNorm
from kerasbn.conversion import from_keras, to_keras
from kerasbn.folding import fold
from kerasbn.recalibration import recalibrate

__version__ = "0.1.0"

__all__ = ["BatchNorm", "fold", "from_keras", "recalibrate", "reference", "to_keras"]
