"""Models that were trained first: the kernel of the training step is not in the exported file."""

import keras
import numpy as np
import pytest
from keras import layers

from kerasbn import BatchNorm

from . import export_formats

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def trained():
    """A model after a few training steps, with batch norms of both ranks that kernels differ in."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 8)),
            layers.Conv2D(8, 3),
            BatchNorm(momentum=0.5),
            layers.ReLU(),
            BatchNorm(momentum=0.5),
            layers.DepthwiseConv2D(3),
            BatchNorm(momentum=0.5),
            layers.Flatten(),
            layers.Dense(8),
            BatchNorm(momentum=0.5),
        ]
    )
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (32, 12, 12, 8)).astype("float32")
    model.fit(x, rng.normal(size=(32, 8)), batch_size=8, verbose=0)
    return model, x


@pytest.mark.parametrize("kind", export_formats.FORMATS, ids=lambda kind: kind.name)
def test_trained_model_exports_without_kernels(trained, tmp_path, assert_close, kind):
    if kind.missing():
        pytest.skip(f"{kind.name} needs {', '.join(kind.missing())} (the extra `exports`)")
    model, x = trained
    exported = kind.export(model, x, tmp_path)
    assert_close(exported.outputs, model.predict(x, verbose=0), 1e-5)
    for path in tmp_path.rglob("*"):
        content = b"" if path.is_dir() else path.read_bytes()
        assert b"KerasbnForward" not in content  # TensorFlow's native kernel
        assert b"kerasbn_xla_forward" not in content  # JAX's


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModel is TensorFlow's")
def test_no_function_of_a_saved_model_is_compiled_by_xla(trained, tmp_path):
    from tensorflow.core.protobuf import saved_model_pb2

    model, _ = trained
    model.export(tmp_path / "model", verbose=False)
    content = (tmp_path / "model" / "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    functions = graph.graph_def.library.function
    assert functions
    assert not [f.signature.name for f in functions if f.attr["_XlaMustCompile"].b]
