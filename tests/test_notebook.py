"""The notebook in examples/ runs from top to bottom, with a small study."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_steps.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
# Defines what Jupyter adds to Python: the lines that begin with ! or % run in a shell. The study
# gets flags that make it small.
PREAMBLE = """
import subprocess

def shell(line):
    if "--quick" in line:
        line += " --hidden_units=50,25 --seeds=1 --max_steps=20 --workers=0"
    subprocess.run(line, shell=True, check=True)
"""


def test_it_runs(tmp_path):
    cells = [re.sub(r"^( *)[!%](.+)$", r"\1shell(r'''\2''')", cell, flags=re.M) for cell in CODE]
    program = "\n".join([PREAMBLE, *cells, "assert after > before + 0.1, (before, after)"])
    python = Path(sys.executable).parent
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(NOTEBOOK.parents[1]),
            "PATH": f"{python}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Demonstration with reduced settings" in done.stdout


def test_it_stores_no_outputs():
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_it_installs_from_the_repository():
    metadata = (NOTEBOOK.parents[1] / "setup.cfg").read_text()
    url = re.search(r"^url = (\S+)$", metadata, re.M)[1]
    assert f"git+{url}" in CODE[0]
    owner = url.removeprefix("https://github.com/")
    title = "".join(CELLS[0]["source"])
    assert f"colab.research.google.com/github/{owner}/blob/main/examples/{NOTEBOOK.name}" in title
