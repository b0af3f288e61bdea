"""Assigns colours, markers and line styles to the arms and the other series of a chart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from sweeps.harness.trial import arm_name

# Okabe & Ito's palette. Colour-blind readers can distinguish the colours. So can readers of a grey
# print, because the lightness differs, too.
LOOKS = [
    {"color": "#E69F00", "marker": "o", "linestyle": "--"},
    {"color": "#0072B2", "marker": "s", "linestyle": "-"},
    {"color": "#CC79A7", "marker": "D", "linestyle": "-."},
    {"color": "#009E73", "marker": "v", "linestyle": ":"},
    {"color": "#000000", "marker": "X", "linestyle": "-"},
]
ARMS = (arm_name(False), arm_name(True))  # the arms with the first two looks


def of_series(labels: Sequence[str]) -> list[dict[str, str]]:
    """A look for each label. An arm has the same look in every chart.

    If an arm has several series, its look goes to the series with the arm's bare name, or else to
    the first one.
    """
    arm_looks = {}
    for arm, look in zip(ARMS, LOOKS, strict=False):
        candidates = [label for label in labels if label.startswith(arm)]
        if candidates:
            arm_looks[arm if arm in candidates else candidates[0]] = look
    others = itertools.cycle(LOOKS[len(ARMS) :])
    return [arm_looks[label] if label in arm_looks else next(others) for label in labels]


def dots(look: dict[str, str]) -> dict[str, str]:
    """The parts of a look that apply to dots."""
    return {name: look[name] for name in ("color", "marker")}


def marker_every(points: int) -> int:
    """The distance of markers along a line of this many points, so that they do not merge."""
    return max(points // 10, 1)
