"""Claims about recalibration on corrupted images."""

from __future__ import annotations

from sweeps.corruption.measures import (
    AFTER,
    BEFORE,
    KINDS,
    MIDDLE,
    PLAIN,
    by_network,
    mean_accuracy,
)
from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import check, statistic
from sweeps.harness.claims.evidence import StudyTables, pick
from sweeps.harness.claims.verdicts import Finding, UndecidedError, all_or_some
from sweeps.harness.claims.wording import listed
from sweeps.harness.results import intervals

_MUCH = 0.5  # smallest share of the lost accuracy that counts as much of it
_ENOUGH = 0.95  # smallest share of the full gain with which a number of images is enough
_FEWEST = 1000  # images that are enough according to the paper
# Fall of the error of a ResNet-50 on ImageNet-C, from 76.7% to 62.2% of AlexNet's (Schneider 2020).
_PUBLISHED = 1 - 62.2 / 76.7


def recalibration_recovers_accuracy(tables: StudyTables) -> Finding:
    """Claim 37, from the mean accuracy over the five strengths of each corruption.

    The loss is the accuracy on clean images minus that on corrupted ones. The recovered share is
    the rise in accuracy after recalibration on all images, over the loss.

    Reproduced: the recovered share is at least 0.5 for every corruption.
    Depends on the corruption: it is for some of them, and not for others.
    Not reproduced: it is for none.
    """
    networks = by_network(_rows(tables))
    if AFTER not in networks:
        raise UndecidedError("there are no recalibrated networks")
    clean = mean_accuracy(networks[BEFORE], "none")
    means = {
        name: {kind: mean_accuracy(rows, kind) for kind in KINDS} for name, rows in networks.items()
    }
    checks = {
        kind: check(_recovered(clean, means[BEFORE][kind], means[AFTER][kind]), "at least", _MUCH)
        for kind in KINDS
    }
    every = [mean_accuracy(networks[name], *KINDS) for name in (BEFORE, AFTER)]
    fall = statistic(lambda before, after: 1 - (1 - after) / (1 - before), *every)
    shown = listed(f"{each.number} for {kind}" for kind, each in checks.items())
    measured = (
        f"recovered share of the lost accuracy: {shown}; at least {_MUCH:g} counts as much. Over "
        f"all corruptions, the error falls by {fall.shown('.0%')}; the paper's ResNet-50 on "
        f"ImageNet-C has {_PUBLISHED:.0%}"
    )
    rows = [
        {
            "Corruption": kind,
            **{
                f"Accuracy, {name}": intervals.of_median(means[name][kind]).shown(".1%")
                for name in (PLAIN, BEFORE, AFTER)
                if name in means
            },
            "Recovered share": checks[kind].number,
        }
        for kind in KINDS
    ]
    return Finding(measured, all_or_some(checks, "the corruption"), rows)


def a_thousand_images_are_enough(tables: StudyTables) -> Finding:
    """Claim 38, from the mean accuracy over the four corruptions at strength 3.

    The gain is the rise in accuracy after recalibration. The full gain is that with the largest
    number of images. A number of images is enough if its gain is at least 0.95 of the full gain.

    Reproduced: every number of images from 1,000 on is enough.
    Depends on the number: some of these numbers are enough, and others are not.
    Not reproduced: none of them is enough.
    """
    rows = pick(_rows(tables), batch_norm=True, strength=MIDDLE)
    means = {count: mean_accuracy(each, *KINDS) for count, each in rows.groupby("images")}
    before, full = means.pop(0), means.pop(max(means))
    gains = {count: _recovered(full, before, mean) for count, mean in means.items()}
    checks = {
        f"{count:,} images": check(gain, "at least", _ENOUGH)
        for count, gain in gains.items()
        if count >= _FEWEST
    }
    if not checks:
        raise UndecidedError(f"there are no networks recalibrated on {_FEWEST:,} images or more")
    enough = [f"{count:,}" for count, gain in gains.items() if gain.at_least(_ENOUGH)]
    shown = listed(f"{each.number} with {name}" for name, each in checks.items())
    measured = (
        f"share of the full gain in accuracy: {shown}; {_ENOUGH:g} is needed. The fewest images "
        f"with that share are {enough[0] if enough else 'all'}; the paper recommends 1,000 to "
        "10,000"
    )
    shares = [
        {
            "Images": f"{count:,}",
            "Accuracy": intervals.of_median(means[count]).shown(".1%"),
            "Share of the full gain": gain.shown(".3g"),
        }
        for count, gain in gains.items()
    ]
    return Finding(measured, all_or_some(checks, "the number"), shares)


def _rows(tables):
    return tables.recorded("corruption", (), "corruption", "strength", "images", "accuracy")


def _recovered(best, worst, found):
    """(found - worst) / (best - worst), from medians over seeds."""
    return statistic(lambda b, w, f: (f - w) / (b - w), best, worst, found)


CLAIMS = {
    37: Claim(
        "Recalibration on corrupted images recovers much of the accuracy that the corruption costs",
        "Li et al. 2016, Schneider et al. 2020",
        recalibration_recovers_accuracy,
        needs=lambda trial: trial.batch_norm,
        charts="accuracy_by_strength",
    ),
    38: Claim(
        "1,000 to 10,000 images are enough to recalibrate on",
        "Wu & Johnson 2021",
        a_thousand_images_are_enough,
        needs=lambda trial: trial.batch_norm,
        charts="accuracy_by_images",
    ),
}
