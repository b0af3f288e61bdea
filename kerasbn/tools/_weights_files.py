"""Reads weights files as trees of groups, and pairs the groups of two files.

Keras stores the weights of a layer in the group `<path>/vars`. The path consists of the attribute
names that lead from the model to the layer. For a layer in a list or dictionary, it contains the
layer's class name in snake case. From the second layer of a class on, a number follows:
`layers/batch_norm_1/vars`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import h5py

from kerasbn.tools._wording import counted

# The two class names in snake case, and the layer's number among those of its class.
_NORM = re.compile(r"(batch_norm|batch_normalization)(?:_(\d+))?")
# Keras 2.13 uses another name for the layers of a model.
_LAYERS, _OLD_LAYERS = "layers", "_layer_checkpoint_dependencies"


@dataclasses.dataclass
class Node:
    """A group of a weights file: a layer, or a list or dictionary of layers.

    Attributes:
        path: Path of the group in the file.
        name: Name of the layer. Empty for lists and dictionaries.
        values: Weights of the layer itself, by their keys in the file.
        children: Groups inside this one, by the last parts of their paths.
    """

    path: str = ""
    name: str = ""
    values: dict[str, h5py.Dataset] = dataclasses.field(default_factory=dict)
    children: dict[str, Node] = dataclasses.field(default_factory=dict)

    def at(self, path: str) -> Node:
        """The group at this path. It is created if it does not exist."""
        node = self
        for part in filter(None, path.split("/")):
            inner = f"{node.path}/{part}".lstrip("/")
            node = node.children.setdefault(part, Node(inner))
        return node

    def with_values(self) -> Iterator[Node]:
        """This group and all groups inside it that have weights, in the order of the file."""
        if self.values:
            yield self
        for child in self.children.values():
            yield from child.with_values()


@dataclasses.dataclass
class Pairing:
    """The groups of a model and their counterparts in a file.

    Attributes:
        pairs: Groups of the model, each with its counterpart.
        missing: Groups of the model without a counterpart.
        problems: Reasons why batch norms have no counterpart, as sentences.
    """

    pairs: list[tuple[Node, Node]] = dataclasses.field(default_factory=list)
    missing: list[Node] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Node]:
    """Opens a `.weights.h5` file, or a `.weights.json` file with its shards, in a `with` block.

    For a `.weights.json` file, the groups are in the order in which Keras saved them. For a
    `.weights.h5` file, HDF5 sorts them by name.

    Raises:
        OSError: If a file is missing or is not an HDF5 file.
        ValueError: If a `.weights.json` file or the data of a weight is not what Keras writes.
    """
    root, shards = Node(), [path]
    if path.suffix == ".json":
        with path.open(encoding="utf-8") as file:
            saved = json.load(file)["weight_map"]
        for group in saved:
            root.at(group.removesuffix("/vars"))
        names = (name if isinstance(name, list) else [name] for name in saved.values())
        shards = [path.with_name(name) for name in dict.fromkeys(itertools.chain(*names))]
    with contextlib.ExitStack() as stack:
        for shard in shards:
            shard.stat()  # the error names the missing file, unlike that of HDF5
            contents = stack.enter_context(h5py.File(shard, "r"))
            # `visititems` follows no links into other files.
            contents.visititems(lambda name, item: _add(root, name, item))
        yield root


def pair(model: Node, file: Node) -> Pairing:
    """Pairs each group of a model with the group of a file that holds its weights.

    Groups with the same path belong together, except for batch norms in a list or dictionary.
    There, the first batch norm of the model belongs to the first one in the file, and so on,
    whatever their classes.
    """
    found = Pairing()
    _pair_inside(model, file, found)
    return found


def write(path: Path, pairing: Pairing) -> None:
    """Writes a copy of the file's weights in which the groups have the paths of the model."""
    with h5py.File(path, "w") as target:
        for expected, node in pairing.pairs:
            group = target.create_group(f"{expected.path}/vars")
            for key, value in node.values.items():
                value.file.copy(value, group, name=key)


def _add(root, name, item):
    path, separator, key = f"/{name}".rpartition("/vars/")
    if not isinstance(item, h5py.Dataset) or not separator:
        return
    if item.external or item.is_virtual:
        raise ValueError(f"The data of '{name}' is in another file, where Keras does not put it.")
    node = root.at(path)
    node.values[key] = item
    node.name = node.name or str(item.parent.attrs.get("name", ""))


def _pair_inside(model, file, found):
    if model.values and file.values:
        found.pairs.append((model, file))
    elif model.values:
        found.missing.append(model)
    norms = [part for part in model.children if _NORM.fullmatch(part)]
    saved = sorted(filter(_NORM.fullmatch, file.children), key=_number)
    matched, problem = _match(model, norms, file, saved)
    if problem:
        where = f"In '{model.path}', " if model.path else "In the model, "
        found.problems.append(where + problem)
    old = file.children.get(_OLD_LAYERS, Node())
    for part, child in model.children.items():
        other = file.children.get(part, old if part == _LAYERS else Node())
        if part in norms:
            if problem:
                continue
            other = file.children[matched[part]]
        _pair_inside(child, other, found)


def _match(model, norms, file, saved):
    """Matches the batch norms of a model with those of a file, or gives a reason if it cannot.

    Keras numbers each class separately, so a file does not contain the order of two classes.
    """
    identical = set(norms) == set(saved)
    mixed = len({_NORM.fullmatch(part)[1] for part in saved}) > 1
    names = {file.children[part].name: part for part in saved}
    wanted = [model.children[part].name for part in norms]
    if mixed and len(names) == len(saved) and sorted(names) == sorted(wanted):
        return {part: names[name] for part, name in zip(norms, wanted, strict=True)}, ""
    if identical:
        return {part: part for part in norms}, ""
    if len(saved) != len(norms):
        expected = counted(len(norms), "batch norm")
        return {}, f"the model has {expected}, but the file has {len(saved)}."
    if mixed:
        return {}, (
            "the file mixes both classes of batch norms in another way than the model. It does not "
            "say in which order they are. Give the batch norms the names that they have in the "
            f"file, {sorted(names)}. Or load the file into a model with its classes, and call "
            "kerasbn.from_keras or kerasbn.to_keras."
        )
    return dict(zip(norms, saved, strict=True)), ""


def _number(part):
    return int(_NORM.fullmatch(part)[2] or 0)
