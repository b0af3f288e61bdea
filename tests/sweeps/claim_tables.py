"""Tables made by hand, for tests of the rules that decide on claims."""

import itertools

import pandas as pd

from sweeps.harness import claims

YES, NO = claims.REPRODUCED, claims.NOT_REPRODUCED
COMMON = {"status": "done", "seed": 0, "max_steps": 300, "target_accuracy": 0.9}
_ids = itertools.count()


def trial(**fields):
    return {**COMMON, "trial_id": f"t{next(_ids):04}", **fields}


def trials(*rows, seeds=6):
    """The trials, each repeated with so many seeds, starting with its own."""
    frame = pd.DataFrame(
        [
            {**row, "trial_id": f"{row['trial_id']}-{n}", "seed": row["seed"] * seeds + n}
            for row in rows
            for n in range(seeds)
        ]
    )
    if "steps_to_target" in frame:
        frame["reached"] = frame.steps_to_target.notna()
    return frame


def rows_of(frame, name, make):
    """A long table: make(trial) gives rows without the trial's id."""
    return pd.DataFrame(
        [{"trial_id": t.trial_id, **row} for t in frame.itertuples() for row in make(t)]
    )


def assert_verdict(finding, expected):
    assert finding.verdict.startswith(expected), finding
    assert finding.measured


def depths(batch_norm, *steps, seeds=6):
    return trials(
        *[
            trial(depth=d, batch_norm=batch_norm, steps_to_target=each)
            for d, each in enumerate(steps, 1)
        ],
        seeds=seeds,
    )
