"""`python -m sweeps`: lists the commands, one per line."""

from __future__ import annotations

import sys

import sweeps
from sweeps import catalog

if __name__ == "__main__":
    first, *rest = sys.argv[1:] or ["--help"]
    if first not in ("--help", "-h"):
        problem = f"python -m sweeps lists the commands and takes no arguments, but got {first!r}."
        sweeps.refuse_command(problem, first, rest)
    commands = catalog.commands()
    print("Usage: python -m sweeps.NAME [--help]\n\nNAME is one of:\n")
    for name, line in commands.items():
        print(f"  {name:<{max(map(len, commands))}}  {line}")
