"""The formats that Keras models are exported to: the operations in a file, and its outputs."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np


class Exported(NamedTuple):
    """An exported model.

    Attributes:
        operations: Names of the operations that compute something, with repetitions. For each
            counted program: the file, or the graph that a runtime makes from it.
        outputs: Outputs of the exported model.
    """

    operations: dict[str, list[str]]
    outputs: np.ndarray


class Format(NamedTuple):
    """A format.

    Attributes:
        backend: Keras backend.
        name: Name in the tests, and of the program in the table.
        packages: Packages that it needs.
        export: Exports a model to a folder, and runs the result on an input.
        mixed: Whether it takes mixed precision.
    """

    backend: str
    name: str
    packages: tuple[str, ...]
    export: Callable[[keras.Model, np.ndarray, Path], Exported]
    mixed: bool = True

    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [p for p in self.packages if importlib.util.find_spec(p) is None]


def _signature(model, x):
    # Keras exports PyTorch models with known sizes only.
    shape = x.shape if keras.backend.backend() == "torch" else model.input_shape
    return [keras.InputSpec(shape=shape, dtype="float32", name="x")]


def _saved_model(model, x, folder):
    import tensorflow as tf

    path = folder / "model"
    model.export(path, verbose=False, input_signature=_signature(model, x))
    loaded = tf.saved_model.load(path)
    operations = _in_graph(loaded.signatures["serving_default"])
    return Exported({"SavedModel": operations}, loaded.serve(x).numpy())


def _own_saved_model(model, x, folder):
    import tensorflow as tf

    module = tf.Module()
    module.model = model
    module.serve = tf.function(
        lambda x: model(x, training=False), [tf.TensorSpec(model.input_shape, "float32")]
    )
    tf.saved_model.save(module, folder / "model")
    loaded = tf.saved_model.load(folder / "model")
    serve = loaded.serve
    return Exported({"tf.saved_model": _in_graph(serve.concrete_functions[0])}, serve(x).numpy())


def _in_graph(function):
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    passive = {"Const", "Placeholder", "NoOp", "Identity", "ReadVariableOp"}
    calls = {"StatefulPartitionedCall", "PartitionedCall"}
    return [n.op for n in nodes if n.op not in passive | calls]


def _litert(model, x, folder):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    path = str(folder / "model.tflite")
    model.export(path, format="litert", verbose=False, input_signature=_signature(model, x))
    # Without the delegate, which would hide the operations that it takes over.
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(path, experimental_op_resolver_type=plain)
    (given,) = interpreter.get_input_details()
    (result,) = interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    operations = [op["op_name"] for op in interpreter._get_ops_details()]
    return Exported({"LiteRT": operations}, interpreter.get_tensor(result["index"]))


def _onnx(model, x, folder):
    import onnx
    import onnxruntime

    path = str(folder / "model.onnx")
    with contextlib.redirect_stdout(io.StringIO()):
        model.export(path, format="onnx", verbose=False, input_signature=_signature(model, x))
    # The optimizer of ONNX Runtime, which folds batch norms, but only those operations that run on
    # every processor.
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    (y,) = session.run(None, {given.name: x})
    operations = {
        name: [n.op_type for n in onnx.load(folder / file).graph.node if n.op_type != "Constant"]
        for name, file in (("ONNX", "model.onnx"), ("ONNX Runtime", "optimized.onnx"))
    }
    return Exported(operations, y)


def _openvino(model, x, folder):
    import openvino

    path = str(folder / "model.xml")
    model.export(path, format="openvino", verbose=False, input_signature=_signature(model, x))
    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(path), "CPU", exact)
    kinds = [str(op.rt_info["layerType"].value) for op in compiled.get_runtime_model().get_ops()]
    passive = {"Input", "Output", "Const"}
    y = compiled(x)[0]
    if compiled.output(0).element_type == openvino.Type.bf16:
        y = y.view("bfloat16")  # OpenVINO hands over the bits as float16
    return Exported({"OpenVINO": [k for k in kinds if k not in passive]}, y)


def _torch_export(model, x, folder):
    import torch

    path = folder / "model.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signature = _signature(model, x)
        model.export(path, format="torch", verbose=False, input_signature=signature)
        program = torch.export.load(path)
    operations = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    y = program.module()(torch.from_numpy(x))
    return Exported({"torch.export": operations}, y.detach().float().numpy())


def _jax_export(model, x, folder):
    import jax

    shape = ", ".join(f"n{i}" if n is None else str(n) for i, n in enumerate(model.input_shape))
    spec = jax.ShapeDtypeStruct(jax.export.symbolic_shape(f"({shape})"), "float32")
    exported = jax.export.export(jax.jit(lambda x: model(x, training=False)))(spec)
    path = folder / "model"
    path.write_bytes(exported.serialize())
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    kinds = re.findall(r"= \"?stablehlo\.(\w+)", exported.mlir_module())
    passive = {"constant", "broadcast_in_dim", "dynamic_broadcast_in_dim", "reshape"}
    operations = [k for k in kinds if k not in passive]
    return Exported({"jax.export": operations}, np.asarray(exported.call(x)))


_ALL = [
    Format("tensorflow", "SavedModel", (), _saved_model),
    Format("tensorflow", "tf.saved_model", (), _own_saved_model),
    Format("tensorflow", "LiteRT", ("ai_edge_litert",), _litert),
    Format("tensorflow", "ONNX", ("tf2onnx", "onnxruntime"), _onnx, mixed=False),
    Format("tensorflow", "OpenVINO", ("openvino",), _openvino),
    Format("torch", "torch.export", (), _torch_export),
    Format("torch", "OpenVINO", ("openvino",), _openvino),
    Format("torch", "ONNX", ("onnxscript", "onnxruntime"), _onnx, mixed=False),
    Format("torch", "LiteRT", ("litert_torch",), _litert),
    Format("jax", "jax.export", (), _jax_export),
    Format("jax", "SavedModel", ("tensorflow",), _saved_model),
    Format("jax", "ONNX", ("jax2onnx", "onnxruntime"), _onnx, mixed=False),
]
FORMATS = [f for f in _ALL if f.backend == keras.backend.backend()]
