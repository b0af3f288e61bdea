"""Loads the native kernel, a small C library, and gives the reason if that fails.

`batch_norm.c` explains the algorithm. `tensorflow.c` and `xla.c` define the operations for
TensorFlow and JAX, and `torch.py` those for PyTorch. setup.py builds the library if there is a C
compiler. Without the library, everything works, only slower.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import struct
import warnings
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import keras

from kerasbn.kernels.native import sources

_switch = {"on": sources.switched_on(), "by": f"the variable {sources.VARIABLE}"}


class Status(NamedTuple):
    """Whether the native kernel is used.

    Attributes:
        used: Whether the kernel is used for training on the CPU.
        reason: Instruction set and number of threads, or the reason why the kernel is not used.
        instruction_set: Name of the instruction set, or "" if the kernel is not used.
    """

    used: bool
    reason: str
    instruction_set: str = ""


class Library(NamedTuple):
    """The loaded library.

    Attributes:
        symbols: Exported C functions of the library.
        operations: Python functions for the operations on TensorFlow and PyTorch. `None` on JAX.
    """

    symbols: ctypes.CDLL
    operations: ModuleType | None = None


def use(on: bool) -> None:
    """Switches the native kernel on or off, for calls and traces from now on."""
    _switch.update(on=on, by="kerasbn.kernels.use_native")


def library() -> Library | None:
    """The library, or `None` if it is switched off or can't be used.

    If it can't be used, the first call in the process warns.
    """
    if not _switch["on"]:
        return None
    loaded = load()
    if isinstance(loaded, str):
        _warn(loaded)
        return None
    return loaded


def status() -> Status:
    """See `kerasbn.kernels.native_status`."""
    if not _switch["on"]:
        return Status(False, f"switched off by {_switch['by']}")
    loaded = load()
    if isinstance(loaded, str):
        return Status(False, loaded)
    instructions = loaded.symbols.kerasbn_instruction_set().decode()
    threads = loaded.symbols.kerasbn_threads()
    return Status(True, f"instruction set {instructions}, threads {threads}", instructions)


@functools.cache
def load() -> Library | str:
    """Loads the library, even if it is switched off. Returns the reason if that fails."""
    path = sources.LIBRARY
    problem = _problem_of_file(path)
    if problem:
        return problem
    backend = importlib.import_module(f"kerasbn.kernels.native.{keras.backend.backend()}")
    loaded = backend.load(path)
    if not isinstance(loaded, str):
        loaded.symbols.kerasbn_instruction_set.restype = ctypes.c_char_p
        loaded.symbols.kerasbn_set_threads(backend.threads() or _usable_cores())
    return loaded


def _problem_of_file(path: Path) -> str | None:
    if not sources.SUPPORTED:
        return "it is not available on Windows"
    if not path.exists():
        return f"{path} was not built; install kerasbn where there is a C compiler"
    content = path.read_bytes()
    if sources.mark() not in content:
        return f"{path} is damaged, or was built from other sources; install kerasbn again"
    if _is_cut_short(content):  # loading such a file may end the process
        return f"{path} is damaged: its end is missing; install kerasbn again"
    return None


def _is_cut_short(content: bytes) -> bool:
    """Whether the table of sections, the last part of an ELF file, is incomplete."""
    if content[:6] != b"\x7fELF\x02\x01":  # 64 bits, little-endian
        return False
    (offset,) = struct.unpack_from("<Q", content, 40)
    size, count = struct.unpack_from("<HH", content, 58)
    return len(content) < offset + size * count


def _usable_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


@functools.cache
def _warn(reason: str) -> None:
    warnings.warn(
        f"kerasbn runs without its native kernel, so training is slower: {reason}. To avoid this "
        f"warning, set {sources.VARIABLE}=0.",
        stacklevel=2,
    )
