"""`python -m sweeps`: lists the commands, one line each."""

from __future__ import annotations

from sweeps.harness.cli import catalog

if __name__ == "__main__":
    listed = catalog.commands()
    print("python -m sweeps.NAME [--help], with one of these names:\n")
    for name, line in listed.items():
        print(f"  {name:<{max(map(len, listed))}}  {line}")
