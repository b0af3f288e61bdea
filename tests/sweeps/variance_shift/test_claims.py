"""The rules of the variance-shift study, on tables made by hand for each verdict."""

import pytest
from claim_tables import NO, YES, assert_verdict, rows_of, trial, trials

from sweeps.harness import claims
from sweeps.variance_shift import ratios


def finding(judge, number, accuracies, factors=(1.0, 1.0)):
    """accuracies: keep rate -> (moving averages, recalibrated, as in training).

    factors: the measured ratio over the predicted one, in the first layer and in later ones.
    """
    frame = trials(*[trial(batch_norm=True, keep_rate=rate) for rate in accuracies])
    spread = {t.trial_id: 0.001 * (t.seed % 6) for t in frame.itertuples()}

    def kinds(t):
        names = ("moving averages", "recalibrated", "as in training")
        return [
            {"step": 5, "inference": name, "accuracy": value + spread[t.trial_id]}
            for name, value in zip(names, accuracies[t.keep_rate], strict=True)
        ]

    def units(t):
        for layer in (1, 2, 3):
            factor = factors[min(layer, 2) - 1] if t.keep_rate < 1 else 1.9
            for unit, off in ((1, 0.7), (2, 1.0), (3, 1.8)):
                ratio = factor * off * ratios.predicted(0.5, 2.0, t.keep_rate)
                moments = {"mean": 0.5, "variance": 2.0, "test_variance": 3 * ratio}
                yield {"step": 5, "layer": layer, "unit": unit, **moments, "moving_variance": 3.0}

    return judge(
        number,
        trials=frame,
        accuracies=rows_of(frame, "accuracies", kinds),
        variances=rows_of(frame, "variances", units),
    )


FALLS = {0.5: (0.6, 0.8, 0.5), 0.9: (0.8, 0.88, 0.8), 1.0: (0.9, 0.9, 0.9)}
CAUSE = {**FALLS, 0.5: (0.6, 0.8, 0.7)}
STAYS = {0.5: (0.9, 0.9, 0.9), 1.0: (0.9, 0.9, 0.9)}


@pytest.mark.parametrize(
    ("accuracies", "factors", "verdict"),
    [
        (CAUSE, (1.05, 0.95), YES),
        (CAUSE, (1.05, 0.7), "depends on the part: it is true that the ratio follows the formula"),
        (FALLS, (1.05, 0.95), "depends on the part: it is true that the ratio follows the formula"),
        (STAYS, (0.8, 0.7), NO),
    ],
)
def test_ratio_follows_the_formula(judge, accuracies, factors, verdict):
    found = finding(judge, 35, accuracies, factors)
    assert_verdict(found, verdict)
    first, later = (abs(factor - 1) for factor in factors)
    assert f"{first:.3g} [" in found.measured
    assert f"{later:.3g} [" in found.measured
    assert found.rows[0]["Keep rate"] == "0.5"
    predicted = ratios.predicted(0.5, 2.0, 0.5)
    assert found.rows[0]["Predicted ratio, layer 1"].startswith(f"{predicted:.2f} [")
    assert found.rows[0]["Measured ratio, later layers"].startswith(
        f"{factors[1] * predicted:.2f} ["
    )


@pytest.mark.parametrize(
    ("at_half", "at_nine_tenths", "verdict"),
    [
        ((0.6, 0.8, 0.5), (0.8, 0.88, 0.8), YES),
        ((0.6, 0.65, 0.7), (0.8, 0.88, 0.8), "depends on the keep rate: it holds at 0.9, but not"),
        ((0.6, 0.5, 0.5), (0.8, 0.8, 0.8), f"{NO}: without recalibration, inference at keep rate"),
        ((0.6, 0.6, 0.7), (0.8, 0.8, 0.8), NO),
        # A keep rate that costs nothing needs no repair.
        ((0.6, 0.8, 0.5), (0.9, 0.8, 0.8), YES),
    ],
)
def test_recalibration_repairs(judge, at_half, at_nine_tenths, verdict):
    accuracies = {0.5: at_half, 0.9: at_nine_tenths, 1.0: (0.9, 0.9, 0.9)}
    found = finding(judge, 36, accuracies)
    assert_verdict(found, verdict)
    share = (at_half[1] - at_half[0]) / (0.9 - at_half[0])
    assert f"{share:.2f} [" in found.measured
    if verdict == NO:
        assert found.verdict == NO


def test_without_a_loss_there_is_nothing_to_repair(judge):
    with pytest.raises(claims.UndecidedError, match="nothing to repair"):
        finding(judge, 36, STAYS)


@pytest.mark.parametrize("number", [35, 36])
def test_the_claims_need_networks_without_dropout(judge, number):
    with pytest.raises(claims.UndecidedError, match="without dropout"):
        finding(judge, number, {0.5: (0.6, 0.7, 0.5)})
