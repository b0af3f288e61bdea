"""Claims on what goes into a deep sigmoid."""

from __future__ import annotations

from sweeps.harness.claims import Claim
from sweeps.harness.claims.evidence import (
    StudyTables,
    in_steps,
    median_percent,
    median_steps,
    pick,
    under,
)
from sweeps.harness.claims.verdicts import NOT_REPRODUCED, REPRODUCED, Finding, all_or_some
from sweeps.harness.results.tables import target
from sweeps.harness.trial import arm_name


def higher_and_sooner(tables: StudyTables) -> Finding:
    """13. Higher: median final accuracy; sooner: median steps to the target."""
    trials = tables.trials("final_accuracy", "steps_to_target")
    plain, normed = (pick(trials, batch_norm=arm) for arm in (False, True))
    words = "; ".join(
        f"{name}: {median_percent(group.final_accuracy)} in the end, "
        f"{target(group)} in {in_steps(group)} steps"
        for name, group in ((arm_name(False), plain), (arm_name(True), normed))
    )
    parts = {
        "higher": normed.final_accuracy.median() > plain.final_accuracy.median(),
        "sooner": median_steps(normed) < median_steps(plain),
    }
    return Finding(words, all_or_some(parts, "the part"))


def percentiles_stay(tables: StudyTables) -> Finding:
    """14. Drift of a unit: how far the most mobile of its three percentiles travels (its range over
    steps), over the mean distance of the outer two. Reproduced: with batch norm, the median over
    units and seeds is at most half the plain one. Depends: it is smaller, by less."""
    frame = tables.recorded("percentiles", (), "unit", "p15", "p50", "p85")
    frame["spread"] = frame.p85 - frame.p15
    runs = frame.groupby(["batch_norm", "trial_id", "unit"])
    columns = ["p15", "p50", "p85"]
    drift = (runs[columns].max() - runs[columns].min()).max(axis=1) / runs.spread.mean()
    plain, normed = (under(drift, arm).median() for arm in (False, True))
    words = (
        f"drift over spread: plain {plain:.2g}, batch norm {normed:.2g} "
        f"({len(drift)} units of {frame.trial_id.nunique()} runs)"
    )
    if normed <= plain / 2:
        return Finding(words, REPRODUCED)
    if normed < plain:
        return Finding(words, f"depends on how much is drift: {normed / plain:.2g} of the plain")
    return Finding(words, NOT_REPRODUCED)


CLAIMS = {
    13: Claim(
        "Higher test accuracy, sooner",
        "Ioffe & Szegedy 2015",
        higher_and_sooner,
    ),
    14: Claim(
        "Percentiles of a sigmoid's input drift without, and stay put with it",
        "Ioffe & Szegedy 2015",
        percentiles_stay,
    ),
}
