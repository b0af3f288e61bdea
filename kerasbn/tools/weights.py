"""`load_weights`: loads weights files of models with either class of batch norm."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras

from kerasbn.tools._models import batch_norms, check_weights
from kerasbn.tools._weights_files import Node, Pairing, opened, pair, write
from kerasbn.tools._wording import counted, described, listed

_ENDINGS = (".weights.h5", ".weights.json")
_LEGACY = (
    "It is in Keras's legacy format. That does not depend on the classes, so load it with "
    "model.load_weights."
)


def load_weights(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Loads a weights file into a model, even if their batch norms are of different classes.

    In a weights file, Keras names the weights of a list of layers after the layers' classes. So
    `model.load_weights` cannot load the file of a model with `keras.layers.BatchNormalization` into
    the same model with `kerasbn.BatchNorm`, or the other way round. This function can. Both models
    may also mix the two classes. The function calls `model.load_weights`, so everything else is
    the same. For example, the order of the layers counts, and their names do not.

    The function changes all weights or none. If the file does not fit, the model keeps its weights.
    The function needs temporary disk space for the weights of the model. If it has to rename
    groups, it also needs space for those of the file.

    The options `renorm`, `debias` and `momentum=None` add weights. Such an option must be on in
    both models or in neither: there is no default for a moving average that the file lacks, and the
    file must not have more weights than the batch norm. The file contains neither options nor names
    of weights, so a `gamma` fits a `beta` of the same shape.

    If the file mixes both classes in one list of layers, it does not contain their order. Such a
    file fits a model with the same mixture. It also fits a model whose batch norms have the same
    names, such as the result of `from_keras`.

    Args:
        model: Built model of any kind. Frozen layers are loaded too.
        path: File that `model.save_weights` wrote. Its name ends in `.weights.h5`, or in
            `.weights.json` for a file with shards. The shards must be in the same folder.

    Raises:
        FileNotFoundError: If the file or one of its shards does not exist.
        ValueError: If the file is not a weights file, or does not fit the model. If the model is
            not built.

    Examples:
        >>> import keras, kerasbn, os, tempfile
        >>> def network(norm):
        ...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), norm()])
        >>> path = os.path.join(tempfile.mkdtemp(), "model.weights.h5")
        >>> network(keras.layers.BatchNormalization).save_weights(path)
        >>> kerasbn.load_weights(network(kerasbn.BatchNorm), path)
    """
    check_weights(model)
    if not model.built:
        raise ValueError(
            f"Expected a model that has been called. Received: model '{model.name}', whose layers "
            "are built but which was never called. Call it once on a batch. If it has no `call`, "
            "pass the models inside it one by one."
        )
    path = _checked_path(path)
    with tempfile.TemporaryDirectory() as folder:
        backup = Path(folder, "backup.weights.json")
        # With `max_shard_size`, Keras also writes the order of the layers.
        model.save_weights(backup, max_shard_size=1e6)
        with opened(backup) as expected, _opened(path) as saved:
            pairing = pair(expected, saved)
            misfits = _misfits(model, pairing)
            # If a list inside another list is missing, Keras only warns and loads the rest.
            skipped = any("/container" in group.path for group in pairing.missing)
            skipped = skipped or bool(pairing.problems)
            used = {node.path for _, node in pairing.pairs}
            unused = [node for node in saved.with_values() if node.path not in used]
            renamed = any(node.path != group.path for group, node in pairing.pairs)
            source = Path(folder, "renamed.weights.h5") if renamed else path
            if renamed:
                write(source, pairing)
        _load_or_restore(model, path, source, backup, misfits, skipped)
    _warn_unused(model, path, unused)


def _load_or_restore(model, path, source, backup, misfits, skipped):
    # Keras decides whether the file fits, because layers may override how they save and load.
    try:
        model.load_weights(source)
        if skipped:
            raise ValueError("Some layers are missing.")
    except BaseException as error:
        model.load_weights(backup)
        if not isinstance(error, (ValueError, KeyError, OSError)):
            raise
        reasons = "\n".join(f"  {misfit}" for misfit in misfits) or f"  Keras says: {error}"
        raise ValueError(
            f"The weights file {os.fspath(path)!r} does not fit model '{model.name}', which keeps "
            f"its weights:\n{reasons}\nBuild the model with the layers and options that it had "
            "when the file was written."
        ) from error


def _misfits(model: keras.Model, pairing: Pairing) -> list[str]:
    """One sentence for each group of the model that does not fit the file."""
    norms = {norm.name: norm for norm in batch_norms(model)}
    found = list(pairing.problems)
    for group in pairing.missing:
        found.append(f"{_named(group)} is not in the file.")
    for group, node in pairing.pairs:
        expected, received = ([value.shape for value in n.values.values()] for n in (group, node))
        if len(expected) == len(received) and expected != received:
            found.append(
                f"{_named(group)} expects weights of the shapes {expected}. The file has "
                f"{received}."
            )
        elif len(expected) != len(received):
            names = ""
            if group.name in norms:
                names = f" ({', '.join(weight.name for weight in norms[group.name].weights)})"
            found.append(
                f"{_named(group)} expects {counted(len(expected), 'weight')}{names}. The file has "
                f"{len(received)}."
            )
    return found


def _named(group: Node) -> str:
    return f"'{group.path}'" + (f" (layer '{group.name}')" if group.name else "")


def _warn_unused(model, path, unused):
    # The file of a compiled model also contains the state of its optimizer. With mixed precision,
    # this optimizer is inside another one.
    paths = [
        node.path
        for node in unused
        if not node.path.endswith(("optimizer", "optimizer/inner_optimizer"))
    ]
    if paths:
        warnings.warn(
            f"Model '{model.name}' has no layer for {counted(len(paths), 'group')} of "
            f"{os.fspath(path)!r}: {listed(map(repr, paths))}. Their weights are not loaded.",
            stacklevel=3,
        )


def _checked_path(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(
            f"Expected the path of a weights file. Received: {described(path)}. The model comes "
            "first: load_weights(model, path)."
        )
    path = Path(path)
    name = os.fspath(path)
    if path.is_dir():
        advice = "It is a folder."
    elif name.endswith((".keras", ".h5", ".hdf5", *_ENDINGS)) and not path.exists():
        raise FileNotFoundError(f"There is no weights file {name!r}. Check the path.")
    elif name.endswith(".keras"):
        advice = (
            "It holds a whole model. Load it with keras.models.load_model, and convert it with "
            "kerasbn.from_keras or kerasbn.to_keras."
        )
    elif name.endswith((".h5", ".hdf5")) and not name.endswith(_ENDINGS):
        advice = _LEGACY
    elif not name.endswith(_ENDINGS):
        advice = "Save the weights with model.save_weights('model.weights.h5')."
    else:
        return path
    raise ValueError(
        "Expected a file whose name ends in .weights.h5 or .weights.json. Received: "
        f"{name!r}. {advice}"
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Node]:
    """Opens a weights file as `opened` does, with errors that explain the problem."""
    name = os.fspath(path)
    with contextlib.ExitStack() as stack:
        try:
            root = stack.enter_context(opened(path))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"The weights file {name!r} refers to the file {error.filename!r}, which does not "
                "exist. Put all files of the sharded weights into one folder."
            ) from error
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                f"Expected a file that model.save_weights wrote. Received: {name!r}, which cannot "
                f"be read. It may be incomplete. The error was: {error}"
            ) from error
        if not any(root.with_values()):
            legacy = path.suffix == ".h5" and _is_legacy(path)
            advice = f"{_LEGACY} Rename it first, for example to 'model.h5'." if legacy else ""
            raise ValueError(
                f"Expected a file that model.save_weights wrote. Received: {name!r}, which has no "
                f"weights in Keras's format. {advice}".rstrip()
            )
        yield root


def _is_legacy(path):
    with h5py.File(path, "r") as file:
        return "layer_names" in file.attrs or "model_weights" in file
