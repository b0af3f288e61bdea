from sweeps.harness.cli import progress
from sweeps.harness.trial import Trial

COMMON = {
    "dataset": "mnist",
    "seed": 3,
    "hidden_units": (100, 50),
    "learning_rate": 0.01,
    "batch_size": 8,
    "max_steps": 40,
    "target_accuracy": 0.9,
}
PLAIN = Trial(batch_norm=False, **COMMON)
GROUPS = Trial(batch_norm=False, group_norm=10, **COMMON)
BATCH_NORM = Trial(batch_norm=True, **COMMON)


def test_a_trial_is_described_by_depth_arm_seed_and_outcome():
    done = {"status": "done", "steps_to_target": 17}
    assert progress.describe(PLAIN, done) == "2 layers, plain, seed 3: 17 steps"
    missed = {"status": "done", "steps_to_target": None}
    text = progress.describe(BATCH_NORM, missed)
    assert text == "2 layers, batch norm, seed 3: not reached in 40 steps"
    diverged = {"status": "diverged"}
    assert progress.describe(PLAIN, diverged) == "2 layers, plain, seed 3: diverged"


def test_trials_of_one_depth_arm_and_seed_show_the_fields_in_which_they_differ():
    # Arms differ in all fields of batch norm, and depths in their units. Neither is repeated.
    assert progress.distinguishing_fields([PLAIN, BATCH_NORM]) == []
    fields = progress.distinguishing_fields([PLAIN, GROUPS, BATCH_NORM])
    assert fields == ["group_norm"]
    done = {"status": "done", "steps_to_target": 17}
    text = progress.describe(GROUPS, done, fields)
    assert text == "2 layers, plain, group_norm=10, seed 3: 17 steps"
    assert progress.describe(PLAIN, done, fields) == "2 layers, plain, seed 3: 17 steps"
