"""The code fingerprint: it changes with the code that can change a number, and with no prose."""

import ast
import re
import shutil
from pathlib import Path

import pytest

import sweeps
from sweeps.harness.results import provenance

TRAINING = Path(sweeps.__file__).parent / "harness" / "training"
SOURCE = '''
"""A module."""

import math


class Layer:
    """A layer."""

    factor = 2

    def call(self, x, scale=1.5):
        """Scales x."""
        return self.factor * scale * x + math.pi  # after the scale


def log(x, *, base=10):
    """The logarithm."""
    return math.log(x) / math.log(base)
'''
REWRITTEN = """
import math  # for pi


class Layer:
    factor = (
        2
    )

    def call(self, x, scale=1.5):

        "The scaled x, which was the input."

        return (self.factor * scale
                * x + math.pi)


def log(
    x, *, base=10,
):
    # The logarithm.
    return math.log( x )/math.log(base)
"""


def test_prose_and_formatting_are_not_part_of_the_code():
    assert provenance.canonical(REWRITTEN) == provenance.canonical(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("factor = 2", "factor = 3"),
        ("factor = 2", "factor = 2.0"),
        ("scale=1.5", "scale=1.25"),
        ("base=10", "base=2"),
        ("* x + math.pi", "* x - math.pi"),
        ("* x + math.pi", "* (x + math.pi)"),
        ("math.log(x) /", "math.log(x) //"),
        ("(self, x, scale=1.5)", "(self, x, *, scale=1.5)"),
        ("math.pi", "math.tau"),
        ("class Layer:", "class Layer(object):"),
        ('"""The logarithm."""', 'x = "The logarithm."'),
    ],
)
def test_code_is(old, new):
    assert old in SOURCE
    assert provenance.canonical(SOURCE.replace(old, new)) != provenance.canonical(SOURCE)


def test_a_pattern_without_a_file_is_an_error(monkeypatch):
    added = ("sweeps", "harness/no_such_wing/**/*.py")
    monkeypatch.setattr(provenance, "SOURCES", (*provenance.SOURCES, added))
    with pytest.raises(RuntimeError, match=r"sweeps/harness/no_such_wing/\*\*/\*\.py"):
        provenance.code_fingerprint.__wrapped__()


@pytest.fixture
def copied(monkeypatch, tmp_path):
    """A copy of the fingerprinted folders, and a function that returns the copy's fingerprint."""
    names = {package: f"copy_of_{package}" for package, _ in provenance.SOURCES}
    for package, name in names.items():
        folder = Path(sweeps.__file__).parents[1] / package
        shutil.copytree(folder, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(str(tmp_path))
    patterns = tuple((names[package], pattern) for package, pattern in provenance.SOURCES)
    monkeypatch.setattr(provenance, "SOURCES", patterns)
    return tmp_path / "copy_of_sweeps", provenance.code_fingerprint.__wrapped__


def test_every_file_of_training_counts(copied, monkeypatch):
    folder, fingerprint = copied
    monkeypatch.setattr(provenance, "canonical", lambda source: source)  # parsing them takes long
    original = fingerprint()
    files = sorted(path.relative_to(TRAINING) for path in TRAINING.rglob("*.py"))
    assert len(files) > 8
    for file in files:
        path = folder / "harness" / "training" / file
        text = path.read_text()
        path.write_text(f"{text}\nCHANGED = 1\n")
        assert fingerprint() != original, file
        path.write_text(text)
    assert fingerprint() == original


def test_the_fingerprint_is_that_of_code_alone(copied):
    folder, fingerprint = copied
    original = fingerprint()
    path = folder / "harness" / "training" / "models.py"
    text = path.read_text()
    path.write_text(f"# A comment.\n{text}")
    assert fingerprint() == original
    path.write_text(f"{text}\nCHANGED = 1\n")
    assert fingerprint() != original
    path.write_text(text)
    (folder / "harness" / "charts" / "bars.py").write_text("CHANGED = 1\n")  # changes no number
    assert fingerprint() == original


def test_fingerprint_of_c_leaves_out_comments_and_layout():
    source = "int twice(int x) { return 2 * x; }"
    prose = "/* Doubles\n   x. */\nint twice(int x) {\n    return 2 * x; // quickly\n}"
    changed = source.replace("2", "3")
    assert provenance.canonical_c(prose).split() == provenance.canonical_c(source).split()
    assert provenance.canonical_c(changed) != provenance.canonical_c(source)


def test_fingerprint_covers_the_native_kernel():
    assert "kernels/native/batch_norm.c" in covered("kerasbn")


def covered(package):
    """The files of a package that the fingerprint covers."""
    folder = provenance._folder(package)
    patterns = [pattern for name, pattern in provenance.SOURCES if name == package]
    return {name for pattern in patterns for name, _ in provenance._sources(folder, pattern)}


def test_the_fingerprint_covers_everything_that_the_layer_imports():
    files = covered("kerasbn")
    layer = {name for name in files if name.endswith(".py") and not name.startswith("tools/")}
    for name in layer:
        tree = ast.parse((provenance._folder("kerasbn") / name).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kerasbn"):
                for each in _files_of(node):
                    other = {"torch", "jax", "_keras_private"}  # other backends, and adapters
                    assert each in files or other & set(re.split(r"[/.]", each)), (name, each)


def _files_of(node):
    """The files that a statement `from kerasbn... import ...` reads, relative to the package."""
    folder = node.module.split(".")[1:]
    inside = ["/".join([*folder, alias.name]) + ".py" for alias in node.names]
    found = [name for name in inside if (provenance._folder("kerasbn") / name).exists()]
    return found or (["/".join(folder) + ".py"] if folder and folder != ["kernels"] else [])


def test_a_program_has_its_own_fingerprint(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "_folder", lambda package: tmp_path)
    fingerprint = provenance.program_fingerprint.__wrapped__
    (tmp_path / "mine").mkdir()
    program = tmp_path / "mine" / "program.py"
    program.write_text("A = 1  # one\n")
    first = fingerprint("mine")
    program.write_text("A = 1\n")
    assert fingerprint("mine") == first
    (tmp_path / "mine" / "claims.py").write_text("A = 2\n")
    assert fingerprint("mine") == first
    program.write_text("A = 2\n")
    assert fingerprint("mine") != first
    assert fingerprint(None) is None


def test_a_program_that_is_a_package_counts_as_a_whole(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "_folder", lambda package: tmp_path)
    folder = tmp_path / "mine" / "program"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    first = provenance.program_fingerprint.__wrapped__("mine")
    (folder / "layers.py").write_text("A = 1\n")
    assert provenance.program_fingerprint.__wrapped__("mine") != first


def test_programs_import_no_other_module_of_their_study():
    folder = Path(sweeps.__file__).parent
    for path in [*folder.glob("*/program.py"), *folder.glob("*/program/**/*.py")]:
        study = path.relative_to(folder).parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", [])]
            module = getattr(node, "module", None) or ""
            for name in [module, *(f"{module}.{name}" for name in names)]:
                own = name.startswith((f"sweeps.{study}.program", f"sweeps.{study}.program."))
                assert own or not name.startswith(f"sweeps.{study}"), f"{path} imports {name}"
