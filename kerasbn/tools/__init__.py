"""Tools for models with batch norm: fold, recalibrate, convert and load weights."""

from kerasbn.tools._models import batch_norms
from kerasbn.tools.conversion import from_keras, to_keras
from kerasbn.tools.folding import fold
from kerasbn.tools.recalibration import recalibrate
from kerasbn.tools.weights import load_weights

__all__ = ["batch_norms", "fold", "from_keras", "load_weights", "recalibrate", "to_keras"]
