"""Claims about random networks in which only gamma and beta of batch norm train."""

from __future__ import annotations

from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import both, check, check_between, difference, sample
from sweeps.harness.claims.evidence import StudyTables, pick
from sweeps.harness.claims.verdicts import Finding, all_or_some
from sweeps.harness.claims.wording import listed
from sweeps.harness.results import intervals
from sweeps.harness.trial import Trial
from sweeps.only_batch_norm import measures

_FAR = 0.5  # smallest accuracy that is far more than that of guessing among ten classes
_THIRD = (0.25, 0.42)  # shares that count as about a third: 1/3 with a twelfth on either side


def gamma_and_beta_are_enough(tables: StudyTables) -> Finding:
    """Claim 33, from the median accuracy at the end, for each network.

    The claim holds for a network if the accuracy with only gamma and beta trained is above 50%,
    five times that of guessing, and above the accuracy with as many random weights trained.

    Reproduced: it holds for all networks.
    Depends on the network: it holds for some of them.
    Not reproduced: it holds for none.
    """
    trials = tables.trials("architecture", "trained", "gamma_l2", "final_accuracy")
    trials = pick(trials, gamma_l2=0.0)
    counts = tables.read("parameters", "trial_id", "step", "parameters", "total")
    counts = measures.at_end(counts)[["trial_id", "parameters", "total"]]
    trials = trials.merge(counts, on="trial_id")
    checks, words, rows = {}, [], []
    for network in sorted(trials.architecture.unique()):
        of_network = {
            name: pick(trials, architecture=network, trained=name) for name in measures.TRAINED
        }
        accuracy = {name: 100 * _accuracy(group) for name, group in of_network.items()}
        alone = intervals.of_median(accuracy["batch_norm"])
        lead = difference(accuracy["batch_norm"], accuracy["random"])
        title = measures.NETWORKS[network]
        checks[title] = both(check(alone, "above", 100 * _FAR), check(lead, "above", 0))
        words.append(
            f"{title}: {alone.shown('.3g')}%, {lead.shown('.3g')} points more than as many random "
            "weights"
        )
        rows += [
            {
                "Network": title,
                "Trained": measures.TRAINED[name],
                "Parameters": f"{group.parameters.max():,}",
                "Share": f"{(group.parameters / group.total).max():.2%}",
                "Median accuracy": (intervals.of_median(accuracy[name] / 100)).shown(".1%"),
            }
            for name, group in of_network.items()
        ]
    measured = (
        f"test accuracy with only gamma and beta trained, for {'; for '.join(words)} (above "
        f"{100 * _FAR:g}% counts as far more than chance; in the paper, such a ResNet reaches 82% "
        "on CIFAR-10)"
    )
    return Finding(measured, all_or_some(checks, "the network"), rows)


def a_third_of_the_gammas_vanish(tables: StudyTables) -> Finding:
    """Claim 34, from the share of gammas below 0.01 in size at the end, as a median over seeds.

    The claim holds for a network if the share is from 0.25 to 0.42 when only gamma and beta train,
    without a penalty on gamma.

    Reproduced: it holds for all networks.
    Depends on the network: it holds for some of them.
    Not reproduced: it holds for none.
    """
    shares = measures.near_zero(tables.read("gammas", "trial_id", "step", "gamma"))
    trials = tables.trials("architecture", "trained", "gamma_l2")
    trials = trials.assign(share=trials.trial_id.map(shares))
    checks, penalized, rows = {}, [], []
    for (network, trained, l2), group in trials.groupby(["architecture", "trained", "gamma_l2"]):
        if trained not in ("all", "batch_norm"):
            continue
        found = intervals.of_median(group.share.dropna())
        if trained == "batch_norm" and l2 == 0:
            checks[measures.NETWORKS[network]] = check_between(found, *_THIRD, ".2g")
        elif trained == "batch_norm":
            penalized.append(f"{found.shown('.2g')} for {measures.NETWORKS[network]} at {l2:g}")
        rows.append(
            {
                "Network": measures.NETWORKS[network],
                "Trained": measures.TRAINED[trained],
                "L2 on gamma": f"{l2:g}",
                "Gammas near 0": found.shown(".1%"),
            }
        )
    measured = (
        f"share of gammas below {measures.NEAR_ZERO:g} in size: "
        f"{listed(f'{each.number} for {name}' for name, each in checks.items())} "
        f"({_THIRD[0]:g} to {_THIRD[1]:g} counts as the paper's third; at the start it is "
        f"{measures.NEAR_ZERO:g})"
    )
    if penalized:
        measured += f"; with an L2 penalty on gamma, {listed(penalized)}"
    return Finding(measured, all_or_some(checks, "the network"), rows)


def _accuracy(trials):
    """The final accuracy by seed. A diverged run has learned nothing."""
    return sample(trials, "final_accuracy", blank=0.0)


def _without_penalty(trial: Trial) -> bool:
    return dict(trial.options)["gamma_l2"] == 0


CLAIMS = {
    33: Claim(
        "Training only gamma and beta of a random network reaches far more than chance, and beats "
        "training as many random weights",
        "Frankle et al. 2021",
        gamma_and_beta_are_enough,
        needs=_without_penalty,
        charts="accuracy",
    ),
    34: Claim(
        "If only gamma and beta train, about a third of the gammas end near 0",
        "Frankle et al. 2021",
        a_third_of_the_gammas_vanish,
        needs=lambda trial: dict(trial.options)["trained"] in ("all", "batch_norm"),
        charts="gammas",
    ),
}
