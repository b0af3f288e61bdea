"""The rules of the corruption study, on tables made by hand for each verdict."""

import pytest
from claim_tables import NO, YES, assert_verdict, rows_of, trial, trials

from sweeps.harness import claims

KINDS = ("noise", "blur", "contrast", "brightness")


def study(judge, number, after, *, before=0.5, clean=0.9, counts=None, seeds=6, unsteady=0.0):
    """A study with the accuracies after recalibration on all images, by corruption.

    Args:
        judge: The fixture.
        number: Number of the claim.
        after: Accuracy on each corruption after recalibration on all images.
        before: Accuracy on every corruption before.
        clean: Accuracy on the clean images.
        counts: Accuracy at strength 3 by the number of images.
        seeds: Number of seeds.
        unsteady: Difference in accuracy between two halves of the seeds.
    """
    frame = trials(trial(batch_norm=True), trial(batch_norm=False), seeds=seeds)

    def rows(t):
        found = [("none", 0, 0, clean)]
        for kind, best in zip(KINDS, after, strict=True):
            for strength in (1, 2, 3, 4, 5):
                shift = 0.1 * (strength - 3) + unsteady * (t.seed % 2)  # no shift in the mean
                found.append((kind, strength, 0, before + 0.1 * (strength - 3)))
                if t.batch_norm:
                    found.append((kind, strength, 10_000, best + shift))
                    if strength == 3:
                        found += [(kind, 3, n, a) for n, a in (counts or {}).items()]
        names = ("corruption", "strength", "images", "accuracy")
        return [{"step": 9, **dict(zip(names, row, strict=True))} for row in found]

    return judge(number, trials=frame, corruption=rows_of(frame, "corruption", rows))


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        ((0.71, 0.8, 0.9, 0.85), YES),
        (
            (0.69, 0.8, 0.9, 0.85),
            "depends on the corruption: it holds for blur, contrast and brightness, but not for "
            "noise",
        ),
        ((0.6, 0.5, 0.4, 0.69), NO),
    ],
)
def test_recovered_share(judge, after, verdict):
    finding = study(judge, 37, after)
    assert_verdict(finding, verdict)
    assert [row["Corruption"] for row in finding.rows] == list(KINDS)
    assert finding.rows[1]["Accuracy, batch norm"].startswith("50.0%")
    assert finding.rows[1]["Recovered share"].startswith(f"{(after[1] - 0.5) / 0.4:.3g}")
    assert "19%" in finding.measured  # the paper's number


def test_the_error_falls_by_the_share_of_all_corruptions(judge):
    finding = study(judge, 37, (0.75, 0.75, 0.75, 0.75))
    assert "the error falls by 50% [50%, 50%]" in finding.measured


def test_an_interval_with_the_threshold_inside_is_undecided(judge):
    finding = study(judge, 37, (0.65, 0.8, 0.9, 0.85), unsteady=0.1)
    assert_verdict(finding, "undecided: the 95% interval contains the threshold for noise")


def test_few_seeds_are_undecided(judge):
    assert_verdict(study(judge, 37, (0.8,) * 4, seeds=5), "undecided: 5 seeds")


@pytest.mark.parametrize(
    ("counts", "verdict", "fewest"),
    [
        ({10: 0.6, 100: 0.885, 1000: 0.895, 3000: 0.899}, YES, "100"),
        ({10: 0.6, 100: 0.7, 1000: 0.895, 3000: 0.899}, YES, "1,000"),
        (
            {10: 0.6, 1000: 0.87, 3000: 0.895},
            "depends on the number: it holds for 3,000 images, but not for 1,000 images",
            "3,000",
        ),
        ({10: 0.6, 1000: 0.6, 3000: 0.7}, NO, "all"),
    ],
)
def test_enough_images(judge, counts, verdict, fewest):
    finding = study(judge, 38, (0.9,) * 4, counts=counts)
    assert_verdict(finding, verdict)
    assert f"The fewest images with that share are {fewest};" in finding.measured
    assert [row["Images"] for row in finding.rows] == [f"{count:,}" for count in counts]


@pytest.mark.parametrize("number", [37, 38])
def test_without_recalibrated_networks_there_is_no_evidence(judge, number):
    frame = trials(trial(batch_norm=False))
    found = rows_of(
        frame,
        "corruption",
        lambda t: [
            {"step": 9, "corruption": "noise", "strength": 3, "images": 0, "accuracy": 0.5},
        ],
    )
    with pytest.raises(claims.UndecidedError):
        judge(number, trials=frame, corruption=found)
