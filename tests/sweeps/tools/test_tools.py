"""`python -m sweeps.tools` and the numbers in its tables."""

import subprocess
import sys

import pandas as pd
from matplotlib import image

from sweeps.harness import trial
from sweeps.harness.cli import command
from sweeps.tools.__main__ import COMMAND


def test_tables_say_what_the_tools_did(small_data, tmp_path, monkeypatch):
    # The network to recalibrate is as deep as the depth study's: for its statistics to lag behind,
    # two layers are enough.
    monkeypatch.setattr(trial, "HIDDEN_UNITS", (60, 30))
    # In this process, where TensorFlow may have started already.
    status = command.main(
        COMMAND,
        [
            *["tools", "--dataset=custom", f"--data_dir={small_data}"],
            *[f"--results_dir={tmp_path}", "--network=none", "--seeds=1", "--rounds=2"],
        ],
    )
    assert status == 0
    folder = tmp_path / "custom" / "tools"
    stages = pd.read_csv(folder / "stages.csv").set_index("stage")
    assert stages.bn_layers.to_dict() == {
        "trained": 4,
        "recalibrated": 4,
        "to_keras": 4,
        "folded": 0,
        "saved and loaded": 0,
    }
    same = stages.drop("trained")
    assert (same.relative_error < 1e-5).all()
    assert same.test_accuracy.nunique() == 1
    assert stages.time_over_folded["folded"] == 1.0
    assert (stages.milliseconds > 0).all()
    recalibration = pd.read_csv(folder / "recalibration.csv")
    assert recalibration[["seed", "steps", "bn_momentum"]].to_numpy().tolist() == [[0, 20, 0.99]]
    # 20 steps in, moving averages of momentum 0.99 are mostly their initial values.
    row = recalibration.iloc[0]
    assert row.test_accuracy < row.test_accuracy_recalibrated
    assert image.imread(folder / "inference.png").shape[2] == 4


def test_a_network_that_it_does_not_know():
    arguments = [sys.executable, "-m", "sweeps.tools", "--network=VGG16"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 2
    assert "VGG16" in done.stderr
    assert "MobileNetV2" in done.stderr
