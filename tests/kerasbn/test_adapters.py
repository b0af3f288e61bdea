"""The private APIs that kerasbn uses still exist and do what it needs."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasbn
from kerasbn import _keras_private

GONE = "{api} is gone or works differently. Look for a replacement and change only {adapter}."


def exists(holder, name, api, adapter):
    assert hasattr(holder, name), GONE.format(api=api, adapter=adapter)


class TestAllLayers:
    ADAPTER = "kerasbn._keras_private.all_layers"

    def test_the_private_api_exists(self):
        exists(keras.Layer, "_flatten_layers", "Keras's Layer._flatten_layers", self.ADAPTER)

    def test_layers_in_wrappers_and_blocks_are_found_once(self):
        class Block(layers.Layer):
            def __init__(self):
                super().__init__()
                self.parts = [layers.Dense(2), {"norm": norm}]

        norm = kerasbn.BatchNorm()
        block, wrapper = Block(), layers.TimeDistributed(norm)
        model = keras.Sequential([keras.Sequential([block]), wrapper])
        found = _keras_private.all_layers(model)
        message = GONE.format(api="Keras's Layer._flatten_layers", adapter=self.ADAPTER)
        assert found[0] is model, message
        for layer in (block, block.parts[0], wrapper, norm):
            assert sum(other is layer for other in found) == 1, message


class TestOverridesCall:
    MESSAGE = GONE.format(
        api="The module name of Keras's functional models",
        adapter="kerasbn._keras_private.overrides_call",
    )

    def test_keras_models_do_not(self):
        class Renamed(keras.Model):
            pass

        x = keras.Input((3,))
        for model in (keras.Sequential([x]), keras.Model(x, 2 * x), Renamed(x, 2 * x)):
            assert not _keras_private.overrides_call(model), self.MESSAGE

    def test_subclasses_with_a_call_do(self):
        class Twice(keras.Model):
            def call(self, x, **kwargs):
                return 2 * super().call(x, **kwargs)

        class Stack(keras.Sequential):
            def call(self, x, **kwargs):
                return 2 * super().call(x, **kwargs)

        x = keras.Input((3,))
        for model in (Twice(x, 2 * x), Stack([x])):
            assert _keras_private.overrides_call(model), self.MESSAGE


class TestReplacedCall:
    MESSAGE = GONE.format(
        api="Keras's look-up of `call` on the instance of a layer",
        adapter="kerasbn._keras_private.replaced_call",
    )

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_models_run_the_replacement(self, wrapped):
        norm = kerasbn.BatchNorm()
        outer = layers.TimeDistributed(norm) if wrapped else norm
        x = keras.Input((3, 4))
        model = keras.Model(x, outer(x))
        ones = np.ones((2, 3, 4), "float32")
        before = keras.ops.convert_to_numpy(model(ones))

        def ten_times(inputs, training=None, mask=None):
            return 10.0 * inputs

        with _keras_private.replaced_call(norm, ten_times):
            replaced = keras.ops.convert_to_numpy(model(ones))
        np.testing.assert_array_equal(replaced, 10 * ones, err_msg=self.MESSAGE)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(model(ones)), before)

    def test_an_error_ends_the_replacement(self):
        norm = kerasbn.BatchNorm()
        with pytest.raises(RuntimeError), _keras_private.replaced_call(norm, lambda x: x):
            raise RuntimeError
        assert "call" not in vars(norm)


class TestWritesLegacyFile:
    MESSAGE = GONE.format(
        api="Keras's global attribute `use_legacy_config`",
        adapter="kerasbn._keras_private.writes_legacy_file",
    )

    @pytest.mark.parametrize(("name", "expected"), [("m.h5", {True}), ("m.keras", {False})])
    @pytest.mark.filterwarnings("ignore")
    def test_it_knows_the_format(self, tmp_path, name, expected):
        found = set()

        class Asking(layers.Layer):
            def get_config(self):
                found.add(_keras_private.writes_legacy_file())
                return super().get_config()

        keras.Sequential([keras.Input((3,)), Asking()]).save(tmp_path / name)
        assert found == expected, self.MESSAGE
        assert not _keras_private.writes_legacy_file(), self.MESSAGE


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="an adapter for TensorFlow")
class TestCompiledByXla:
    ADAPTER = "kerasbn._tensorflow_private.compiled_by_xla"
    API = "TensorFlow's control_flow_util.GraphOrParentsInXlaContext"

    def test_the_private_api_exists(self):
        try:
            from tensorflow.python.ops import control_flow_util
        except ImportError:
            pytest.fail(GONE.format(api=self.API, adapter=self.ADAPTER))
        exists(control_flow_util, "GraphOrParentsInXlaContext", self.API, self.ADAPTER)

    @pytest.mark.parametrize(("compiled", "nested"), [(True, False), (True, True), (False, False)])
    def test_it_knows_what_xla_compiles(self, compiled, nested):
        import tensorflow as tf

        from kerasbn._tensorflow_private import compiled_by_xla

        found = []

        def ask(x):
            found.append(compiled_by_xla())
            return x + 1

        inner = tf.function(ask, autograph=False) if nested else ask
        tf.function(lambda x: inner(x), jit_compile=compiled, autograph=False)(tf.ones(2))
        assert found == [compiled], GONE.format(api=self.API, adapter=self.ADAPTER)

    def test_it_is_false_in_eager_mode(self):
        from kerasbn._tensorflow_private import compiled_by_xla

        assert not compiled_by_xla()


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="an adapter for PyTorch")
class TestTransformed:
    ADAPTER = "kerasbn._torch_private.transformed"

    def test_the_private_apis_exist(self):
        import torch
        from torch.autograd import forward_ad

        name = "_are_functorch_transforms_active"
        exists(torch._C, name, f"torch._C.{name}", self.ADAPTER)
        api = "torch.autograd.forward_ad._current_level"
        exists(forward_ad, "_current_level", api, self.ADAPTER)
        name, adapter = "is_legacy_batchedtensor", "kerasbn._torch_private.batched"
        exists(torch._C._functorch, name, f"torch._C._functorch.{name}", adapter)

    def test_it_knows_transforms_and_forward_mode(self):
        import torch
        from torch.autograd import forward_ad

        from kerasbn._torch_private import transformed

        found = []

        def ask(x):
            found.append(transformed())
            return x.sum()

        x = torch.ones(2, 3)
        torch.func.grad(ask)(x)
        torch.func.jvp(ask, (x,), (x,))
        torch.func.vmap(ask)(x)
        with forward_ad.dual_level():
            ask(x)
        assert found == [True] * 4
        assert not transformed()

    def test_it_knows_batches_of_gradients(self):
        import torch

        from kerasbn._torch_private import batched

        found = []
        x = torch.ones(3, requires_grad=True)
        y = x * 2
        y.register_hook(lambda dy: found.append(batched(dy)))
        torch.autograd.grad(y, x, torch.eye(3), is_grads_batched=True, retain_graph=True)
        torch.autograd.grad(y, x, torch.ones(3))
        assert found == [True, False]


class TestData:
    MESSAGE = GONE.format(
        api="Keras's module keras.src.trainers.data_adapters", adapter="kerasbn._keras_private"
    )

    def test_arrays_are_recognized(self):
        sparse = pytest.importorskip("scipy.sparse").eye(3)
        for array in (np.zeros(3), keras.ops.zeros(3), sparse):
            assert _keras_private.is_array(array), self.MESSAGE
        for other in ([1.0], "text", 3, None):
            assert not _keras_private.is_array(other), self.MESSAGE

    def test_structures_are_cut(self):
        x = {"a": np.arange(5.0), "b": (np.arange(10.0).reshape(5, 2),)}
        batches = list(_keras_private.cut_by_keras(x, 3))
        rows = [len(batch["b"][0]) for batch in batches]
        assert rows == [3, 2], self.MESSAGE
        last = keras.ops.convert_to_numpy(batches[1]["a"])
        np.testing.assert_array_equal(last, [3, 4], err_msg=self.MESSAGE)

    def test_a_py_dataset_yields_its_batches(self):
        class Two(keras.utils.PyDataset):
            def __len__(self):
                return 2

            def __getitem__(self, i):
                return np.full(3, i), np.zeros(3)

        batches = list(_keras_private.batches_of_py_dataset(Two(workers=2)))
        assert [x[0] for x, _ in batches] == [0, 1], self.MESSAGE


def test_remat_is_switched_off_and_on_again():
    adapter = "kerasbn._keras_private.without_remat"
    message = GONE.format(api="Keras's Layer._remat_mode", adapter=adapter)
    with keras.RematScope(mode="full"):
        layer = layers.Dense(2)
    mode = getattr(layer, "_remat_mode", None)
    assert mode is not None, message
    with _keras_private.without_remat([layer]):
        assert layer._remat_mode is None
    assert layer._remat_mode == mode


def test_rnns_call_stacked_cells_once_for_each_time_step():
    calls = []

    class Cell(layers.Layer):
        state_size = output_size = 4

        def call(self, x, states):
            calls.append(1)
            return x, [x]

    rnn = layers.RNN([Cell()], unroll=True)
    x = np.zeros((2, 3, 4), "float32")
    rnn(x)
    message = GONE.format(
        api="Keras's RNN._maybe_config_dropout_masks",
        adapter="kerasbn._keras_private.without_dropout_masks",
    )
    calls.clear()
    rnn(x)
    assert len(calls) == 4, f"Keras calls these cells once. Remove the adapter. {message}"
    calls.clear()
    with _keras_private.without_dropout_masks([rnn]):
        rnn(x)
    assert len(calls) == 3, message
    calls.clear()
    rnn(x)
    assert len(calls) == 4


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow needs it")
def test_map_calls_its_function_once_for_each_element():
    calls = []

    def both(each):
        calls.append(1)
        return {"sum": each["a"] + each["b"], "a": each["a"]}

    xs = {"a": np.arange(6.0).reshape(3, 2), "b": np.ones((3, 2))}
    adapter = "kerasbn._keras_private.map_without_extra_call"
    message = GONE.format(api="Keras's backend.core.map", adapter=adapter)
    expected = keras.ops.map(both, xs)
    assert len(calls) == 4, f"Keras calls the function once. Remove the adapter. {message}"
    calls.clear()
    with _keras_private.map_without_extra_call():
        found = keras.ops.map(both, xs)
    assert len(calls) == 3, message
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)
    calls.clear()
    keras.ops.map(both, xs)
    assert len(calls) == 4


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX raises an error itself")
class TestVectorized:
    """`vectorized` knows the tensors of a function that `keras.ops.vectorized_map` transforms."""

    @staticmethod
    def found(kind, in_graph):
        if keras.backend.backend() == "tensorflow":
            from kerasbn._tensorflow_private import vectorized
        else:
            from kerasbn._torch_private import vectorized

        answers = []
        outside = keras.ops.ones(3) * 2.0

        def run(x):
            inside = []

            def twice(row):
                inside.append({"row": 2.0 * row, "constant": 2.0 * outside}[kind])
                return inside[0] + row

            y = keras.ops.vectorized_map(twice, x)
            answers.append(vectorized([y * 2.0, *inside]))
            answers.append(vectorized([y * 2.0]))
            return y

        if in_graph:
            import tensorflow as tf

            run = tf.function(run, autograph=False)
        run(keras.ops.ones((2, 3)))
        return answers

    def test_in_eager_mode(self):
        adapter = f"kerasbn._{keras.backend.backend()}_private.vectorized"
        message = GONE.format(api="A private API of this backend", adapter=adapter)
        assert self.found("row", in_graph=False) == [True, False], message

    @pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="graphs of TensorFlow")
    def test_in_a_graph(self):
        adapter = "kerasbn._tensorflow_private.vectorized"
        api = "TensorFlow's PlaceholderWithDefault in tf.vectorized_map"
        message = GONE.format(api=api, adapter=adapter)
        assert self.found("row", in_graph=True) == [True, False], message
        assert self.found("constant", in_graph=True) == [False, False], message

    @pytest.mark.skipif(keras.backend.backend() != "torch", reason="transforms of PyTorch")
    def test_in_other_transforms(self):
        import torch

        from kerasbn._torch_private import vectorized

        found = []

        def ask(x):
            found.append(vectorized([x * 2.0]))
            return x.sum()

        x = torch.ones(2, 3)
        torch.func.vmap(torch.func.grad(ask))(x)
        torch.func.grad(lambda x: torch.func.vmap(ask)(x).sum())(x)
        torch.func.grad(ask)(x)
        assert found == [True, True, False]
