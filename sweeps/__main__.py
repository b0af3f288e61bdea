"""`python -m sweeps`: what there is to run, a line each, from the modules' own first lines."""

from __future__ import annotations

import ast
from pathlib import Path


def commands() -> dict[str, str]:
    """The first line of each runnable module's docstring, by the module's name."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        source = path.read_text()
        if "__main__" in source:  # it can be run
            found[path.stem] = ast.get_docstring(ast.parse(source)).splitlines()[0]
    return found


if __name__ == "__main__":
    print("python -m sweeps.NAME [--help]; NAME is one of\n")
    listed = commands()
    for name, line in listed.items():
        print(f"  {name:<{max(map(len, listed))}}  {line}")
