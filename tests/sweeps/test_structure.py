"""Imports go one way: from the command line down to the modules that everything uses."""

import ast
from pathlib import Path

import pytest

import kerasbn
import sweeps

ROOT = Path(sweeps.__file__).parents[1]
# The harness's wings and modules by layer. A module may import those of lower layers only.
LAYERS = {
    **dict.fromkeys(["errors", "quiet", "timing", "trial", "wording"], 1),
    **dict.fromkeys(["data", "results", "training"], 2),
    **dict.fromkeys(["charts", "claims", "engine"], 3),
    "cli": 4,
}


def modules(package):
    """The modules of a package, by name, with their syntax trees."""
    found = {}
    for path in Path(package.__file__).parent.rglob("*.py"):
        name = ".".join(path.relative_to(Path(package.__file__).parents[1]).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = ast.parse(path.read_text())
    return found


SWEEPS, KERASBN = modules(sweeps), modules(kerasbn)


def imported(name, tree, known):
    """The modules that a module imports, inside functions and for type checking, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import, which this test cannot follow"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


IMPORTS = {name: set(imported(name, tree, SWEEPS)) for name, tree in SWEEPS.items()}


def wing(module):
    """The part of the harness that a module is in: a folder or a top-level module."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["sweeps", "harness"] and len(parts) > 2 else None


def edges():
    return {
        (wing(name), wing(each))
        for name, found in IMPORTS.items()
        for each in found
        if wing(name) and wing(each) and wing(name) != wing(each)
    }


def test_every_part_of_the_harness_has_its_layer():
    assert {wing(name) for name in SWEEPS} - {None} == set(LAYERS)


def test_wings_of_the_harness_import_lower_layers_only():
    assert ("cli", "engine") in edges()
    assert [edge for edge in sorted(edges()) if LAYERS[edge[0]] <= LAYERS[edge[1]]] == []


def test_the_harness_imports_no_study():
    strays = [
        (name, each)
        for name, found in IMPORTS.items()
        for each in found
        if wing(name) and each.startswith("sweeps.") and wing(each) is None
    ]
    assert strays == []


def test_no_module_imports_itself_in_a_circle():
    done, path = set(), []

    def visit(name):
        assert name not in path, " imports ".join([*path[path.index(name) :], name])
        if name in done:
            return
        path.append(name)
        for each in sorted(IMPORTS[name] & set(SWEEPS) - {name}):
            visit(each)
        done.add(path.pop())

    for name in SWEEPS:
        visit(name)
    assert done == set(SWEEPS)


@pytest.mark.parametrize("name", KERASBN)
def test_kerasbn_never_imports_sweeps(name):
    found = set(imported(name, KERASBN[name], KERASBN))
    assert [each for each in found if each.split(".")[0] == "sweeps"] == []
