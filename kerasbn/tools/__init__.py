"""Tools for models with batch norm: fold, recalibrate and convert."""

from kerasbn.tools._models import batch_norms
from kerasbn.tools.conversion import from_keras, to_keras
from kerasbn.tools.folding import fold
from kerasbn.tools.recalibration import recalibrate

__all__ = ["batch_norms", "fold", "from_keras", "recalibrate", "to_keras"]
