"""Each rule on tables made by hand, for each verdict that it can give."""

import itertools

import numpy as np
import pandas as pd
import pytest

from sweeps.harness import claims
from sweeps.harness.cli import catalog
from sweeps.harness.errors import UserError

YES, NO = claims.REPRODUCED, claims.NOT_REPRODUCED
CLAIMS = catalog.claims()


@pytest.fixture
def judge(tmp_path):
    """Writes tables and gives the finding on a claim."""

    def judge(number, **frames):
        study, claim = CLAIMS[number]
        folder = tmp_path / study
        folder.mkdir(exist_ok=True)
        for name, frame in frames.items():
            frame.to_csv(folder / f"{name}.csv", index=False)
        return claim.rule(claims.StudyTables(folder))

    return judge


COMMON = {"status": "done", "seed": 0, "max_steps": 300, "target_accuracy": 0.9}
_ids = itertools.count()


def trial(**fields):
    return {**COMMON, "trial_id": f"t{next(_ids):04}", **fields}


def trials(*rows):
    frame = pd.DataFrame(rows)
    if "steps_to_target" in frame:
        frame["reached"] = frame.steps_to_target.notna()
    return frame


def rows_of(frame, name, make):
    """A long table: make(trial) gives rows without the trial's id."""
    return pd.DataFrame(
        [{"trial_id": t.trial_id, **row} for t in frame.itertuples() for row in make(t)]
    )


def assert_verdict(finding, expected):
    assert finding.verdict.startswith(expected), finding
    assert finding.measured


def test_every_number_from_1_to_25_is_there():
    assert sorted(CLAIMS) == list(range(1, 26))


def depths(batch_norm, *steps):
    return trials(
        *[
            trial(depth=d, batch_norm=batch_norm, seed=s, steps_to_target=each)
            for d, each in enumerate(steps, 1)
            for s in range(3)
        ]
    )


@pytest.mark.parametrize(
    ("number", "arm", "steps", "verdict"),
    [
        (1, False, (17, 20, 25), YES),
        (1, False, (17, 20, None), YES),
        (1, False, (17, 30, 25), "depends on the layer: no growth from 2 to 3"),
        (1, False, (17, None, None), "depends on the layer: no growth from 2 to 3"),
        (1, False, (17, 20, 16), NO),
        (2, True, (16, 12, 18), YES),
        (2, True, (16, 9, 19), "depends on the baseline depth: at most 1.2 times"),
        (2, True, (16, 17, 30), NO),
        (2, True, (16, 17, None), NO),
    ],
)
def test_depth(judge, number, arm, steps, verdict):
    finding = judge(number, trials=depths(arm, *steps))
    assert_verdict(finding, verdict)
    assert f"1: {steps[0]} (3/3)" in finding.measured
    if steps[-1] is None:
        assert "3: >300 (0/3)" in finding.measured


@pytest.mark.parametrize(
    ("plain", "with_it", "verdict"),
    [
        ([0.11, 0.12], 38, YES),
        ([0.11, 0.78], 38, "depends on the seed: 1 of 2"),
        ([0.11, 0.12], 41, "depends on the part"),
        ([0.11, 0.12], None, "depends on the part"),
        ([0.5, 0.78], 38, NO),
    ],
)
def test_sigmoid(judge, plain, with_it, verdict):
    frame = trials(
        *[
            trial(activation="sigmoid", batch_norm=False, best_accuracy=a, steps_to_target=None)
            for a in plain
        ],
        trial(activation="sigmoid", batch_norm=True, best_accuracy=0.9, steps_to_target=with_it),
        trial(activation="relu", batch_norm=True, best_accuracy=0.9, steps_to_target=20),
    )
    assert_verdict(judge(4, trials=frame), verdict)


@pytest.mark.parametrize(
    ("elu", "leaky", "verdict"),
    [
        (40, 50, YES),
        (40, 60, "depends on the activation: yes: elu; no: leaky_relu"),
        (None, 60, NO),
    ],
)
def test_elu(judge, elu, leaky, verdict):
    steps = {"relu": 50, "elu": elu, "leaky_relu": leaky}
    frame = trials(
        *[trial(activation=a, batch_norm=False, steps_to_target=n) for a, n in steps.items()]
    )
    assert_verdict(judge(5, trials=frame), verdict)


@pytest.mark.parametrize(
    ("at_low", "at_high", "verdict"),
    [
        (40, 20, YES),
        (60, 20, "depends on the learning rate: yes: 0.1; no: 0.02"),
        (60, 80, NO),
    ],
)
def test_fewer_steps(judge, at_low, at_high, verdict):
    frame = trials(
        *[
            trial(activation="relu", learning_rate=rate, decay_steps=None, batch_norm=arm, at=at)
            for rate, arm, at in [(0.02, False, 100), (0.02, True, at_low), (0.1, True, at_high)]
        ]
    )
    curves = rows_of(
        frame,
        "curves",
        lambda t: [
            {"step": s, "test_accuracy": 0.95 if s >= t.at else 0.5} for s in range(20, 121, 20)
        ],
    )
    finding = judge(6, trials=frame, curves=curves)
    assert_verdict(finding, verdict)
    assert "steps to 95.0% accuracy: plain 100 (learning rate 0.02)" in finding.measured


def rates(reached, best=None):
    """Trials by (activation, batch_norm, rate): whether they reach the target."""
    return trials(
        *[
            trial(
                activation=name,
                batch_norm=arm,
                learning_rate=rate,
                decay_steps=None,
                reached=hit,
                best_accuracy=(best or {}).get((name, arm), 0.9),
            )
            for (name, arm, rate), hit in reached.items()
        ]
    )


@pytest.mark.parametrize(
    ("relu_plain", "sigmoid_plain", "verdict"),
    [
        (False, False, YES),
        (False, True, "depends on the activation: yes: relu; no: sigmoid"),
        (True, True, NO),
    ],
)
def test_trains_at_rates(judge, relu_plain, sigmoid_plain, verdict):
    reached = {("relu", True, 3.0): True, ("sigmoid", True, 3.0): True}
    reached |= {("relu", False, 3.0): relu_plain, ("sigmoid", False, 3.0): sigmoid_plain}
    assert_verdict(judge(7, trials=rates(reached)), verdict)


@pytest.mark.parametrize(
    ("normed", "plain", "best", "verdict"),
    [
        (True, False, 0.91, YES),
        (True, True, 0.91, "depends on the learning rate: plain sigmoids train at 0.6"),
        (True, False, 0.97, "depends on the part: sigmoids train only with batch norm, but"),
        (False, False, 0.85, NO),
    ],
)
def test_sigmoid_behind_relu(judge, normed, plain, best, verdict):
    reached = {("sigmoid", True, 0.6): normed, ("sigmoid", False, 0.6): plain}
    reached[("relu", True, 0.6)] = True
    frame = rates(reached, {("sigmoid", True): best, ("relu", True): 0.95})
    assert_verdict(judge(8, trials=frame), verdict)


@pytest.mark.parametrize(
    ("at_low", "at_high", "verdict"),
    [
        (0.948, 0.96, YES),
        (0.93, 0.95, "depends on the activation and the rate: yes: relu at 0.6; no: relu at 0.02"),
        (0.93, 0.93, NO),
    ],
)
def test_decay(judge, at_low, at_high, verdict):
    frame = trials(
        *[
            trial(
                activation="relu",
                batch_norm=True,
                learning_rate=rate,
                decay_steps=decay,
                best_accuracy=best,
            )
            for rate, decay, best in [
                (0.02, 1000, 0.95),
                (0.6, 1000, 0.95),
                (0.02, 167, at_low),
                (0.6, 167, at_high),
            ]
        ]
    )
    assert_verdict(judge(25, trials=frame), verdict)


@pytest.mark.parametrize(
    ("plain", "normed", "verdict"),
    [
        (6, 2, YES),
        (3, 2, "depends on the part: yes: batch norm needs at most two epochs; no: plain needs"),
        (9, 4, "depends on the part: yes: plain needs at least twice as many; no: batch norm"),
        (5, 4, NO),
        (99, 99, NO),  # never, both
    ],
)
def test_lenet_loss(judge, plain, normed, verdict):
    frame = trials(
        trial(batch_norm=False, learning_rate=0.9, at=plain),
        trial(batch_norm=False, learning_rate=1.0, at=1),
        trial(batch_norm=True, learning_rate=0.9, at=9),
        trial(batch_norm=True, learning_rate=1.0, at=normed),
    )
    curves = rows_of(
        frame,
        "curves",
        lambda t: [
            {"step": 235 * e, "train_loss": 0.5 if e >= t.at else 0.6} for e in range(1, 11)
        ],
    )
    assert_verdict(judge(9, trials=frame, curves=curves), verdict)


@pytest.mark.parametrize(
    ("falls", "verdict"),
    [((0.05, 0.02), YES), ((0.05, 0.01), "depends on the seed: 1 of 2"), ((0.01, 0.0), NO)],
)
def test_lenet_swings(judge, falls, verdict):
    frame = trials(*[trial(batch_norm=True, learning_rate=1.0, fall=fall) for fall in falls])
    curves = rows_of(
        frame,
        "curves",
        lambda t: [
            {"step": s, "test_accuracy": a}
            for s, a in enumerate([0.8, 0.75 + 0.125, 0.875 - t.fall - 1e-9, 0.9])
        ],
    )
    assert_verdict(judge(10, trials=frame, curves=curves), verdict)


@pytest.mark.parametrize(
    ("plain", "normed", "verdict"),
    [
        ([90, 80], [5, 6], YES),
        ([90, 20], [5, 6], "depends on the seed: 3 of 4"),
        ([20, 20], [5, 6], NO),
        ([90, 90], [15, 16], NO),
    ],
)
def test_fit(judge, plain, normed, verdict):
    frame = trials(
        *[
            trial(activation="relu", batch_norm=arm, loss=loss)
            for arm, losses in ((False, plain), (True, normed))
            for loss in losses
        ]
    )
    evaluation = rows_of(
        frame,
        "evaluation",
        lambda t: [
            {"step": s, "data": d, "loss": t.loss if (s, d) == (1, "test") else 1e3 * (d == "test")}
            for s in (0, 1, 2)
            for d in ("train", "test")
        ],
    )
    predictions = rows_of(frame, "predictions", lambda t: [{"step": 2, "y": y} for y in (10, -10)])
    assert_verdict(judge(11, trials=frame, evaluation=evaluation, predictions=predictions), verdict)


@pytest.mark.parametrize(
    ("plain", "normed", "verdict"),
    [
        ("4-2-4", "1-8-1", YES),
        ("4-2-4", "3-4-3", "depends on the part: yes: plain saturates at both ends"),
        ("0-6-4", "1-8-1", "depends on the part: yes: batch norm saturates at most half as much"),
        ("0-9-1", "1-8-1", NO),
    ],
)
def test_saturation(judge, plain, normed, verdict):
    frame = trials(
        *[
            trial(activation="tanh", batch_norm=arm, counts=counts)
            for arm, counts in ((False, plain), (True, normed))
        ]
    )
    # Bins from -1.35 to 1.35: the outer two are what is beyond 0.9 but for half of their width.
    histograms = rows_of(
        frame,
        "histograms",
        lambda t: [
            {"step": s, "layer": 1, "tensor": name, "low": -2.7, "high": 2.7, "counts": counts}
            for s, name, counts in [
                (0, "activation", "0-1-0"),
                (9, "activation", t.counts),
                (9, "pre_activation", "0-1-0"),
            ]
        ],
    )
    finding = judge(12, trials=frame, histograms=histograms)
    assert_verdict(finding, verdict)
    if plain == "4-2-4":
        assert "plain: 40% below -0.9, 40% above 0.9" in finding.measured


@pytest.mark.parametrize(
    ("accuracy", "steps", "verdict"),
    [
        (0.97, 50, YES),
        (0.97, 150, "depends on the part: yes: the accuracy is higher; no: the steps are fewer"),
        (0.93, 150, NO),
    ],
)
def test_higher_and_sooner(judge, accuracy, steps, verdict):
    frame = trials(
        trial(batch_norm=False, final_accuracy=0.95, steps_to_target=100),
        trial(batch_norm=True, final_accuracy=accuracy, steps_to_target=steps),
    )
    assert_verdict(judge(13, trials=frame), verdict)


@pytest.mark.parametrize(
    ("drift", "verdict"), [(1.0, YES), (3.0, "depends on the threshold: 0.75"), (5.0, NO)]
)
def test_percentiles(judge, drift, verdict):
    frame = trials(trial(batch_norm=False, drift=4.0), trial(batch_norm=True, drift=drift))
    percentiles = rows_of(
        frame,
        "percentiles",
        lambda t: [
            {"step": s, "unit": u, "p15": m - 0.5, "p50": m, "p85": m + 0.5}
            for u in (1, 2)
            for s, m in enumerate([0.0, t.drift, t.drift / 2])
        ],
    )
    finding = judge(14, trials=frame, percentiles=percentiles)
    assert_verdict(finding, verdict)
    assert f"plain 4, batch norm {drift:g}" in finding.measured


def gradients(judge, number, networks, norm, **columns):
    """norm(trial, layer) at the start; noise later, which must not count."""
    frame = trials(*[trial(**network, **columns) for network in networks])
    found = rows_of(
        frame,
        "gradients",
        lambda t: [
            {"step": step, "layer": n, "gradient_norm": norm(t, n) if step == 0 else 7.0}
            for step in (0, 10)
            for n in range(1, t.depth + 1)
        ],
    )
    return judge(number, trials=frame, gradients=found)


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ((0.01, 0.8, 1.5, 0.5), YES),
        ((0.01, 0.8, 1.5, 5.0), "depends on the network: yes: plain sigmoid, plain relu, batch"),
        ((0.5, 9.0, 9.0, 5.0), NO),
    ],
)
def test_gradients_shrink(judge, ratios, verdict):
    order = [("sigmoid", False), ("relu", False), ("sigmoid", True), ("relu", True)]
    by_network = dict(zip(order, ratios, strict=True))
    networks = [
        {"activation": a, "batch_norm": arm, "depth": 3, "hidden_units": "500-400-300"}
        for a, arm in order
    ]
    finding = gradients(
        judge,
        15,
        networks,
        lambda t, n: by_network[t.activation, t.batch_norm] if n == 1 else 1.0,
    )
    assert_verdict(finding, verdict)


@pytest.mark.parametrize(
    ("growth", "accuracy", "verdict"),
    [
        (np.pi / (np.pi - 1), 0.3, YES),
        (np.pi / (np.pi - 1), 0.9, "depends on the depth: yes: growth at 20 layers"),
        (1.1, 0.9, NO),
    ],
)
def test_gradients_grow(judge, growth, accuracy, verdict):
    networks = [
        {"hidden_units": "-".join(["100"] * d), "depth": d, "final_accuracy": a}
        for d, a in ((20, 0.9), (50, accuracy))
    ]
    # Of the last layer the norm is another: the logits are no hidden layer.
    finding = gradients(
        judge,
        16,
        networks,
        lambda t, n: 3.0 if n == t.depth else growth ** ((t.depth - n) / 2),
        activation="relu",
        batch_norm=True,
    )
    assert_verdict(finding, verdict)
    assert f"per layer: 20 layers {growth:.3g}" in finding.measured


def batches(*rows):
    """Trials from (kind, batch size, accuracy)."""
    options = {
        "plain": {},
        "group norm": {"group_norm": 20},
        "batch norm": {"batch_norm": True},
        "renorm": {"batch_norm": True, "bn_renorm": True},
        "ghost": {"batch_norm": True, "bn_virtual_batch_size": 16},
    }
    empty = {"batch_norm": False, "group_norm": None, "bn_renorm": None}
    empty["bn_virtual_batch_size"] = None
    return trials(
        *[
            trial(**empty | options[kind], batch_size=size, final_accuracy=accuracy)
            for kind, size, accuracy in rows
        ]
    )


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [([0.1, 0.11], YES), ([0.1, 0.5], "depends on the seed: 1 of 2"), ([0.5, 0.5], NO)],
)
def test_batch_of_one(judge, accuracies, verdict):
    rows = [("batch norm", 1, a) for a in accuracies]
    frame = batches(*rows, ("plain", 1, 0.9), ("renorm", 1, 0.1), ("batch norm", 2, 0.9))
    assert_verdict(judge(17, trials=frame), verdict)


@pytest.mark.parametrize(
    ("batch_norm", "group_norm", "verdict"),
    [
        (0.9, 0.95, YES),
        (0.95, 0.95, "depends on the part: yes: group norm does not"),
        (0.9, 0.9, "depends on the part: yes: batch norm gets worse"),
        (0.95, 0.9, NO),
    ],
)
def test_small_batches(judge, batch_norm, group_norm, verdict):
    frame = batches(
        ("batch norm", 1, 0.1),
        ("batch norm", 2, batch_norm),
        ("batch norm", 32, 0.96),
        ("batch norm", 500, 0.92),
        ("group norm", 1, 0.1),
        ("group norm", 2, group_norm),
        ("group norm", 32, 0.96),
    )
    assert_verdict(judge(18, trials=frame), verdict)


@pytest.mark.parametrize(
    ("at_2", "at_8", "verdict"),
    [
        (0.92, 0.97, YES),
        (0.92, 0.95, "depends on the batch size: yes: 2; no: 8"),
        (0.9, 0.95, NO),
    ],
)
def test_renorm(judge, at_2, at_8, verdict):
    frame = batches(
        ("batch norm", 2, 0.9),
        ("batch norm", 8, 0.95),
        ("renorm", 2, at_2),
        ("renorm", 8, at_8),
        ("renorm", 500, 0.1),
        ("ghost", 2, 0.1),
    )
    assert_verdict(judge(19, trials=frame), verdict)


@pytest.mark.parametrize(
    ("train", "regularized", "verdict"),
    [
        (0.96, 0.952, YES),
        (0.96, 0.90, "depends on the part: yes: the gap is smaller"),
        (1.0, 0.90, NO),
    ],
)
def test_regularization(judge, train, regularized, verdict):
    frame = trials(
        trial(batch_norm=False, dropout=None, l2=None, train=0.98, test=0.94),
        trial(batch_norm=False, dropout=0.5, l2=None, train=0.96, test=0.95),
        trial(batch_norm=True, dropout=None, l2=None, train=train, test=0.95),
        trial(batch_norm=True, dropout=0.5, l2=None, train=0.96, test=regularized),
    )
    evaluation = rows_of(
        frame,
        "evaluation",
        lambda t: [
            {"step": s, "data": d, "accuracy": getattr(t, d) if s else 0.1}
            for s in (0, 300)
            for d in ("train", "test")
        ],
    )
    assert_verdict(judge(20, trials=frame, evaluation=evaluation), verdict)


def statistics(judge, number, *seeds):
    """Each seed: the step at which each kind reaches the target; None: it does not."""
    frame = trials(*[trial(batch_norm=True, seed=n, at=str(at)) for n, at in enumerate(seeds)])
    found = rows_of(
        frame,
        "statistics",
        lambda t: [
            {"step": s, "statistics": name, "accuracy": 0.95 if at and s >= at else 0.5}
            for name, at in seeds[t.seed].items()
            for s in range(5, 301, 5)
        ],
    )
    return judge(number, trials=frame, statistics=found)


@pytest.mark.parametrize(
    ("slow", "verdict"),
    [(40, YES), (None, YES), (25, "depends on the threshold: 1.7 times"), (20, NO)],
)
def test_momentum(judge, slow, verdict):
    # Over seeds, the fastest momentum takes 15 or 20: a ratio of 1.33, as 20 to 15 is.
    finding = statistics(
        judge,
        21,
        {"momentum 0.5": 15, "momentum 0.99": slow, "momentum 0.99, debiased": 300},
        {"momentum 0.5": 15, "momentum 0.99": slow, "momentum 0.99, debiased": 300},
        {"momentum 0.5": 20, "momentum 0.99": slow, "momentum 0.99, debiased": 300},
    )
    assert_verdict(finding, verdict)


@pytest.mark.parametrize(
    ("recalibrated", "debiased", "verdict"),
    [(20, 25, YES), (20, 30, "depends on the statistics: yes: recalibrated"), (30, None, NO)],
)
def test_debiased(judge, recalibrated, debiased, verdict):
    kinds = {"momentum 0.99": 80, "recalibrated": recalibrated, "batch": 20}
    finding = statistics(judge, 22, kinds | {"momentum 0.99, debiased": debiased})
    assert_verdict(finding, verdict)


def networks(*rows):
    """steps.csv or inference.csv from (network, layers, mode, contender, multiple of plain)."""
    names = ["what", "size", "mode", "contender", "over_plain"]
    frame = pd.DataFrame(rows, columns=names).assign(dtype="float32")
    return frame.assign(over_plain_q1=frame.over_plain - 0.05)


def arms(seconds_at_2):
    """Trials of two depths; batch norm's take half the steps, and this many seconds at depth 2."""
    rows = [
        trial(depth=d, batch_norm=arm, steps_to_target=steps, seconds_to_target=seconds)
        for d, arm, steps, seconds in [
            (1, False, 40, 4.0),
            (1, True, 20, 3.0),
            (2, False, 60, 6.0),
            (2, True, 30, seconds_at_2),
        ]
    ]
    rows.append(trial(depth=2, batch_norm=True, steps_to_target=1, seconds_to_target=0.1))
    rows[-1] |= {"bn_layer": "keras"}
    return trials(*[{"jit_compile": False, "bn_layer": "kerasbn", **row} for row in rows])


@pytest.mark.parametrize(
    ("multiple", "seconds", "verdict"),
    [
        (1.2, 4.0, YES),
        (1.2, 3.0, "depends on the depth: yes: 1; no: 2"),  # a half, of seconds as of steps
        (1.04, 4.0, NO),  # in a quarter of the rounds no longer than plain: 0.99
    ],
)
def test_less_is_gained_in_seconds(judge, multiple, seconds, verdict):
    judge(1, trials=arms(seconds))  # writes the depth study's table
    steps = networks(
        *[("dense net", d, "graph", "kerasbn", multiple) for d in (1, 2, 3)],
        ("dense net", 1, "xla", "kerasbn", 0.5),
        ("dense net", 1, "graph", "keras", 0.5),
        ("LeNet", 4, "graph", "kerasbn", 0.5),
    )
    finding = judge(3, steps=steps)
    assert_verdict(finding, verdict)
    assert f"1: {multiple:.2f}, 2.00, 1.33" in finding.measured


def test_a_gain_needs_both_arms_at_the_target(judge):
    frame = arms(3.0)
    frame.loc[~frame.batch_norm, ["steps_to_target", "seconds_to_target"]] = None
    judge(2, trials=frame)
    steps = networks(("dense net", 1, "graph", "kerasbn", 1.2))
    with pytest.raises(claims.NotRunError, match="both arms reaches the target"):
        judge(3, steps=steps)


def layers(**microseconds):
    """layers.csv: times by hand in graph mode are 100; others for (rows, rows, images)."""
    sizes = ["500x500", "500x25", "8x9x9x3"]
    ways = {"hand": ("graph", "by hand"), "kernel": ("graph", "kerasbn"), "xla": ("xla", "by hand")}
    rows = [
        {"mode": mode, "contender": contender, "size": size, "median_microseconds": time}
        for way, (mode, contender) in ways.items()
        for size, time in zip(sizes, {"hand": [100] * 3, **microseconds}[way], strict=True)
    ]
    frame = pd.DataFrame(rows).assign(dtype="float32")
    return pd.concat([frame, frame.assign(dtype="bfloat16", median_microseconds=100)])


@pytest.mark.parametrize(
    ("kernel", "xla", "verdict"),
    [
        # The mean of rows is geometric: of 20 and 80 it is 40.
        ([20, 80, 50], [20, 20, 20], YES),
        (
            [40, 80, 50],
            [20, 20, 60],
            "depends on the method and the input: yes: kernel on images and sequences, XLA on "
            "rows; no: kernel on rows, XLA on images and sequences",
        ),
        ([60, 60, 60], [90, 90, 110], NO),
    ],
)
def test_fusing(judge, kernel, xla, verdict):
    finding = judge(23, layers=layers(kernel=kernel, xla=xla))
    assert_verdict(finding, verdict)
    if verdict == YES:
        assert "kernel on rows 60% (20% to 80%), kernel on images" in finding.measured


@pytest.mark.parametrize(
    ("dense", "lenet", "verdict"),
    [
        ((0.96, 1.0), 1.04, YES),
        (
            (1.25, 0.8),
            1.3,
            "depends on the network and the mode: yes: dense net in graph; no: LeNet",
        ),
        ((1.1, 1.3), 0.9, NO),
    ],
)
def test_folded(judge, dense, lenet, verdict):
    passes = networks(
        *[("dense net", n, "graph", "folded", multiple) for n, multiple in enumerate(dense, 1)],
        ("LeNet", 4, "xla", "folded", lenet),
        ("LeNet", 4, "xla", "kerasbn", 9.0),
        ("layer", 500, "xla", "folded", 9.0),
    )
    finding = judge(24, inference=passes)
    assert_verdict(finding, verdict)
    assert f"LeNet in xla {lenet:.2f}" in finding.measured


@pytest.mark.parametrize("number", [3, 23, 24])
def test_cost_without_its_tables_is_not_run(judge, number):
    with pytest.raises(claims.NotRunError, match=r"there is no cost/\w+\.csv"):
        judge(number)
    steps = networks(("dense net", 1, "graph", "kerasbn", 1.2))
    with pytest.raises(claims.NotRunError, match=r"there is no depth/trials\.csv"):
        judge(3, steps=steps)


def test_what_never_reaches_the_target_is_not_constant(judge):
    assert_verdict(judge(2, trials=depths(True, None, None)), NO)


@pytest.mark.parametrize("number", [21, 22])
def test_statistics_at_none_of_which_the_target_is_reached_are_no_result(judge, number):
    kinds = ["momentum 0.5", "momentum 0.99", "momentum 0.99, debiased", "recalibrated", "batch"]
    with pytest.raises(claims.NotRunError, match="runs that reach the target"):
        statistics(judge, number, dict.fromkeys(kinds))


def test_what_is_missing_is_not_run_and_says_what(judge):
    with pytest.raises(claims.NotRunError, match=r"there is no depth/trials\.csv"):
        judge(1)
    with pytest.raises(claims.NotRunError, match="batch_norm=False"):
        judge(1, trials=depths(True, 10, 20))
    with pytest.raises(claims.NotRunError, match="several values of depth"):
        judge(1, trials=depths(False, 10))


def test_nothing_to_compare_is_no_verdict(judge):
    with pytest.raises(claims.NotRunError, match="runs to compare"):
        judge(19, trials=batches(("batch norm", 2, 0.9), ("renorm", 8, 0.9)))
    network = {"hidden_units": "-".join(["9"] * 12), "depth": 12, "final_accuracy": 0.9}
    network |= {"activation": "relu", "batch_norm": True}
    with pytest.raises(claims.NotRunError, match="several depths"):
        gradients(judge, 16, [network], lambda t, n: 1.5**-n)


def test_a_crashed_trial_is_no_result(judge):
    crashed = trial(depth=3, batch_norm=False, steps_to_target=None, status="failed")
    frame = pd.concat([depths(False, 10, 20), trials(crashed)])
    assert_verdict(judge(1, trials=frame), YES)


def test_a_table_of_another_version_is_an_error_that_names_the_column(judge):
    frame = depths(False, 10, 20).drop(columns="steps_to_target")
    with pytest.raises(UserError, match=r"trials\.csv lacks the column steps_to_target.*again"):
        judge(1, trials=frame)


def test_a_damaged_table_is_an_error(judge, tmp_path):
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth" / "trials.csv").write_text("")
    with pytest.raises(UserError, match=r"trials\.csv cannot be read"):
        judge(1)
