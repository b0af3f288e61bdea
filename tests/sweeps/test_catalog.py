"""The catalog finds studies and claims in the folders of `sweeps`."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import sweeps
from sweeps import catalog
from sweeps.depth import claims as depth_claims
from sweeps.lenet import claims as lenet_claims

ROOT = Path(sweeps.__file__).parents[1]
TINY = {
    "__init__.py": '"""A study for a test."""\n',
    "__main__.py": '''"""What does a tiny network learn? A study for a test."""

import functools
import sys

from sweeps.harness.cli import flags
from sweeps.harness.cli.study import Study, main


def trials(values, data):
    return [
        flags.trial(values, data.name, batch_norm=batch_norm, seed=seed)
        for batch_norm in flags.arms(values)
        for seed in range(values.seeds)
    ]


def draw(tables, folder):
    from sweeps.harness import charts

    panels = {
        title: functools.partial(charts.steps_to_target, series, x="depth")
        for title, series in charts.facets(tables.trials, "depth").items()
    }
    settings = charts.settings(tables.trials)
    path = folder / "tiny_steps.png"
    return [charts.save_panels(path, panels, "Steps", settings, columns=2)]


STUDY = Study(
    name="tiny",
    question="What does a tiny network learn?",
    trials=trials,
    varied=("depth", "batch_norm"),
    draw=draw,
    defaults={"hidden_units": "3", "seeds": 2, "max_steps": 2, "batch_size": 50},
    captions={"tiny_*.png": "Which arm is faster?"},
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
''',
    "claims.py": '''"""Claims on tiny networks."""

from sweeps.harness.claims import REPRODUCED, Claim, Finding


def all_ran(tables):
    trials = tables.trials("final_step")
    return Finding(f"{len(trials)} trials of {trials.final_step.max()} steps", REPRODUCED)


CLAIMS = {901: Claim("Tiny networks train", "this test", all_ran)}
''',
}


def test_every_number_is_there():
    assert {*range(1, 29), 42} <= set(catalog.claims()) <= set(range(1, 43))


def test_a_study_is_one_new_folder_and_nothing_else(small_data, tmp_path):
    for package in ("kerasbn", "sweeps"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    (tmp_path / "sweeps" / "tiny").mkdir()
    for name, text in TINY.items():
        (tmp_path / "sweeps" / "tiny" / name).write_text(text)

    def run(*command):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,  # from here, Python finds the copies first
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    line = r"\n  tiny +What does a tiny network learn\? A study for a test\.\n"
    assert re.search(line, run("sweeps"))
    printed = run(
        *["sweeps.tiny", "--dataset=custom", f"--data_dir={small_data}", "--workers=0"],
        "--batch_norm",
    )
    folder = tmp_path / "runs" / "custom" / "tiny"
    assert "runs/custom/tiny/tiny_steps.png" in printed
    trials = pd.read_csv(folder / "trials.csv")
    assert trials[["study", "hidden_units", "batch_norm", "seed"]].values.tolist() == [
        ["tiny", 3, True, 0],
        ["tiny", 3, True, 1],
    ]
    run("sweeps.report")
    report = (tmp_path / "runs" / "README.md").read_text()
    assert (
        "**Undecided.** 2 of the 4 trials that the claim needs are missing (batch norm plain)"
        in report
    )
    other = run(
        *["sweeps.tiny", "--dataset=custom", f"--data_dir={small_data}", "--workers=0"],
        *["--nobatch_norm", "--max_steps=1"],
    )
    assert "The folder also holds 2 trials with other settings." in other
    run("sweeps.tiny", "--dataset=custom", f"--data_dir={small_data}", "--workers=0")
    run("sweeps.report")
    report = (tmp_path / "runs" / "README.md").read_text()
    assert "\n## tiny\n\nWhat does a tiny network learn? A study for a test.\n" in report
    assert "![Tiny study: tiny steps](custom/tiny/tiny_steps.png)" in report
    assert "\n\nWhich arm is faster?\n" in report
    row = ["901", "Tiny networks train", "this test", "4 trials of 2 steps.", "**Reproduced.**"]
    command = "`python -m sweeps.tiny --dataset=custom`"
    assert f"| {' | '.join([*row, command])} |" in report.splitlines()


def test_two_studies_with_the_same_claim_number_are_both_named(monkeypatch):
    monkeypatch.setitem(lenet_claims.CLAIMS, 1, depth_claims.CLAIMS[1])
    both = r"sweeps/lenet/claims\.py and sweeps/depth/claims\.py both have a claim 1\."
    with pytest.raises(RuntimeError, match=both):
        catalog.claims()
