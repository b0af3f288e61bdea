"""README.md and docs/: their code runs, and their numbers are those of the tracked results."""

import configparser
import contextlib
import importlib.util
import io
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kerasbn
from sweeps import catalog

ROOT = Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location("fill_in", ROOT / "docs/fill_in_numbers.py")
fill_in = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fill_in)

TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in fill_in.DOCUMENTS}
# A block of Python, with its output: the indented lines right after it.
BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n(?P<output>(?: {4}[^\n]*\n)+))?", re.DOTALL)


def with_python():
    return [name for name, text in TEXTS.items() if "```python" in text]


@pytest.fixture
def few_images(monkeypatch):
    """MNIST's loader gives a few random images, and needs no download."""
    rng = np.random.default_rng(0)

    def images(count):
        return rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count)

    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: (images(512), images(256)))


@pytest.mark.parametrize("name", with_python())
def test_code_runs(name, few_images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.backend.clear_session()  # names in the output count from zero
    names = {"__name__": name}
    text = TEXTS[name]
    for block in BLOCK.finditer(text):
        lines_before = text.count("\n", 0, block.start("code"))
        code = compile("\n" * lines_before + block["code"], ROOT / name, "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, names)
        if block["output"]:
            expected = "\n".join(line[4:] for line in block["output"].splitlines())
            assert expected in printed.getvalue()


@pytest.mark.parametrize("name", TEXTS)
def test_numbers_are_those_of_the_tracked_results(name):
    filled_in = fill_in.filled_in(TEXTS[name])
    assert filled_in == TEXTS[name], "run: python docs/fill_in_numbers.py"


@pytest.mark.parametrize("name", TEXTS)
def test_tables_of_measurements_say_where_they_come_from(name):
    for table in re.finditer(r"(?P<before>[^\n]*)\n(?P<rows>(?:\|[^\n]*\n)+)", TEXTS[name]):
        numbers = re.findall(r"\| [\d.]+\d%?(?: \([^|]*\))?(?= \|)", table["rows"])
        measured = [number for number in numbers if "." in number or "/" in number]
        defaults = table["rows"].startswith("| Flag |")
        assert defaults or not measured or table["before"] == "-->", f"no source for {measured}"


def test_wrong_numbers_are_found():
    name = "README.md"
    wrong, numbers = re.subn(r"\*\*[\d.]+%?\*\*(?=<!-- =)", "**0**", TEXTS[name])
    wrong, cells = re.subn(r"\| \d[\d.]*(?= \|)", "| 0", wrong)
    assert numbers > 4
    assert cells > 6
    assert fill_in.filled_in(wrong) == TEXTS[name]


@pytest.mark.parametrize("name", [*TEXTS, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name):
    document = ROOT / name
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_readme_is_short_and_has_the_two_commands():
    readme = TEXTS["README.md"]
    assert len(readme.splitlines()) <= 150
    for command in (
        "pip install -e '.[sweeps]' && python -m sweeps.depth",
        "pip install -e '.[test]' && python -m pytest",
    ):
        assert f"\n    {command}\n" in readme


def test_extras_that_documents_name_exist():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = set(config["options.extras_require"])
    for name, text in TEXTS.items():
        for named in re.findall(r"'(?:\.|kerasbn)\[([\w,]+)\]'", text):
            assert set(named.split(",")) <= extras, f"{name}: {named}"


def test_the_changelog_has_this_version():
    released = re.findall(r"^## \[(\d\S+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == kerasbn.__version__


def output_of(*arguments):
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def first_column(document, header):
    """The words in backticks in the first column of the table with this header."""
    table = TEXTS[document].split(f"{header}\n")[1].split("\n\n")[0]
    return [word for line in table.splitlines() for word in re.findall(r"^\| `([^`]+)`", line)]


def test_the_flags_are_those_of_the_depth_study():
    documented = first_column("docs/flags_and_tables.md", "| Flag | Default in `depth` | Meaning |")
    assert sorted(documented) == sorted(
        re.findall(r"^ +(--[^:\s]+):", output_of("sweeps.depth", "--help"), re.MULTILINE)
    )


def test_the_flags_that_a_study_lacks_are_those_in_the_table():
    rows = TEXTS["docs/flags_and_tables.md"].split("| Flags that it lacks |")[1].splitlines()[2:]
    documented, name = {}, ""
    for line in rows[: rows.index("")]:
        study, lacks = (re.findall("`(?:--)?([^`]+)`", cell) for cell in line.split("|")[1:3])
        # A study may have several rows. Only the first one has its name.
        name = study[0] if study else name
        documented[name] = documented.get(name, set()) | set(lacks)
    studies = {name: catalog.study(name) for name in catalog.commands()}
    lacking = {name: set(study.without) for name, study in studies.items() if study}
    assert documented == {name: flags for name, flags in lacking.items() if flags}


def test_the_studies_are_those_that_there_are():
    documented = first_column("docs/studies.md", "| Study | Question | Seeds | Time |")
    listed = re.findall(r"^  (\w+)  ", output_of("sweeps"), re.MULTILINE)
    assert sorted([*documented, "cost", "tools", "report"]) == sorted(listed)
