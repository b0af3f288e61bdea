"""The data of the explorer: it is what the tables hold, and nothing else."""

import base64
import gzip
import json

import numpy as np
import pandas as pd
import pytest
from results_folders import TRACKED

from sweeps.harness.results import tables
from sweeps.report import explorer

DEPTH = TRACKED / "mnist" / "depth"


def unpacked(packed):
    """The groups, as the page's script reads them."""
    return json.loads(gzip.decompress(base64.b64decode(packed.text)))


def steps(runs):
    return [first + n * distance for first, distance, count in runs for n in range(count)]


def test_every_tracked_trial_is_there_with_its_curve():
    groups = unpacked(explorer.pack(explorer.gather([DEPTH])))
    found = {trial["id"]: (group, trial) for group in groups for trial in group["trials"]}
    trials = tables.read_trials(DEPTH).set_index("trial_id")
    assert sorted(found) == sorted(trials.index)
    curves = pd.read_csv(DEPTH / "curves.csv.xz", dtype={"trial_id": str})
    for trial_id, rows in curves.groupby("trial_id"):
        group, trial = found[trial_id]
        row = trials.loc[trial_id]
        assert (group["depth"], group["learning_rate"]) == (row.depth, row.learning_rate)
        assert group["arm"] == ("batch norm" if row.batch_norm else "plain")
        assert trial["seed"] == row.seed
        assert trial["steps_to_target"] == row.steps_to_target
        assert steps(trial["curve"][0]) == rows.step.tolist()
        np.testing.assert_allclose(trial["curve"][1], rows.train_loss, rtol=6e-4)
        evaluated = rows.dropna()
        assert steps(trial["accuracy"][0]) == evaluated.step.tolist()
        np.testing.assert_allclose(trial["accuracy"][1], evaluated.test_accuracy, rtol=6e-4)


def test_the_steps_of_a_group_are_those_of_its_seeds():
    groups = explorer.gather([DEPTH])
    summary = pd.read_csv(DEPTH / "summary.csv")
    for row in summary.itertuples():
        arm = "batch norm" if row.batch_norm else "plain"
        (group,) = [g for g in groups if (g["depth"], g["arm"]) == (row.depth, arm)]
        ordered = sorted(trial["steps_to_target"] for trial in group["trials"])
        assert group["steps"]["median"] == row.median_steps
        assert len(ordered) == 10
        assert [group["steps"][end] for end in ("low", "high")] == [ordered[1], ordered[8]]
        assert group["steps"]["reached"] == row.reached


def write(folder, **changes):
    """Six plain trials, one of which missed its target, and a crashed one."""
    rows = [
        {
            "trial_id": f"t{seed}", "seed": seed, "status": "done", "depth": 2,
            "hidden_units": "20-10", "activation": "relu", "batch_norm": False,
            "learning_rate": 0.1, "max_steps": 300, "target_accuracy": 0.9,
            "steps_to_target": None if seed == 5 else 10 + seed, "final_accuracy": 0.9,
            **changes,
        }
        for seed in range(6)
    ]  # fmt: skip
    rows.append({**rows[0], "trial_id": "crashed", "status": "failed"})
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(folder / "trials.csv", index=False)


def test_misses_and_crashes_are_no_numbers(tmp_path):
    write(tmp_path / "mine")
    (group,) = explorer.gather([tmp_path / "mine"])
    assert [trial["steps_to_target"] for trial in group["trials"]] == [10, 11, 12, 13, 14, None]
    assert group["steps"]["text"] == "12.5 [10, >300]"
    assert group["steps"]["high"] is None
    assert "curve" not in group["trials"][0]  # there is no table of curves


def test_a_study_without_a_target_has_no_steps(tmp_path):
    write(tmp_path / "mine", target_accuracy=None, steps_to_target=None)
    (group,) = explorer.gather([tmp_path / "mine"])
    assert group["steps"] is None


def test_folders_without_trials_are_left_out(tmp_path):
    (tmp_path / "cost").mkdir()
    assert explorer.gather([tmp_path / "cost"]) == []


def points_of(trial):
    runs, losses = trial["curve"]
    return list(zip(steps(runs), losses, strict=True))


@pytest.mark.parametrize("most", [1, 7, 50])
def test_thin_curves_keep_real_points_the_last_one_and_every_evaluation(most):
    groups = explorer.gather([DEPTH])
    whole, thin = (explorer.pack(groups, number) for number in (None, most))
    assert (whole.thinned, thin.thinned) == ([], ["depth"])
    for before, after in zip(unpacked(whole), unpacked(thin), strict=True):
        for full, short in zip(before["trials"], after["trials"], strict=True):
            assert short["accuracy"] == full["accuracy"]
            points, kept = map(points_of, (full, short))
            assert set(kept) <= set(points)
            assert kept[-1] == points[-1]
            assert len(kept) <= most + 1 + len(full["accuracy"][1])
