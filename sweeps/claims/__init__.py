"""The claims that the studies check, numbered, each with the rule that decides on it.

A rule is a function of a study's tables as they lie on the disk; it returns what was measured, in
words, and a verdict: "reproduced", "not reproduced", or "depends on ..." with the condition that
the numbers show. Its thresholds are in its
docstring, or in its module as constants. Medians are over seeds; a run that did not
reach its target counts as infinite, and how many did stands beside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from sweeps.claims import (
    activation,
    batch_size,
    cost,
    depth,
    distribution,
    gradients,
    initialization,
    learning_rate,
    lenet,
    moving_average,
    regularization,
)
from sweeps.claims.evidence import StudyTables
from sweeps.claims.verdicts import NOT_REPRODUCED, NOT_RUN, REPRODUCED, Finding, NotRunError

__all__ = [
    "CLAIMS",
    "NOT_REPRODUCED",
    "NOT_RUN",
    "REPRODUCED",
    "Claim",
    "Finding",
    "NotRunError",
    "StudyTables",
]


class Claim(NamedTuple):
    """A claim and how it is decided.

    Attributes: text: The claim. source: Whose. study: Which study has its numbers. rule: Decides.
    """

    text: str
    source: str
    study: str
    rule: Callable[[StudyTables], Finding]


_RAWLES, _IOFFE = "Rawles 2018", "Ioffe & Szegedy 2015"
CLAIMS: Mapping[int, Claim] = {
    1: Claim(
        "Plain: steps to 90% grow with every added layer", _RAWLES, "depth", depth.plain_steps_grow
    ),
    2: Claim("Batch norm: they are nearly constant", _RAWLES, "depth", depth.batch_norm_steps_stay),
    3: Claim(
        "A batch-norm step costs more: less is gained in seconds",
        _RAWLES,
        "cost",
        cost.less_gained_in_seconds,
    ),
    4: Claim(
        "7 layers of sigmoids stay near chance; with batch norm, about as many steps as ReLU",
        _RAWLES,
        "activation",
        activation.sigmoid_needs_batch_norm,
    ),
    5: Claim(
        "ELU and leaky ReLU resist vanishing gradients without batch norm",
        _RAWLES,
        "activation",
        activation.elu_and_leaky_relu_resist,
    ),
    6: Claim(
        "Batch norm reaches the plain net's accuracy in far fewer steps",
        _IOFFE,
        "learning_rate",
        learning_rate.far_fewer_steps,
    ),
    7: Claim(
        "It trains at rates where plain nets diverge or stall",
        _IOFFE,
        "learning_rate",
        learning_rate.trains_where_plain_does_not,
    ),
    8: Claim(
        "Sigmoids train with it and not without, and stay behind ReLUs",
        _IOFFE,
        "learning_rate",
        learning_rate.sigmoid_trains_behind_relu,
    ),
    9: Claim(
        "LeNet's training loss is at 0.55 in an epoch or two, and much later without",
        "LeNet tutorials",
        "lenet",
        lenet.lenet_loss_falls_at_once,
    ),
    10: Claim(
        "At such rates its test accuracy swings",
        "LeNet tutorials",
        "lenet",
        lenet.lenet_accuracy_swings,
    ),
    11: Claim(
        "ReLU, badly initialized: the plain net cannot fit, batch norm can",
        "Morvan",
        "initialization",
        initialization.relu_cannot_fit_without,
    ),
    12: Claim(
        "Plain tanh saturates at both ends, batch norm keeps it inside",
        "Morvan",
        "initialization",
        initialization.plain_tanh_saturates,
    ),
    13: Claim(
        "Higher test accuracy, sooner", _IOFFE, "distribution", distribution.higher_and_sooner
    ),
    14: Claim(
        "Percentiles of a sigmoid's input drift without, and stay put with it",
        _IOFFE,
        "distribution",
        distribution.percentiles_stay,
    ),
    15: Claim(
        "Plain gradients shrink towards the input (sigmoid strongly, ReLU hardly); batch norm "
        "keeps them level",
        _IOFFE,
        "gradients",
        gradients.gradients_shrink,
    ),
    16: Claim(
        "Deep ReLU nets with it: squared gradients grow 1.47 times a layer; 50 layers are hard",
        "Yang et al. 2019",
        "gradients",
        gradients.batch_norm_gradients_grow,
    ),
    17: Claim(
        "At batch 1 nothing is learned",
        "arithmetic",
        "batch_size",
        batch_size.nothing_learned_from_one,
    ),
    18: Claim(
        "Batch norm gets worse as the batch shrinks, group norm does not",
        "Wu & He 2018",
        "batch_size",
        batch_size.small_batches_hurt_batch_norm,
    ),
    19: Claim("Renorm recovers part of it", "Ioffe 2017", "batch_size", batch_size.renorm_recovers),
    20: Claim(
        "Dropout and L2 matter less: without them, the gap is smaller",
        _IOFFE,
        "regularization",
        regularization.regularization_matters_less,
    ),
    21: Claim(
        "Steps to 90% depend on the momentum more than on the training",
        "Wu & Johnson 2021",
        "moving_average",
        moving_average.momentum_decides,
    ),
    22: Claim(
        "Recalibrated and debiased statistics remove the lag",
        "Wu & Johnson 2021",
        "moving_average",
        moving_average.debiased_removes_lag,
    ),
    23: Claim(
        "Fusing (a kernel of its own, XLA) takes much of batch norm's cost away",
        "practice",
        "cost",
        cost.fusing_takes_cost_away,
    ),
    24: Claim(
        "A folded net costs what the plain net costs",
        "practice",
        "cost",
        cost.folded_costs_as_plain,
    ),
    25: Claim(
        "Decaying the rate six times faster costs the batch-norm net nothing",
        _IOFFE,
        "learning_rate",
        learning_rate.fast_decay_costs_nothing,
    ),
}
