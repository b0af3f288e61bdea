"""Runs those of Keras's own tests that create a batch norm, with `BatchNorm` in place of its class.

The tests come with the Keras wheel. Tests of exports need packages that this project does not
install: ai-edge-litert, onnxruntime (with tf2onnx, jax2onnx or onnxscript), openvino and tf_keras.
Without its package, a test is skipped. The tests of `keras.applications` that download weights are
left out.
"""

import collections
import importlib
import importlib.util
import re

import keras
import numpy as np
import pytest

from kerasbn import BatchNorm

created = collections.Counter()  # batch norms, by test class


class OnBatchNorm:
    """Puts `BatchNorm` in the place of Keras's class, and counts the layers that a test creates."""

    @pytest.fixture(autouse=True)
    def batch_norm_in_place_of_keras_layer(self, monkeypatch):
        test_class, init = type(self), BatchNorm.__init__
        created[test_class] += 0

        def counted(self, *args, **kwargs):
            created[test_class] += 1
            init(self, *args, **kwargs)

        monkeypatch.setattr(BatchNorm, "__init__", counted)
        for module in (importlib.import_module("keras.src.layers"), keras.layers):
            monkeypatch.setattr(module, "BatchNormalization", BatchNorm)
        np.random.seed(0)


def on_batch_norm(module, name, chosen=""):
    """Makes a test class that runs Keras's tests on `BatchNorm`.

    Args:
        module: Module of the test class, in `keras.src`.
        name: Name of the test class.
        chosen: Regular expression for the start of the names, after `test_`, of the tests to run.
            They should be tests that create a batch norm. Default: all.
    """
    try:
        keras_class = getattr(importlib.import_module(f"keras.src.{module}"), name)
    except ImportError as error:

        @pytest.mark.skip(reason=f"cannot import Keras's {module}: {error}")
        class Skipped:
            def test_import(self):
                pass

        return Skipped
    tests = [test for test in dir(keras_class) if test.startswith("test_")]
    left_out = [test for test in tests if not re.match(f"test_(?:{chosen})", test)]
    return type(f"On{name}", (OnBatchNorm, keras_class), dict.fromkeys(left_out))


TestLayer = on_batch_norm("layers.normalization.batch_normalization_test", "BatchNormalizationTest")
TestWrapper = on_batch_norm("layers.core.wrapper_test", "WrapperTest", "wrapper_basics")
TestTrainer = on_batch_norm("trainers.trainer_test", "TestTrainer", "symbolic_build")
TestDTypePolicyMap = on_batch_norm(
    "dtype_policies.dtype_policy_map_test", "DTypePolicyMapTest", "basic_usage"
)

TestSavedModel = on_batch_norm(
    "export.saved_model_test", "ExportSavedModelTest", "standard_model_export"
)
TestSavedModelOptions = pytest.mark.full(
    on_batch_norm(
        "export.saved_model_test", "ExportSavedModelTest", "input_signature|jax_specific_kwargs"
    )
)
TestExportArchive = on_batch_norm(
    "export.saved_model_test",
    "ExportArchiveTest",
    "layer_export|model_export_method|(?:jax_)?endpoint|jax_multi|export_saved_model_errors|"
    "low_level_model_export_(?:sequential|functional|subclass|with_alias)",
)
TestLiteRTWithoutInterpreter = on_batch_norm("export.litert_test", "ExportLitertBasicTest")
TestLiteRT = on_batch_norm(
    "export.litert_test",
    "ExportLitertInterpreterTest",
    "standard_model_export|multi_output|export_with_(?!multiple_kwargs)|export_subclass",
)
TestOpenVINO = on_batch_norm(
    "export.openvino_test", "ExportOpenVINOTest", "standard_model_export_(?!lstm)"
)
TestTorchExport = on_batch_norm(
    "export.torch_test",
    "ExportTorchTest",
    "standard_model_export_(?!lstm)|multi_output|model_with_multiple_inputs|export_error|"
    "export_invalid|export_with_(?:batch|custom|verbose)",
)
TestONNX = pytest.mark.skipif(
    keras.backend.backend() == "jax" and importlib.util.find_spec("jax2onnx") is None,
    reason="the export from JAX needs jax2onnx",
)(on_batch_norm("export.onnx_test", "ExportONNXTest", "export_with|standard_model_export_(?!lstm)"))

_LEGACY = "legacy.saving.legacy_h5_format_test"
TestLegacyWeights = on_batch_norm(_LEGACY, "LegacyH5WeightsTest", "sequential|functional")
TestLegacyModels = on_batch_norm(_LEGACY, "LegacyH5WholeModelTest", "sequential|functional")
TestLegacyModelsOfKeras2 = on_batch_norm(
    _LEGACY, "LegacyH5BackwardsCompatTest", "sequential|functional"
)
TestLegacyFolders = on_batch_norm(_LEGACY, "DirectoryCreationTest")

# The smallest network of each family that has batch norms. All their sizes would take an hour.
_FAMILIES = (
    "DenseNet121|EfficientNetB0|EfficientNetV2B0|InceptionResNetV2|InceptionV3|MobileNet|"
    "MobileNetV2|MobileNetV3Small|NASNetMobile|ResNet50|ResNet50V2|Xception"
)
TestOneApplication = on_batch_norm(
    "applications.applications_test",
    "ApplicationsTest",
    "application_notop_custom_input_shape_MobileNetV3Small_channels_last",
)
TestApplications = pytest.mark.full(
    on_batch_norm(
        "applications.applications_test",
        "ApplicationsTest",
        rf"application_(?!base).*(?<![A-Za-z0-9])(?:{_FAMILIES})_channels_",
    )
)


def test_the_tests_run_are_kerass():
    names = [name for name in dir(TestLayer) if name.startswith("test_")]
    assert len(names) >= 20


def test_every_class_used_batch_norm():
    """The last test: a class without a `BatchNorm` lost the swap or was chosen wrongly."""
    assert all(created.values()), created
