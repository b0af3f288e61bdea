"""Names settings in words for tables and charts, such as "batch norm, momentum 0.5"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sweeps.harness.trial import arm_name

# Text for a field's value, where "{}" stands for the value.
_WORDS = {
    "hidden_units": "widths {}",
    "bn_momentum": "momentum {}",
    "bn_epsilon": "epsilon {}",
    "learning_rate": "rate {}",
    "batch_size": "batch {}",
    "max_steps": "budget {} steps",
    "target_accuracy": "target {}",
    "eval_every": "checked every {} steps",
    "kernel_stddev": "initial weights {}",
    "decay_steps": "decay over {} steps",
    "bn_virtual_batch_size": "ghost batches of {}",
    "group_norm": "{} groups",
    "l2": "L2 {}",
    "train_examples": "{} examples",
    "validation_examples": "{} examples for validation",
    "evaluated_on": "{} set",
    "exact_until": "every step checked up to {}",
    "steps_per_execution": "{} steps per call",
    "activation": "{}",
    "optimizer": "{}",
    "dataset": "{}",
    "architecture": "{}",
}
_SWITCHES = {
    "bn_logits": ("logits not normalized", "logits normalized"),
    "bn_renorm": ("no renorm", "renorm"),
    "jit_compile": ("no XLA", "XLA"),
    "stop_at_target": ("full budget", "stops at the target"),
}
_LAYERS = {"kerasbn": "kerasbn's layer", "keras": "Keras's layer"}
_BLANKS = {
    "decay_steps": "constant rate",
    "dropout": "no dropout",
    "l2": "no L2",
    "train_examples": "all examples",
    "validation_examples": "no validation set",
    "kernel_stddev": "default initial weights",
    "bias": "bias 0",
    "target_accuracy": "no target",
    "bn_virtual_batch_size": "whole batches",
}
_SHOWN_WIDTHS = 3  # longer lists of widths are shortened


def of_series(settings: Mapping[str, Any], *, exact: bool = False) -> str:
    """The label of a series, such as "batch norm, momentum 0.5".

    Args:
        settings: The series' settings, by field, with `batch_norm`. Blank ones are left out.
        exact: Whether to give numbers in full, and all widths of a long list.
    """
    settings = dict(settings)
    name = arm_name(settings.pop("batch_norm"))
    if not pd.isna(settings.get("group_norm")):
        name = "group norm"
    return ", ".join([name, *_parts(settings, exact, {})])


def of_panel(settings: Mapping[str, Any], *, exact: bool = False) -> str:
    """The title of a panel, such as "rate 0.003, no dropout".

    Args:
        settings: The settings that the panel's series share, by field. Some blank ones are named.
        exact: Whether to give numbers in full, and all widths of a long list.
    """
    return ", ".join(_parts(settings, exact, _BLANKS))


def ambiguous(every: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rounded numbers and shortened widths would give two series the same label."""
    return len({of_series(settings) for settings in every}) < len(every)


def widths(hidden_units: str, *, exact: bool = False) -> str:
    """The widths of hidden layers in words: "widths 500-400-…-25" or "50 layers of 100".

    Args:
        hidden_units: The widths, joined by hyphens.
        exact: Whether to give all widths of a long list.
    """
    units = hidden_units.split("-")
    if len(units) == 1:
        return f"width {hidden_units}"
    if len(set(units)) == 1:
        return f"{len(units)} layers of {units[0]}"
    if len(units) > _SHOWN_WIDTHS and not exact:
        hidden_units = f"{units[0]}-{units[1]}-…-{units[-1]}"
    return f"widths {hidden_units}"


def _parts(settings, exact, blanks):
    """The settings in words, in the order of their fields."""
    words = [
        blanks.get(name) if pd.isna(value) else _words(name, value, exact)
        for name, value in settings.items()
    ]
    return [each for each in words if each]


def _words(name, value, exact):
    if name in _SWITCHES:
        return _SWITCHES[name][bool(value)]
    if name == "bn_layer":
        return _LAYERS.get(value, value)
    if name == "hidden_units":
        return widths(value, exact=exact)
    if name == "target_accuracy":
        shown = f"{100 * value:g}%"
    elif isinstance(value, float):
        shown = repr(float(value)).removesuffix(".0") if exact else f"{value:.4g}"
    else:
        shown = value if isinstance(value, str) else f"{value:,}"
    return _WORDS.get(name, name.removeprefix("bn_").replace("_", " ") + " {}").format(shown)
