"""Runs a command as a demonstration: --quick replaces defaults and keeps the results apart."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from sweeps.harness.cli import flags
from sweeps.harness.results import demonstrations

_DATASET = {"dataset": "mnist_5k"}


def define(values: absl_flags.FlagValues) -> None:
    """Defines the flag --quick."""
    flags.Definer(values).switch(
        "quick",
        False,
        "Run a demonstration of less than a minute: fewer and shorter trials on mnist_5k. Other "
        "flags take precedence over its settings. Results go to "
        f"RESULTS_DIR/{demonstrations.FOLDER}/DATASET/STUDY/, and no verdicts follow from them.",
    )


def run(
    values: absl_flags.FlagValues,
    preset: Mapping[str, Any],
    run_command: Callable[[absl_flags.FlagValues], int],
) -> int:
    """Runs a command, with --quick as a demonstration.

    Args:
        values: Values of the command's flags.
        preset: Values that --quick gives to flags which are not on the command line.
        run_command: Function of (flag values). Does the work and returns the exit status.

    Returns:
        The exit status.
    """
    if not values.quick:
        return run_command(values)
    start = time.monotonic()
    reduced = _apply(values, preset)
    print(
        f"Demonstration with reduced settings: {' '.join(reduced)}; no verdicts follow from it.",
        flush=True,
    )
    values["results_dir"].value = str(Path(values.results_dir) / demonstrations.FOLDER)
    status = run_command(values)
    print(
        f"The demonstration took {time.monotonic() - start:.0f} s. Its results are in "
        f"{os.path.relpath(values.results_dir)}, apart from those of full runs.",
        flush=True,
    )
    return status


def _apply(values, preset):
    """Sets the flags that are not on the command line; returns them as the user would type them."""
    if values["dataset"].default == "auto":
        preset = {**_DATASET, **preset}
    chosen = [name for name in preset if values[name].using_default_value]
    for name in chosen:
        values.set_default(name, preset[name])
    return [values[name].serialize().replace("\n", " ") for name in chosen]
