"""Runs a measurement in its own Python process and returns its result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any


def run(module: str, *arguments: object, **environment: str) -> Any:
    """Runs `python -m MODULE ARGUMENTS` and returns the JSON value on its last line of output.

    Args:
        module: Module to run.
        arguments: Command-line arguments.
        environment: Environment variables to set.

    Raises:
        RuntimeError: If the process fails. The message has the process's error output.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        settings = [f"{name}={value}" for name, value in environment.items()]
        command = " ".join([*settings, "python -m", module, *map(str, arguments)])
        raise RuntimeError(f"{command} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
