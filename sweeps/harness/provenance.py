"""What a number was made with: versions, processor, commit, and a fingerprint of the code."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib import metadata, util
from pathlib import Path

# What can change a trial's numbers. Tables, charts, flags and the engine cannot.
_SOURCES = (
    ("kerasbn", "**/*.py"),
    ("sweeps", "harness/trial.py"),
    ("sweeps", "harness/models.py"),
    ("sweeps", "harness/fused_adam.py"),
    ("sweeps", "harness/estimator.py"),
    ("sweeps", "harness/recorders.py"),
    ("sweeps", "harness/runner.py"),
)


def environment() -> dict[str, str]:
    """Versions, code fingerprint and processor of this process."""
    return {**_versions(), "code": code_fingerprint(), "cpu": cpu_name()}


def code_fingerprint() -> str:
    """16 hexadecimal digits of what can change a number: our sources and the versions they run on.

    Nothing is imported for it.
    """
    digest = hashlib.sha256(repr(_versions()).encode())
    for package, pattern in _SOURCES:
        for path in sorted(_folder(package).glob(pattern)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def commit() -> str:
    """The commit of the checkout that runs, with "+" where it has changes; empty outside of one."""
    # Results are what a run writes: they do not make its code another.
    command = ["git", "-C", str(_folder("sweeps")), "describe", "--always", "--abbrev=12"]
    changes = [
        "git",
        "-C",
        str(_folder("sweeps")),
        "status",
        "--porcelain",
        "--",
        ".",
        "../kerasbn",
    ]
    try:
        head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(changes, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if changed else "")


def cpu_name() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _versions():
    return {name: metadata.version(name) for name in ("tensorflow", "keras", "kerasbn")}


def _folder(package):
    return Path(util.find_spec(package).submodule_search_locations[0])
