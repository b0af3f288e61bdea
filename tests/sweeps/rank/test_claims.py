"""The rule of the rank study, on tables made by hand for each verdict."""

import numpy as np
import pytest
from claim_tables import NO, YES, assert_verdict, rows_of, trial, trials

from sweeps.harness import claims


def finding(judge, kept, slopes, widths=(32, 128, 512)):
    """kept: plain share of the first layer's rank. slopes: exponent with batch norm, by network."""
    frame = trials(
        *[
            trial(activation=name, batch_norm=arm, width=width, depth=100)
            for name in kept
            for arm in (False, True)
            for width in widths
        ]
    )

    def rows(t):
        last = 2.0 * t.width ** slopes[t.activation] if t.batch_norm else t.width
        last *= 1.0 if t.batch_norm else kept[t.activation]
        spread = 1 + 0.001 * (t.seed % 6)
        ranks = {0: 300, 1: t.width, 50: 17, 100: last * spread}
        return [
            {"step": 0, "layer": layer, "rank": rank, "stable_rank": np.sqrt(rank)}
            for layer, rank in ranks.items()
        ]

    return judge(31, trials=frame, ranks=rows_of(frame, "ranks", rows))


@pytest.mark.parametrize(
    ("kept", "slopes", "verdict"),
    [
        ((0.05, 0.02), (0.6, 0.9), YES),
        ((0.05, 0.5), (0.6, 0.9), "depends on the network: it holds for networks without"),
        ((0.05, 0.02), (0.4, 0.9), "depends on the network: it holds for ReLU networks"),
        ((0.3, 0.02), (0.6, 0.2), NO),
    ],
)
def test_rank_grows_with_the_width(judge, kept, slopes, verdict):
    networks = ("linear", "relu")
    kept, slopes = (dict(zip(networks, each, strict=True)) for each in (kept, slopes))
    found = finding(judge, kept, slopes)
    assert_verdict(found, verdict)
    assert f"slope with batch norm is {slopes['linear']:g} [" in found.measured
    assert len(found.rows) == 8  # a network, an arm and a kind of rank each
    stable = found.rows[3]  # half the slope of the rank
    assert stable["Rank of the last layer"] == "stable rank"
    assert stable["Slope"].startswith(f"{slopes['linear'] / 2:g} [")


def test_a_single_width_has_no_slope(judge):
    with pytest.raises(claims.UndecidedError, match="several widths"):
        finding(judge, {"linear": 0.1, "relu": 0.1}, {"linear": 1, "relu": 1}, widths=(128,))
