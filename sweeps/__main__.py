"""`python -m sweeps`: lists the commands, one per line."""

from __future__ import annotations

from sweeps.harness.cli import catalog

if __name__ == "__main__":
    commands = catalog.commands()
    print("Usage: python -m sweeps.NAME [--help]\n\nNAME is one of:\n")
    for name, line in commands.items():
        print(f"  {name:<{max(map(len, commands))}}  {line}")
