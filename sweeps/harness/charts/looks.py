"""What tells the arms and other series of a chart apart: colour, marker, line."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from sweeps.harness.trial import arm_name

# Okabe & Ito's palette: apart for the colour-blind, and apart in grey, for their lightness differs.
LOOKS = [
    {"color": "#E69F00", "marker": "o", "linestyle": "--"},
    {"color": "#0072B2", "marker": "s", "linestyle": "-"},
    {"color": "#CC79A7", "marker": "D", "linestyle": "-."},
    {"color": "#009E73", "marker": "v", "linestyle": ":"},
    {"color": "#000000", "marker": "X", "linestyle": "-"},
]
_ARMS = (arm_name(False), arm_name(True))  # these have the first two looks


def of_arm(batch_norm: bool) -> tuple[str, dict[str, str]]:
    """An arm's name and its look."""
    name = arm_name(batch_norm)
    return name, LOOKS[_ARMS.index(name)]


def of_series(labels: Sequence[str]) -> list[dict[str, str]]:
    """A look for each label; an arm keeps its own, wherever and beside whatever it is drawn.

    Of several series of an arm, that has it which has the arm's bare name, or else the first.
    """
    own = {}
    for arm, look in zip(_ARMS, LOOKS, strict=False):
        of_arm = [label for label in labels if label.startswith(arm)]
        if of_arm:
            own[arm if arm in of_arm else of_arm[0]] = look
    others = itertools.cycle(LOOKS[len(_ARMS) :])
    return [own[label] if label in own else next(others) for label in labels]


def dots(look: dict[str, str]) -> dict[str, str]:
    """What of a look dots have."""
    return {name: look[name] for name in ("color", "marker")}
