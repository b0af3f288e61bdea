"""Draws the report of `diagnose` with matplotlib."""

from __future__ import annotations

from typing import Any

import numpy as np

from kerasbn.tools import _findings
from kerasbn.tools._report import Diagnosis

# From the color-blind safe palette of Okabe & Ito (2008).
_HEALTHY, _DRIFTED, _CAUSE = "#56B4E9", "#E69F00", "#D55E00"


def draw(report: Diagnosis, ax: Any = None) -> Any:
    """Draws the drift of each batch norm. See `Diagnosis.plot`."""
    try:
        from matplotlib import pyplot as plt
        from matplotlib.patches import Patch
    except ImportError as error:
        raise ImportError(
            "report.plot() needs matplotlib: pip install matplotlib. Without it, print the report."
        ) from error
    names = [layer.layer for layer in report.layers]
    drifts = np.array([layer.drift for layer in report.layers])
    finite = np.isfinite(drifts)
    limit = _findings.limit(report.examples)
    longest = max(drifts[finite].max(initial=0), limit)
    lengths = np.where(finite, drifts, longest * 1.2)
    colors = [
        _CAUSE if name == report.cause else _HEALTHY if drift <= limit else _DRIFTED
        for name, drift in zip(names, drifts, strict=True)
    ]
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 1.6 + 0.25 * len(names)), layout="constrained")
    places = np.arange(len(names))
    ax.barh(places, lengths, color=colors, height=0.7)
    for place, length, drift in zip(places, lengths, drifts, strict=True):
        text = f"{drift:.2g}" if np.isfinite(drift) else "NaN or infinite"
        ax.annotate(text, (length, place), xytext=(3, 0), textcoords="offset points", va="center")
    ax.axvline(limit, color="gray", linestyle="--", linewidth=1)
    ax.set_yticks(places, names)
    ax.invert_yaxis()  # the first layer on top
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(0, lengths.max() * 1.15)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel("error of normalized values in inference mode (standard deviations)")
    ax.set_title(f"Batch norms of '{report.model}'", loc="left", pad=26)
    labels = {_HEALTHY: "healthy", _DRIFTED: "drifted", _CAUSE: "largest effect on the outputs"}
    handles = [Patch(color=color, label=labels[color]) for color in labels if color in colors]
    line = ax.axvline(np.nan, color="gray", linestyle="--", linewidth=1, label="limit")
    # Above the bars, where it hides none of them.
    ax.legend(
        handles=[*handles, line],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=4,
        frameon=False,
        borderaxespad=0.2,
    )
    return ax
