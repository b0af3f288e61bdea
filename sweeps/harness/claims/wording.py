"""Spells names and lists in the sentences of the report."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SPELLINGS = {
    "relu": "ReLU",
    "leaky_relu": "leaky ReLU",
    "elu": "ELU",
    "xla": "XLA",
    "jax": "JAX",
    "torch": "PyTorch",
    "lenet": "LeNet",
}
MODES = {"graph": "in graph mode", "xla": "with XLA"}
_IN_CHARTS = {**MODES, "jit": "compiled", "float32": "in float32", "bfloat16": "in bfloat16"}


def spelled(name: str) -> str:
    """A name from a table or a file as prose spells it: "ReLU" for "relu"."""
    return " ".join(_SPELLINGS.get(word, word) for word in name.split())


def chart(stem: str) -> str:
    """A chart's file name in prose: "layers with XLA in float32" for "layers_xla_float32"."""
    return spelled(" ".join(_IN_CHARTS.get(word, word) for word in stem.split("_")))


def network(activation: str, batch_norm: bool) -> str:
    """A network's name in prose: "plain ReLU" or "ReLU with batch norm"."""
    name = spelled(activation)
    return f"{name} with batch norm" if batch_norm else f"plain {name}"


def layers(count: int) -> str:
    """A number of layers: "1 layer" or "7 layers"."""
    return f"{count} layer" if count == 1 else f"{count} layers"


def listed(items: Iterable[str]) -> str:
    """A list in prose: "a, b and c". If an item contains a comma or an "and", all items are quoted.

    Commas inside numbers, and commas and "and" inside intervals and quotations do not count.
    """
    items = list(items)
    if len(items) > 1 and any(", " in bare or " and " in bare for bare in map(_bare, items)):
        items = [f'"{item}"' for item in items]
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _bare(item):
    """An item without intervals and quotations."""
    return re.sub(r'\[.*?\]|".*?"', "", item)
