"""Finds the commands, studies and claims in the folders of `sweeps`.

A study is a folder with a `__main__.py` that defines `STUDY`. Its claims, if it has any, are in
`claims.py` as `CLAIMS`. There is no list to keep up to date.
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.harness.claims import Claim
    from sweeps.harness.claims.evidence import Grid
    from sweeps.harness.cli.study import Study

_SWEEPS = Path(__file__).parent


def commands() -> dict[str, str]:
    """The first line of each command's docstring, by the command's name. Imports nothing."""
    return {
        path.parent.name: (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
        for path in sorted(_SWEEPS.glob("*/__main__.py"))
    }


def study(name: str) -> Study | None:
    """The study of this name. `None` if there is no such command, or it is not a study."""
    if name not in commands():
        return None
    return getattr(importlib.import_module(f"sweeps.{name}.__main__"), "STUDY", None)


def grid(study_name: str) -> Grid | None:
    """The default grid of a study, see `sweeps.harness.claims`. None if there is no such study."""
    from sweeps.harness.cli.study import default_grid

    found = study(study_name)
    return None if found is None else functools.partial(default_grid, found)


def captions(name: str) -> Mapping[str, str]:
    """What to see in each chart of a command, one sentence by the pattern of its file name."""
    if name not in commands():
        return {}
    module = importlib.import_module(f"sweeps.{name}.__main__")
    return (getattr(module, "STUDY", None) or module.COMMAND).captions


def claims() -> dict[int, tuple[str, Claim]]:
    """Each claim with the name of its command, by the claim's number.

    Raises:
        RuntimeError: If two commands use the same number.
    """
    found: dict[int, tuple[str, Claim]] = {}
    for path in sorted(_SWEEPS.glob("*/claims.py")):
        name = path.parent.name
        for number, claim in importlib.import_module(f"sweeps.{name}.claims").CLAIMS.items():
            if number in found:
                raise RuntimeError(
                    f"sweeps/{name}/claims.py and sweeps/{found[number][0]}/claims.py both have a "
                    f"claim {number}. Give one of them another number."
                )
            found[number] = name, claim
    return dict(sorted(found.items()))
