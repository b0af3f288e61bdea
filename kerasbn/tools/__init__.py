"""Tools for models with batch norm: fold, recalibrate, diagnose, freeze, convert, load weights."""

from kerasbn.tools._models import batch_norms
from kerasbn.tools.conversion import from_keras, to_keras
from kerasbn.tools.diagnosis import diagnose
from kerasbn.tools.folding import fold
from kerasbn.tools.freezing import freeze, unfreeze
from kerasbn.tools.recalibration import recalibrate
from kerasbn.tools.weights import load_weights

__all__ = [
    "batch_norms",
    "diagnose",
    "fold",
    "freeze",
    "from_keras",
    "load_weights",
    "recalibrate",
    "to_keras",
    "unfreeze",
]
