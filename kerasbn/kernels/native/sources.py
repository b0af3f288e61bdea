"""The C sources, and a fingerprint that ties a built library to them.

This file uses only the standard library, because setup.py loads it before kerasbn is installed.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
COMPILED = ("batch_norm.c", "pool.c", "tensorflow.c", "xla.c")
LIBRARY = FOLDER / "library.so"
SUPPORTED = sys.platform != "win32"  # the sources use POSIX threads

# -ffast-math would set flush-to-zero for the whole process. -march=native is not needed, because
# batch_norm.c chooses the instruction set at run time. -ffp-contract=off gives the same bits with
# all instruction sets.
COMPILER_FLAGS = (
    "-std=gnu11",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-pthread",
)
LINKER_FLAGS = ("-pthread", "-lm")


VARIABLE = "KERASBN_NATIVE"


def switched_on() -> bool:
    """Whether the environment leaves the native kernel switched on."""
    return os.environ.get(VARIABLE, "1") != "0"


def fingerprint() -> str:
    """Hexadecimal digits that change with every C source and with the compiler flags."""
    digest = hashlib.sha256(repr(COMPILER_FLAGS).encode())
    for path in sorted((*FOLDER.glob("*.c"), *FOLDER.glob("*.h"))):
        digest.update(f"{path.name}\0{path.read_text()}\0".encode())
    return digest.hexdigest()[:32]


def mark() -> bytes:
    """Bytes that a library contains if it was built from these sources."""
    return f"kerasbn sources {fingerprint()}".encode()
