"""Tools for models with batch norm: fold, recalibrate, diagnose, convert and load weights."""

from kerasbn.tools._models import batch_norms
from kerasbn.tools.conversion import from_keras, to_keras
from kerasbn.tools.diagnosis import diagnose
from kerasbn.tools.folding import fold
from kerasbn.tools.recalibration import recalibrate
from kerasbn.tools.weights import load_weights

__all__ = [
    "batch_norms",
    "diagnose",
    "fold",
    "from_keras",
    "load_weights",
    "recalibrate",
    "to_keras",
]
