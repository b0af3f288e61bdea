"""Data sets by name: arrays in memory, checked, and never labelled with a name that is not theirs.

load(name, data_dir) -> Dataset: x_train, y_train, x_test, y_test
"""

from sweeps.harness.data.dataset import DATASETS, PARABOLA, Dataset
from sweeps.harness.data.loading import load

__all__ = ["DATASETS", "PARABOLA", "Dataset", "load"]
