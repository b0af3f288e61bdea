"""The private APIs of Keras that this package uses, one function for each.

Each function imports what it needs, so `import kerasbn` works even if Keras removes one of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import keras


def all_layers(layer: keras.Layer) -> list[keras.Layer]:
    """The layer or model itself and every layer inside it, at any depth, each once.

    The public `Model.layers` lists only the direct layers of a model. Keras has no public way to
    list the layers inside other layers, such as wrappers and custom blocks. Keras uses this method
    for `summary`, for `weights` and for saving.
    """
    return layer._flatten_layers(include_self=True, recursive=True)


def direct_layers(layer: keras.Layer) -> list[keras.Layer]:
    """The layers directly inside a layer or model. Only models have the public `layers`."""
    return layer._flatten_layers(include_self=False, recursive=False)


def overrides_call(model: keras.Model) -> bool:
    """Whether the class of a Sequential or functional model defines its own `call`.

    The class of functional models is not public, so there is no public `call` to compare with. Only
    the module name shows whether a class belongs to Keras.
    """
    owner = next(cls for cls in type(model).__mro__ if "call" in vars(cls))
    return not owner.__module__.startswith("keras.")


@contextlib.contextmanager
def replaced_call(layer: keras.Layer, call: Callable[..., Any]) -> Iterator[None]:
    """Makes one layer run `call(inputs, ...)` instead of its class's `call`, in a `with` block.

    The replacement is an attribute of the instance, which Keras looks up before the method of the
    class. It bypasses `Layer.__setattr__`, so Keras does not track it. Keras has no public hook
    into the calls of a layer. Cloning the model with another layer would not reach the layers of
    subclassed models.
    """
    attributes = vars(layer)
    before = {name: attributes[name] for name in ["call"] if name in attributes}
    attributes["call"] = call
    try:
        yield
    finally:
        del attributes["call"]
        attributes.update(before)  # of a `with` block around this one


def writes_legacy_file() -> bool:
    """Whether Keras reads or writes a model's configuration in the format of legacy `.h5` files.

    Keras drops the entry `axis` from such a configuration if it has several axes. So `get_config`
    needs an entry of another name, which other configurations do not have.
    """
    from keras.src.backend.common import global_state

    return bool(global_state.get_global_attribute("use_legacy_config", False))


def is_array(x: Any) -> bool:
    """Whether `predict` takes `x` as an array: dense, sparse, ragged, or from pandas.

    Dense ones have `__array__`. Sparse and ragged ones share no attribute.
    """
    from keras.src.trainers.data_adapters import array_slicing

    return x is not None and hasattr(x, "shape") and array_slicing.can_slice_array(x)


def cut_by_keras(arrays: Any, size: int) -> Iterable[Any]:
    """Cuts arrays into batches of the backend's tensors, as `predict` does.

    Keras has no public way to cut sparse and ragged arrays.
    """
    from keras.src.trainers import data_adapters

    adapter = data_adapters.get_data_adapter((arrays,), batch_size=size)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        batches = adapter.get_tf_dataset()
    elif backend == "jax":
        batches = adapter.get_jax_iterator()
    else:
        batches = adapter.get_torch_dataloader()
    return (x for ((x,),) in batches)


def batches_of_py_dataset(dataset: keras.utils.PyDataset) -> Generator[Any, None, None]:
    """The batches of a `PyDataset`, made by its workers, with the calls at both ends of an epoch.

    A plain `for` loop over the data set uses no workers.
    """
    from keras.src.trainers import data_adapters

    adapter = data_adapters.get_data_adapter(dataset)
    adapter.on_epoch_begin()
    try:
        yield from adapter.get_numpy_iterator()
    finally:
        adapter.on_epoch_end()


@contextlib.contextmanager
def without_remat(layers: list[keras.Layer]) -> Iterator[None]:
    """Switches off `keras.RematScope` for some layers in a `with` block.

    `RematScope` saves memory in gradients. Without gradients it changes no value. Keras has no
    public switch for it.
    """
    modes = [(layer, layer._remat_mode) for layer in layers if layer._remat_mode is not None]
    for layer, _ in modes:
        layer._remat_mode = None
    try:
        yield
    finally:
        for layer, mode in modes:
            layer._remat_mode = mode


@contextlib.contextmanager
def without_dropout_masks(rnns: Iterable[keras.layers.RNN]) -> Iterator[None]:
    """Stops RNNs from preparing dropout masks in a `with` block. Inference needs none.

    For these masks, Keras calls each cell of `StackedRNNCells` an additional time with the first
    time step, and drops the output. A list of cells becomes `StackedRNNCells`.
    """
    name = "_maybe_config_dropout_masks"
    rnns = list(rnns)
    for rnn in rnns:
        vars(rnn)[name] = lambda *args: None  # hides the method of the class
    try:
        yield
    finally:
        for rnn in rnns:
            del vars(rnn)[name]


@contextlib.contextmanager
def map_without_extra_call() -> Iterator[None]:
    """Makes `keras.ops.map` call its function once for each element in a `with` block.

    In eager mode on TensorFlow, Keras also calls it with the first element, only to learn the
    shape of its output. Other backends do not, and need no `with` block.
    """
    import tensorflow as tf
    from keras.src.backend import core

    before = core.map

    def without_extra_call(f, xs):
        n = len(keras.tree.flatten(xs)[0]) if tf.executing_eagerly() else 0
        if n == 0:
            return before(f, xs)
        ys = [f(keras.tree.map_structure(lambda x, i=i: x[i], xs)) for i in range(n)]
        return keras.tree.map_structure(lambda *parts: keras.ops.stack(parts), *ys)

    core.map = without_extra_call
    try:
        yield
    finally:
        core.map = before
