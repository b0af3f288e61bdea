"""Batch normalization for Keras: a complete, exact and fast layer."""

from kerasbn import reference
from kerasbn.batch_norm import BatchNorm

__version__ = "0.1.0"

__all__ = ["BatchNorm", "reference"]
