"""benchmarks/architectures.py knows all networks with batch norms and measures one of them."""

import importlib.util
import inspect
from pathlib import Path

import keras
import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "architectures.py"
SPEC = importlib.util.spec_from_file_location("architectures", PATH)
architectures = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(architectures)


def test_every_application_with_batch_norms_is_listed():
    names = {name for name, _ in inspect.getmembers(keras.applications, inspect.isfunction)}
    listed = {name for family in architectures.APPLICATIONS for name in family}
    without_batch_norms = {name for name in names if name.startswith(("VGG", "ConvNeXt"))}
    assert names == listed | without_batch_norms


@pytest.mark.full
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the script exports with TensorFlow"
)
def test_one_network():
    row = architectures.measure("MobileNetV3Small")
    assert row["norms"] == row["folded"] == 34
    assert row["swapped_by"] == "from_keras"
    for column in ("converted", "fold_error", "exported"):  # in float64
        assert 0 <= row[column] < 1e-10
    assert 0 <= row["recalibrated"] < 1e-3
    assert row["step"] < 2 * row["keras_step"]
