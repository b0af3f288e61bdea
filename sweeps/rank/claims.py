"""The claim on the rank of deep random networks."""

from __future__ import annotations

import numpy as np

from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import both, check, ratio, sample, statistic
from sweeps.harness.claims.evidence import StudyTables, pick
from sweeps.harness.claims.verdicts import Finding, UndecidedError, all_or_some
from sweeps.harness.results import intervals
from sweeps.harness.trial import arm_name

_WIDTH = 128  # width at which the collapse is judged
_COLLAPSE = 0.1  # largest share of the first layer's rank that counts as a collapse
_SLOPE = 0.5  # the exponent of a square root
_NETWORKS = {"linear": "networks without activation", "relu": "ReLU networks"}


def rank_grows_with_width(tables: StudyTables) -> Finding:
    """Claim 31, from the number of singular values above 1% of the largest, medians over seeds.

    The rank of plain networks collapses if, at width 128, the last layer's rank is at most a tenth
    of the first layer's. The rank with batch norm grows like the square root of the width, or
    faster, if the slope of its logarithm against the logarithm of the width is at least 0.5 in the
    last layer.

    Reproduced: both hold, without activation and for ReLU.
    Depends on the network: both hold for one of the two.
    Not reproduced: both hold for neither.
    """
    settings = ("activation", "width", "depth")
    frame = tables.recorded("ranks", settings, "layer", "rank", "stable_rank")
    last = frame[frame.layer == frame.depth]
    if last.width.nunique() < 2:
        raise UndecidedError("the claim needs several widths")
    checks, words, rows = {}, [], []
    for activation, name in _NETWORKS.items():
        plain, normed = (pick(last, activation=activation, batch_norm=arm) for arm in (False, True))
        first = pick(frame, activation=activation, batch_norm=False, layer=1, width=_WIDTH)
        kept = ratio(sample(pick(plain, width=_WIDTH), "rank"), sample(first, "rank"))
        collapse, growth = check(kept, "at most", _COLLAPSE), _growth(normed, "rank", _SLOPE)
        checks[name] = both(collapse, growth)
        words.append(
            f"{name} keep {collapse.number} of the first layer's rank without batch norm, and the "
            f"slope with batch norm is {growth.number}"
        )
        rows += _rows(activation, plain, normed)
    measured = (
        f"after {last.depth.max()} layers, {'; '.join(words)}; 0.1 or less counts as a collapse, "
        "and the paper proves a slope of at least 0.5 for linear networks"
    )
    return Finding(measured, all_or_some(checks, "the network"), rows)


def _growth(rows, column, bound):
    """The slope of log rank against log width, compared with a bound."""
    widths = sorted(rows.width.unique())
    samples = [sample(rows[rows.width == width], column) for width in widths]
    logs = np.log(widths) - np.log(widths).mean()

    def slope(*medians):
        return sum(x * np.log(y) for x, y in zip(logs, medians, strict=True)) / (logs**2).sum()

    return check(statistic(slope, *samples), "at least", bound)


def _rows(activation, *arms):
    """The table below the claim: both ranks by width, and their slopes."""
    for rows in arms:
        for column, title in (("rank", "above 1%"), ("stable_rank", "stable rank")):
            cells = {
                f"Width {width}": intervals.of_median(group[column]).shown(".3g")
                for width, group in rows.groupby("width")
            }
            yield {
                "": f"{'no activation' if activation == 'linear' else 'ReLU'}, "
                f"{arm_name(rows.batch_norm.iloc[0])}",
                "Rank of the last layer": title,
                **cells,
                "Slope": _growth(rows, column, _SLOPE).number,
            }


CLAIMS = {
    31: Claim(
        "Without batch norm, the rank of deep random networks collapses towards 1; with batch "
        "norm, it grows at least as fast as the square root of the width",
        "Daneshmand et al. 2020",
        rank_grows_with_width,
    ),
}
