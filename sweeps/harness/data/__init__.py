"""Loads data sets by name and checks that they are what their name says.

load(name, data_dir) -> Dataset
"""

from sweeps.harness.data.dataset import DATASETS, PARABOLA, Dataset, DataSize
from sweeps.harness.data.loading import load

__all__ = ["DATASETS", "PARABOLA", "DataSize", "Dataset", "load"]
