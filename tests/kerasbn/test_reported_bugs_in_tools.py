"""Bugs that users reported in tools, converters and saved files, tried on this layer and its tools.

See test_reported_bugs.py.
"""

import keras
import numpy as np
import pytest

import kerasbn
from kerasbn import BatchNorm

EPSILON = 1e-3
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the export is TensorFlow's"
)


def with_random_weights(model, seed=0):
    """Gives all weights random values. The kernels of convolutions have no order to rely on."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        low = 0.5 if "variance" in weight.name else -1.0
        weight.assign(generator.uniform(low, 2.0, weight.shape))
    return model


def scale_and_shift(norm):
    """The scale and the shift of a batch norm in inference, in float64."""
    weights = (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    gamma, beta, mean, variance = (np.float64(keras.ops.convert_to_numpy(w)) for w in weights)
    scale = gamma / np.sqrt(variance + EPSILON)
    return scale, beta - mean * scale


class TestFolding:
    @pytest.mark.parametrize(
        "layer",
        [
            keras.layers.Conv2D(3, 3, use_bias=False),
            keras.layers.Conv2D(3, 3, dilation_rate=2, padding="same"),
            keras.layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
            keras.layers.DepthwiseConv2D(3),
        ],
        ids=lambda layer: layer.name,
    )
    def test_convolutions(self, assert_close, layer):
        """The folded bias is wrong, or nothing is folded.

        tenstorrent/tt-metal#5317 (without a bias), tensorflow/tensorflow#50172 (dilated),
        PINTO0309/onnx2tf#16 (transposed), plaidml/plaidml#1940 (depthwise).
        """
        layer = type(layer).from_config(layer.get_config())
        model = keras.Sequential([keras.Input((8, 8, 3)), layer, BatchNorm()])
        with_random_weights(model)
        folded = kerasbn.fold(model)
        assert [type(each) for each in folded.layers] == [type(layer)]
        x = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype("float32")
        scale, shift = scale_and_shift(model.layers[-1])
        before = np.float64(keras.ops.convert_to_numpy(layer(x)))
        assert_close(folded(x), before * scale + shift)

    def test_gammas_of_any_sign(self, assert_close):
        """LeelaChessZero/lc0#779: the folded network is wrong if a gamma is negative or 0."""
        norm = BatchNorm(gamma_initializer=lambda shape, dtype: keras.ops.array([-1.5, 0.0, 2.0]))
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), norm])
        norm.moving_mean.assign([1.0, 2.0, 3.0])
        x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
        kernel = np.float64(keras.ops.convert_to_numpy(model.layers[0].kernel))
        scale, shift = scale_and_shift(norm)
        assert_close(kerasbn.fold(model)(x), x @ kernel * scale + shift)

    def test_shared_batch_norm(self, assert_close):
        """qualcomm/aimet#3506: folding needs a repair for batch norms with shared statistics."""
        inputs, norm = keras.Input((4,)), BatchNorm()
        dense = [keras.layers.Dense(3), keras.layers.Dense(3)]
        model = keras.Model(inputs, [norm(layer(inputs)) for layer in dense])
        with_random_weights(model)
        x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
        scale, shift = scale_and_shift(norm)
        for y, layer in zip(kerasbn.fold(model)(x), dense, strict=True):
            kernel, bias = layer.get_weights()
            assert_close(y, (np.float64(x) @ kernel + bias) * scale + shift)


class TestRecalibration:
    def test_all_batches_count(self, assert_close):
        """Lightning-AI/pytorch-lightning#14866: weight averaging keeps the last batch alone."""
        x = np.random.default_rng(0).normal(3, 2, (50, 4)).astype("float32")
        x += np.arange(50, dtype="float32")[:, None]  # the batches differ
        model = keras.Sequential([keras.Input((4,)), BatchNorm(momentum=0.0)])
        kerasbn.recalibrate(model, x, batch_size=16)
        assert_close(model.layers[0].moving_mean, x.mean(0))
        squares = sum(len(b) * b.var(0) for b in (x[i : i + 16] for i in range(0, 50, 16)))
        assert_close(model.layers[0].moving_variance, squares / (50 - 4))

    def test_subtracted_weights(self, assert_close):
        """timgaripov/swa#8: averaging of checkpoints leaves negative variances."""
        x = np.random.default_rng(0).normal(3, 2, (64, 4)).astype("float32")
        model = keras.Sequential([keras.Input((4,)), BatchNorm()])
        model.layers[0].moving_variance.assign(np.full(4, -9.7))
        kerasbn.recalibrate(model, x, batch_size=64)
        assert_close(model.layers[0].moving_variance, x.var(0, ddof=1))


class TestFiles:
    def test_weights_of_a_partly_frozen_model(self, assert_close, tmp_path):
        """keras-team/keras#12470, tensorflow/tensorflow#37541: the order of weights is mixed up."""

        def model():
            inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), BatchNorm()])
            return keras.Sequential([keras.Input((4,)), inner, BatchNorm(), keras.layers.Dense(2)])

        saved = with_random_weights(model())
        saved.layers[0].trainable = False
        saved.save_weights(tmp_path / "frozen.weights.h5")
        loaded = model()
        loaded.load_weights(tmp_path / "frozen.weights.h5")
        for norm, expected in (
            (loaded.layers[0].layers[1], saved.layers[0].layers[1]),
            (loaded.layers[1], saved.layers[1]),
        ):
            for name in ("gamma", "beta", "moving_mean", "moving_variance"):
                assert_close(getattr(norm, name), getattr(expected, name))

    def test_nested_model(self, assert_close, tmp_path):
        """keras-team/keras#10784: a model that contains a model with batch norms does not load."""
        inputs = keras.Input((6, 2))
        norm = BatchNorm()
        inner = keras.Model(inputs, norm(keras.layers.Conv1D(3, 3)(inputs)))
        outer = keras.Input((6, 2))
        model = with_random_weights(keras.Model(outer, keras.layers.Flatten()(inner(outer))))
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        x = np.random.default_rng(0).normal(size=(3, 6, 2)).astype("float32")
        scale, shift = scale_and_shift(norm)
        before = np.float64(keras.ops.convert_to_numpy(inner.layers[1](x)))
        assert_close(loaded(x), (before * scale + shift).reshape(3, -1))

    def test_a_converter_that_knows_keras_classes_alone(self, assert_close):
        """apple/coremltools#139: a batch norm of another package is "not supported"."""
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), BatchNorm()])
        with_random_weights(model)
        converted = kerasbn.to_keras(model)
        assert all(type(layer).__module__.startswith("keras.") for layer in converted.layers)
        x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
        assert_close(converted(x), model(x))


@on_tensorflow
class TestExports:
    @pytest.fixture
    def volumes(self):
        """A model of 5-D inputs, the inputs, and the true outputs."""
        norm = BatchNorm()
        model = with_random_weights(keras.Sequential([keras.Input((2, 3, 4, 5)), norm]))
        x = np.random.default_rng(0).normal(size=(2, 2, 3, 4, 5)).astype("float32")
        scale, shift = scale_and_shift(norm)
        return model, x, x * scale + shift

    def test_tflite_folds_the_batch_norm(self, assert_close):
        """tensorflow/tensorflow#25033: a multiplication and an addition remain after it."""
        import tensorflow as tf

        layers = [keras.layers.Conv2D(4, 3), BatchNorm(), keras.layers.ReLU()]
        model = with_random_weights(keras.Sequential([keras.Input((8, 8, 3), 1), *layers]))
        interpreter = tf.lite.Interpreter(
            model_content=tf.lite.TFLiteConverter.from_keras_model(model).convert(),
            experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_REF,
        )
        operations = [each["op_name"] for each in interpreter._get_ops_details()]
        assert operations == ["CONV_2D"]
        interpreter.allocate_tensors()
        x = np.random.default_rng(1).normal(size=(1, 8, 8, 3)).astype("float32")
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        scale, shift = scale_and_shift(layers[1])
        before = np.float64(keras.ops.convert_to_numpy(layers[0](x)))
        found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        assert_close(found, np.maximum(before * scale + shift, 0))

    def test_openvino(self, assert_close, volumes, tmp_path):
        """openvinotoolkit/openvino#21247: the conversion fails for 5-D inputs."""
        openvino = pytest.importorskip("openvino")
        model, x, expected = volumes
        model.export(tmp_path / "saved", verbose=False)
        converted = openvino.convert_model(tmp_path / "saved", input=list(x.shape))
        compiled = openvino.compile_model(converted, "CPU")
        assert_close(compiled(x)[0], expected)

    def test_onnx(self, assert_close, volumes, tmp_path):
        """microsoft/onnxruntime#3873, onnx/tensorflow-onnx#1078: other outputs, or NaN."""
        runtime = pytest.importorskip("onnxruntime")
        pytest.importorskip("tf2onnx")
        model, x, expected = volumes
        path = str(tmp_path / "model.onnx")
        model(x)  # Keras exports to ONNX only models that were called
        model.export(path, format="onnx", verbose=False)
        session = runtime.InferenceSession(path)
        (y,) = session.run(None, {session.get_inputs()[0].name: x})
        assert_close(y, expected)
