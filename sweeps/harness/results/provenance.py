"""Provenance of results: versions, processor, commit, and a fingerprint of the code."""

from __future__ import annotations

import ast
import functools
import hashlib
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib import metadata, util
from pathlib import Path
from typing import Any

# The code that can change a trial's numbers. Tables, charts, flags and the engine cannot. Trials
# run on TensorFlow, and their only tool is recalibrate, whose other modules choose layers and write
# messages.
SOURCES = (
    *(("kerasbn", f"{name}.py") for name in ("batch_norm", "moments", "_arguments", "_inputs")),
    *(("kerasbn", f"{name}.py") for name in ("_normalization", "_tensorflow_private")),
    *(("kerasbn", f"kernels/{name}.py") for name in ("__init__", "generic", "tensorflow*")),
    *(("kerasbn", f"kernels/native/{name}.py") for name in ("__init__", "sources", "tensorflow")),
    ("kerasbn", "kernels/native/*.[ch]"),
    *(("kerasbn", f"tools/{name}.py") for name in ("recalibration", "_collecting", "_population")),
    *(("kerasbn", f"tools/{name}.py") for name in ("_batches", "_arrays")),
    ("sweeps", "harness/trial.py"),
    ("sweeps", "harness/training/**/*.py"),
    ("sweeps", "harness/engine/runner.py"),
)
# NumPy draws the batches and the validation set, and SciPy makes the corruptions of images.
_NAMED = ("tensorflow", "keras", "kerasbn")  # packages with a column in the tables
_PACKAGES = (*_NAMED, "numpy", "scipy")


def environment() -> dict[str, str]:
    """Versions, code fingerprint, processor and batch norm kernel of this process."""
    from kerasbn import kernels

    status = kernels.native_status()
    kernel = f"native, {status.instruction_set}" if status.used else "plain"
    return {**_versions(_NAMED), "code": code_fingerprint(), "cpu": cpu_name(), "kernel": kernel}


@functools.cache
def code_fingerprint() -> str:
    """16 hexadecimal digits that identify the code that can change a number.

    The fingerprint covers this project's sources, the versions of the packages that they use, and
    whether the native kernel is used, because the plain formula rounds differently. Its instruction
    set changes no bit.
    Comments, docstrings and formatting do not count, so that tables stay valid when prose is
    rewritten. The sources are read, not imported.

    Raises:
        RuntimeError: If an entry of `SOURCES` matches no file.
    """
    digest = hashlib.sha256(repr((_versions(_PACKAGES), _native_kernel())).encode())
    for package, pattern in SOURCES:
        for name, source in _sources(_folder(package), pattern):
            text = canonical(source) if name.endswith(".py") else canonical_c(source)
            digest.update(f"{package}/{name}\0{text}\0".encode())
    return digest.hexdigest()[:16]


def fingerprints(programs: Iterable[str | None]) -> list[str | None]:
    """The code fingerprint, and those of these studies' own code."""
    return [code_fingerprint(), *map(program_fingerprint, programs)]


@functools.cache
def program_fingerprint(study: str | None) -> str | None:
    """16 hexadecimal digits that identify a study's own code; see `Trial.program`.

    It covers the module or package `program` in the study's folder. It is kept apart from
    `code_fingerprint`, so that a change of one study leaves the other tables valid.
    """
    if study is None:
        return None
    folder = _folder("sweeps") / study
    pattern = "program/**/*.py" if (folder / "program").is_dir() else "program.py"
    digest = hashlib.sha256()
    for name, source in _sources(folder, pattern):
        digest.update(f"{name}\0{canonical(source)}\0".encode())
    return digest.hexdigest()[:16]


def canonical(source: str) -> str:
    """The syntax tree of a Python source as text, without docstrings.

    `ast.dump` would not do: its output differs between versions of Python.
    """
    return repr(_canonical(ast.parse(source)))


def canonical_c(source: str) -> str:
    """A C source without comments, and with all white space as single blanks."""
    without_comments = re.sub(r"/\*.*?\*/|//[^\n]*", " ", source, flags=re.DOTALL)
    return " ".join(without_comments.split())


def commit() -> str:
    """The commit of the checkout, with "+" if the code has changes. Empty outside a checkout."""
    # Only the code counts. A run writes its own changes under results/.
    git = ["git", "-C", str(_folder("sweeps"))]
    try:
        head = _output([*git, "describe", "--always", "--abbrev=12"])
        changes = _output([*git, "status", "--porcelain", "--", ".", "../kerasbn"])
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if changes else "")


def cpu_name() -> str:
    """The processor's name, or its architecture if the system reports no name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _sources(folder, pattern):
    """The relative path and the text of each matching file. Raises an error if none matches."""
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise RuntimeError(
            f"The code fingerprint covers {folder.name}/{pattern}, which matches no file. "
            "Correct SOURCES in sweeps/harness/results/provenance.py."
        )
    return [(path.relative_to(folder).as_posix(), path.read_text()) for path in paths]


def _canonical(node: Any) -> Any:
    if isinstance(node, list):
        return [_canonical(each) for each in node]
    if not isinstance(node, ast.AST):
        return node
    fields = dict(ast.iter_fields(node))
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        fields["body"] = _without_docstring(node.body)
    # Empty fields do not count, because newer versions of Python add some to the same code.
    kept = [(name, _canonical(value)) for name, value in fields.items() if value not in (None, [])]
    return type(node).__name__, kept


def _without_docstring(body):
    first = body[0] if body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return body[1:] if isinstance(first.value.value, str) else body
    return body


def _output(command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _native_kernel():
    """Whether the native kernel is built and switched on. Importing kerasbn would take seconds."""
    path = _folder("kerasbn") / "kernels" / "native" / "sources.py"
    spec = util.spec_from_file_location("sources", path)
    sources = util.module_from_spec(spec)
    spec.loader.exec_module(sources)
    built = sources.LIBRARY.exists() and sources.mark() in sources.LIBRARY.read_bytes()
    return built and sources.switched_on()


def _versions(packages):
    return {name: metadata.version(name) for name in packages}


def _folder(package):
    return Path(util.find_spec(package).submodule_search_locations[0])
