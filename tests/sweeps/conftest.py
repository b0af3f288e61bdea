import pytest

from sweeps.harness.trial import Trial


@pytest.fixture
def record():
    """Makes a trial's record, as the store reads it."""
    return _record


def _record(steps, *, seed=0, depth=1, batch_norm=False, status="done", accuracy=0.9, **changes):
    """A trial's record; `steps` None: the target was missed."""
    trial = Trial(
        dataset="mnist_5k",
        seed=seed,
        hidden_units=(30, 20, 10)[:depth],
        batch_norm=batch_norm,
        learning_rate=changes.pop("learning_rate", 0.01),
        batch_size=500,
        max_steps=300,
        target_accuracy=0.9,
        **changes,
    )
    result = {
        "reached": steps is not None,
        "steps_to_target": steps,
        "seconds_to_target": None if steps is None else steps / 10,
        "final_step": steps or 300,
        "final_accuracy": accuracy,
        "best_accuracy": accuracy,
        "final_loss": 0.1234567890123456,
        "seconds_per_step": 0.1,
        "seconds_total": 31.0,
        "curve": [[1, 2.5, None], [2, None, 0.25]],
    }
    return {
        "trial_id": trial.id,
        "study": "depth",
        "status": status,
        "trial": trial.to_json(),
        "environment": {"threads": 1, "code": "c"},
        "commit": "abc",
        "finished_at": "2026-01-01T00:00:00+00:00",
        **({} if status == "failed" else result),
    }
