"""The claim on the exponential learning rate."""

from __future__ import annotations

from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import check
from sweeps.harness.claims.evidence import StudyTables, pick
from sweeps.harness.claims.verdicts import Finding, all_parts
from sweeps.harness.results import intervals

_RATE = 0.2  # the learning rate of the claim
_SAME = 1e-8  # largest difference of a logit at which two functions count as the same


def same_function(tables: StudyTables) -> Finding:
    """Claim 32, from the largest difference of a logit between the two runs, over all steps.

    Numbers are medians over seeds, at the learning rate of 0.2. Differences up to 1e-8 are rounding
    errors, which training amplifies.

    Reproduced: the largest difference is at most 1e-8 with the exponential rate. It is above 1e-8
        with a constant rate and with the exponent -2t, so the comparison can fail.
    Depends on the part: some of the three hold.
    Not reproduced: none of the three holds.
    """
    frame = tables.recorded("difference", ("learning_rate", "schedule"), "difference")
    largest = frame.groupby(["learning_rate", "schedule", "trial_id"], as_index=False).agg(
        difference=("difference", "max")
    )

    def of(rate, schedule):
        rows = pick(largest, learning_rate=rate, schedule=schedule)
        return intervals.of_median(rows.difference)

    checks = {
        "the exponential rate gives the same function": check(
            of(_RATE, "exponential"), "at most", _SAME, ".1e"
        ),
        "a constant rate gives another function": check(
            of(_RATE, "constant"), "above", _SAME, ".1e"
        ),
        "the exponent -2t gives another function": check(
            of(_RATE, "exponent -2t"), "above", _SAME, ".1e"
        ),
    }
    exponential, constant, shifted = (each.number for each in checks.values())
    measured = (
        f"within {frame.step.max()} steps, the logits differ by at most {exponential} with the "
        f"exponential rate (the theorem says 0), {constant} with a constant rate and {shifted} "
        f"with the exponent -2t; a single rounding error in the initial weights grows to "
        f"{of(_RATE, 'rounding').shown('.1e')}"
    )
    rows = [
        {
            "Rate": f"{rate:g}",
            "Schedule": "one rounding error" if schedule == "rounding" else schedule,
            "Largest difference": of(rate, schedule).shown(".1e"),
            "Runs": str(len(group)),
        }
        for (rate, schedule), group in largest.groupby(["learning_rate", "schedule"])
    ]
    return Finding(measured, all_parts(checks), rows)


CLAIMS = {
    32: Claim(
        "With batch norm, gradient descent with weight decay L and a constant rate r computes the "
        "same function as gradient descent without decay and with the rate r (1 - L r)^(-2t-1)",
        "Li & Arora 2020",
        same_function,
        needs=lambda trial: trial.learning_rate == _RATE,
    ),
}
