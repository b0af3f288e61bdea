"""Exported models: no more operations than with Keras's layer, and the same outputs."""

import keras
import pytest

from . import export_formats, exported_models

# Keras's exporters and the converters warn about their own code.
pytestmark = pytest.mark.filterwarnings("ignore")

TOLERANCES = {"float32": 1e-5, "mixed_float16": 2e-3, "mixed_bfloat16": 2e-2}


def _params():
    for kind in export_formats.FORMATS:
        for case in exported_models.CASES:
            if kind.mixed or case.dtype == "float32":
                marks = [] if case.name in exported_models.QUICK else [pytest.mark.full]
                yield pytest.param(kind, case, id=f"{kind.name}-{case.name}", marks=marks)


def _require(kind):
    if kind.missing():
        pytest.skip(f"{kind.name} needs {', '.join(kind.missing())} (the extra `exports`)")


@pytest.mark.parametrize(("kind", "case"), list(_params()))
def test_no_more_operations_than_kerass(tmp_path, assert_close, kind, case):
    _require(kind)
    x = case.data()
    keras_model, model = (case.build(ours) for ours in (False, True))
    try:
        (tmp_path / "keras").mkdir()
        theirs = kind.export(keras_model, x, tmp_path / "keras")
    except Exception as error:
        if case.name in exported_models.QUICK:
            raise
        pytest.skip(f"Keras's own layer cannot be exported: {error!r:.300}")
    (tmp_path / "ours").mkdir()
    ours = kind.export(model, x, tmp_path / "ours")
    for program, operations in ours.operations.items():
        allowed = theirs.operations[program]
        assert len(operations) <= len(allowed), f"{program}: {operations}, but Keras's: {allowed}"
    y = keras.ops.convert_to_numpy(model(x, training=False))
    tolerance = TOLERANCES[case.dtype]
    assert_close(ours.outputs, y, tolerance)
    if case.keras_options is None:
        assert_close(ours.outputs, theirs.outputs, tolerance)
