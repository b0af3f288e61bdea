"""Weight ranges of folded layers, by channel: how well they survive quantization.

Quantization per tensor divides the range of a whole kernel into equal steps. A channel with small
weights then gets few of these steps. Folding multiplies each channel by gamma / std of its batch
norm, so it often makes some channels much narrower than others (Nagel et al. 2019, section 3.1).
"""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from kerasbn.tools._folded_weights import by_channel, kernels_of

_STEPS = 127  # of int8, on each side of zero


class Range(NamedTuple):
    """The ranges of one kernel.

    Attributes:
        largest: Largest absolute weight.
        channels: Number of output channels.
        narrowest: Smallest range of a channel, divided by `largest`. The range of a channel is its
            largest absolute weight. Channels of zeros do not count, because zero has no rounding
            error.
    """

    largest: float
    channels: int
    narrowest: float


def range_of(layer: keras.Layer, name: str) -> Range:
    """The ranges of the kernel with this attribute name."""
    of_channels = np.abs(by_channel(layer, name)).max(1, initial=0.0)
    used = of_channels[of_channels > 0]
    largest = float(used.max(initial=0.0))
    return Range(largest, len(of_channels), float(used.min() / largest) if used.size else 1.0)


def print_ranges(layers: list[tuple[str, keras.Layer, keras.Layer]]) -> None:
    """Prints a table of weight ranges.

    Args:
        layers: Path, old layer and folded layer for each layer that took a batch norm.
    """
    table = Table(title="Weight ranges", caption_justify="left")
    table.caption = (
        "The last columns are about the channel with the smallest range: its range compared with "
        "that of the whole kernel, and its int8 steps if the whole kernel is quantized with one "
        "scale. If these are few, quantize with one scale per channel."
    )
    table.add_column("folded layer", overflow="fold")
    names = ("channels", "range", "narrowest, before", "folded", "int8 steps")
    for name in names:
        table.add_column(name, justify="right")
    for path, old, new in layers:
        for name in kernels_of(new):
            before, after = range_of(old, name), range_of(new, name)
            table.add_row(
                path if name == "kernel" else f"{path}.{name}",
                str(after.channels),
                f"±{after.largest:.3g}",
                f"{before.narrowest:.1%}",
                f"{after.narrowest:.1%}",
                f"±{_STEPS * after.narrowest:.0f}",
            )
    Console().print(table)
