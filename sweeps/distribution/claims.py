"""Claims about the inputs of deep sigmoids."""

from __future__ import annotations

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import (
    StudyTables,
    in_steps,
    median_percent,
    median_steps,
    pick,
    under,
)
from sweeps.harness.claims.verdicts import (
    NOT_REPRODUCED,
    REPRODUCED,
    Finding,
    UndecidedError,
    all_parts,
)
from sweeps.harness.results.tables import target
from sweeps.harness.trial import arm_name


def higher_and_sooner(tables: StudyTables) -> Finding:
    """Claim 13, from the median final accuracy and the median steps to the target.

    Reproduced: with batch norm, the accuracy is higher and the steps are fewer.
    Depends on the part: only one of the two holds.
    Not reproduced: neither holds.
    """
    trials = tables.trials("final_accuracy", "steps_to_target")
    plain, normed = (pick(trials, batch_norm=arm) for arm in (False, True))
    words = "; ".join(
        f"{name}: the median final accuracy is {median_percent(group.final_accuracy)}, and the "
        f"median number of steps to {target(group)} is {in_steps(group)}"
        for name, group in ((arm_name(False), plain), (arm_name(True), normed))
    )
    if not np.isfinite([median_steps(plain), median_steps(normed)]).any():
        raise UndecidedError("neither arm reaches the target")
    parts = {
        "the accuracy is higher": normed.final_accuracy.median() > plain.final_accuracy.median(),
        "the steps are fewer": median_steps(normed) < median_steps(plain),
    }
    return Finding(words, all_parts(parts))


def percentiles_stay(tables: StudyTables) -> Finding:
    """Claim 14, from the median drift over units and seeds.

    The drift of a unit is the largest range over steps of its 15th, 50th and 85th percentiles,
    divided by the mean distance between the 15th and the 85th.

    Reproduced: batch norm drifts at most half as much as plain.
    Depends on the threshold: batch norm drifts less than plain, but more than half as much.
    Not reproduced: batch norm drifts at least as much as plain.
    """
    frame = tables.recorded("percentiles", (), "unit", "p15", "p50", "p85")
    frame["spread"] = frame.p85 - frame.p15
    runs = frame.groupby(["batch_norm", "trial_id", "unit"])
    columns = ["p15", "p50", "p85"]
    drift = (runs[columns].max() - runs[columns].min()).max(axis=1) / runs.spread.mean()
    plain, normed = (under(drift, arm).median() for arm in (False, True))
    words = (
        f"the percentiles move by {plain:.2g} times their spread without batch norm, and by "
        f"{normed:.2g} times with it (medians over {len(drift)} units in "
        f"{frame.trial_id.nunique()} runs); at most half as far counts as in place"
    )
    if normed <= plain / 2:
        return Finding(words, REPRODUCED)
    if normed < plain:
        return Finding(
            words,
            f"depends on the threshold: with batch norm, they move {normed / plain:.2g} times as "
            "far",
        )
    return Finding(words, NOT_REPRODUCED)


CLAIMS = {
    13: Claim(
        "With batch norm, a sigmoid network reaches higher test accuracy, and in fewer steps",
        "Ioffe & Szegedy 2015",
        higher_and_sooner,
    ),
    14: Claim(
        "Without batch norm, the percentiles of a sigmoid's input drift during training; with "
        "batch norm, they stay in place",
        "Ioffe & Szegedy 2015",
        percentiles_stay,
    ),
}
