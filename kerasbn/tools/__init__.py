"""Tools for models with batch norm: fold, recalibrate, freeze, convert and load weights."""

from kerasbn.tools._models import batch_norms
from kerasbn.tools.conversion import from_keras, to_keras
from kerasbn.tools.folding import fold
from kerasbn.tools.freezing import freeze, unfreeze
from kerasbn.tools.recalibration import recalibrate
from kerasbn.tools.weights import load_weights

__all__ = [
    "batch_norms",
    "fold",
    "freeze",
    "from_keras",
    "load_weights",
    "recalibrate",
    "to_keras",
    "unfreeze",
]
