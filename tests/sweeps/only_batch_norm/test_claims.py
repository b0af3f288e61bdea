"""The rules about networks in which only batch norm trains, on tables made by hand."""

import pandas as pd
import pytest
from claim_tables import NO, YES, assert_verdict, rows_of, trial, trials

NETWORKS = ("dense", "lenet")
PARTS = {"all": 1000, "batch_norm": 20, "output": 30, "random": 20}


def accuracies(alone, random):
    """A table with these accuracies of (dense, lenet)."""
    return trials(
        *[
            trial(
                batch_norm=True,
                architecture=network,
                trained=trained,
                gamma_l2=penalty,
                final_accuracy=accuracy - penalty,
            )
            for network, *found in zip(NETWORKS, alone, random, strict=True)
            for trained, accuracy in (
                ("all", 0.98),
                ("output", 0.9),
                ("batch_norm", found[0]),
                ("random", found[1]),
            )
            for penalty in (0.0, 0.1)
        ]
    )


@pytest.mark.parametrize(
    ("alone", "random", "verdict"),
    [
        ((0.8, 0.9), (0.4, 0.5), YES),
        ((0.8, 0.9), (0.4, 0.95), "depends on the network: it holds for three dense layers, but"),
        ((0.45, 0.9), (0.4, 0.5), "depends on the network: it holds for LeNet, but"),
        ((0.45, 0.9), (0.4, 0.95), NO),
    ],
)
def test_gamma_and_beta_are_enough(judge, alone, random, verdict):
    frame = accuracies(alone, random)
    made = rows_of(
        frame,
        "parameters",
        lambda t: [{"step": s, "parameters": PARTS[t.trained] + s, "total": 1000} for s in (0, 5)],
    )
    finding = judge(33, trials=frame, parameters=made)
    assert_verdict(finding, verdict)
    assert "82% on CIFAR-10" in finding.measured
    shown = f"three dense layers: {100 * alone[0]:g} [{100 * alone[0]:g}, {100 * alone[0]:g}]%"
    assert shown in finding.measured
    assert [row["Parameters"] for row in finding.rows[:4]] == ["1,005", "25", "35", "25"]


def test_a_diverged_run_has_learned_nothing(judge):
    frame = accuracies((0.8, 0.9), (0.4, 0.5))
    frame.loc[frame.trained == "batch_norm", "final_accuracy"] = None
    made = rows_of(frame, "parameters", lambda t: [{"step": 5, "parameters": 20, "total": 1000}])
    assert_verdict(judge(33, trials=frame, parameters=made), NO)


@pytest.mark.parametrize(
    ("near", "verdict"),
    [
        ((33, 30), YES),
        ((33, 10), "depends on the network: it holds for three dense layers, but not for LeNet"),
        ((60, 10), NO),
    ],
)
def test_a_third_of_the_gammas_vanish(judge, near, verdict):
    frame = accuracies((0.8, 0.9), (0.4, 0.5))
    counts = dict(zip(NETWORKS, near, strict=True))

    def gammas(t):
        count = counts[t.architecture] if t.trained == "batch_norm" and not t.gamma_l2 else 2
        ends = [(-1) ** u * (0.0099 if u < count else 0.0101) for u in range(100)]
        return [
            {"step": step, "layer": 1, "unit": u + 1, "gamma": gamma}
            for step, values in ((0, [0.001] * 100), (5, ends))
            for u, gamma in enumerate(values)
        ]

    made = rows_of(frame, "gammas", gammas)
    finding = judge(34, trials=frame, gammas=made)
    assert_verdict(finding, verdict)
    share = f"{near[0] / 100:.2g}"
    assert f"{share} [{share}, {share}] for three dense layers" in finding.measured
    assert "with an L2 penalty on gamma, 0.02 [0.02, 0.02] for three dense" in finding.measured
    found = pd.DataFrame(finding.rows).set_index(["Network", "Trained", "L2 on gamma"])
    shown = found["Gammas near 0"]
    assert len(shown) == 2 * 2 * 2
    assert shown["LeNet", "all parameters", "0"] == "2.0% [2.0%, 2.0%]"
    assert shown["LeNet", "gamma and beta only", "0.1"] == "2.0% [2.0%, 2.0%]"
    assert (
        shown["LeNet", "gamma and beta only", "0"] == f"{near[1]}.0% [{near[1]}.0%, {near[1]}.0%]"
    )
