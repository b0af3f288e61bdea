"""The claims that the studies check, numbered, each with the rule that decides on it.

A rule is a function of a study's tables as they lie on the disk; it returns what was measured, in
words, and a verdict: "reproduced", "not reproduced", or "depends on ..." with the condition that
the numbers show. Its thresholds are in its docstring. Medians are over seeds; a run that did not
reach its target counts as infinite, and how many did stands beside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from sweeps import batch_size, moving_average
from sweeps.harness.errors import UserError
from sweeps.harness.tables import median, with_misses

REPRODUCED, NOT_REPRODUCED, NOT_RUN = "reproduced", "not reproduced", "not run"
_NEAR_CHANCE = 0.2  # accuracy: twice that of a guess among ten classes


class Finding(NamedTuple):
    """What a study's tables say about a claim."""

    measured: str
    verdict: str


class NotRunError(Exception):
    """The tables lack the trials that a claim is about; says which."""


class StudyTables:
    """A study's tables, read as they are asked for.

    Args:
        folder: RESULTS_DIR/DATASET/STUDY.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def read(self, name: str, *columns: str) -> pd.DataFrame:
        """A table that has these columns; of the trials, those that did not crash.

        Raises:
            NotRunError: If there is no such table, or nothing in it.
            UserError: If it cannot be read or lacks one of the columns.
        """
        path = self._folder / f"{name}.csv"
        if not path.exists():
            raise NotRunError(f"there is no {name}.csv")
        again = f"Run python -m sweeps.{self._folder.name} again, or move it away."
        try:
            frame = pd.read_csv(path, dtype={"trial_id": str})
        except (ValueError, OSError) as error:
            raise UserError(f"{path} cannot be read as a table ({error}). {again}") from error
        missing = [column for column in columns if column not in frame]
        if missing:
            raise UserError(
                f"{path} lacks the column {', '.join(missing)}: another version made it. {again}"
            )
        if name == "trials" and "status" in frame:
            frame = frame[frame.status != "failed"]
        if frame.empty:
            raise NotRunError(f"{name}.csv is empty")
        return frame

    def trials(self, *columns: str) -> pd.DataFrame:
        """The trials table, with what every rule reads."""
        common = ("trial_id", "status", "seed", "batch_norm", "max_steps", "target_accuracy")
        return self.read("trials", *common, *columns)

    def recorded(self, name: str, settings: tuple[str, ...], *columns: str) -> pd.DataFrame:
        """A recorder's table (or the curves), with settings of each row's trial beside."""
        trials = self.trials(*settings)
        settings = tuple(dict.fromkeys(["trial_id", "seed", "batch_norm", *settings]))
        rows = self.read(name, "trial_id", "step", *columns)
        return rows.merge(trials[list(settings)], on="trial_id")


class Claim(NamedTuple):
    """A claim and how it is decided.

    Attributes: text: The claim. source: Whose. study: Which study has its numbers. rule: Decides.
    """

    text: str
    source: str
    study: str
    rule: Callable[[StudyTables], Finding]


def plain_steps_grow(tables: StudyTables) -> Finding:
    """1. Reproduced: median steps grow with every added layer. Depends: the deepest net needs more
    than the shallowest, but not every layer adds."""
    medians, words = _steps_by(tables, "depth", batch_norm=False)
    adds = medians.to_numpy()[1:] > medians.to_numpy()[:-1]  # no differences of infinities
    if adds.all():
        return Finding(words, REPRODUCED)
    if medians.iloc[-1] <= medians.iloc[0]:
        return Finding(words, NOT_REPRODUCED)
    depths = list(medians.index)
    stalls = [f"from {depths[i]} to {depths[i + 1]}" for i in np.flatnonzero(~adds)]
    return Finding(words, f"depends on the layer: no growth {', '.join(stalls)}")


def batch_norm_steps_stay(tables: StudyTables) -> Finding:
    """2. Reproduced: the largest median over depths is at most 1.5 times the smallest. Depends: at
    most 1.5 times that of the shallowest net, though not of the smallest."""
    medians, words = _steps_by(tables, "depth", batch_norm=True)
    if medians.max() <= 1.5 * medians.min():
        return Finding(words, REPRODUCED)
    if medians.max() <= 1.5 * medians.iloc[0]:
        least = medians.idxmin()
        return Finding(
            words,
            f"depends on the depth to compare with: at most {medians.max() / medians.iloc[0]:.2g} "
            f"times the steps at {medians.index[0]}, but {medians.max() / medians.min():.2g} times "
            f"those at {least}",
        )
    return Finding(words, NOT_REPRODUCED)


def sigmoid_needs_batch_norm(tables: StudyTables) -> Finding:
    """4. Plain: best accuracy at most 20%. Batch norm: at most twice the steps of ReLU. Reproduced:
    both, for all seeds and for medians. Depends: on the seed, where some plain nets do better than
    chance; on the part, if one holds. Not reproduced: no plain net stays near chance."""
    trials = tables.trials("activation", "steps_to_target", "best_accuracy")
    plain = _pick(trials, activation="sigmoid", batch_norm=False)
    sigmoid = _pick(trials, activation="sigmoid", batch_norm=True)
    relu = _pick(trials, activation="relu", batch_norm=True)
    stuck = int((plain.best_accuracy <= _NEAR_CHANCE).sum())
    as_relu = _median_steps(sigmoid) <= 2 * _median_steps(relu)
    words = (
        f"plain: best accuracy {_median_percent(plain.best_accuracy)}, {stuck}/{len(plain)} at "
        f"most {_NEAR_CHANCE:.0%}; batch norm: {_steps(sigmoid)} steps, ReLU {_steps(relu)}"
    )
    if not stuck:
        return Finding(words, NOT_REPRODUCED)
    if stuck < len(plain):
        return Finding(words, f"depends on the seed: {stuck} of {len(plain)} stay near chance")
    if not as_relu:
        return Finding(words, "depends on the part: at chance without batch norm, slower with it")
    return Finding(words, REPRODUCED)


def elu_and_leaky_relu_resist(tables: StudyTables) -> Finding:
    """5. Each: at most as many median steps as ReLU, all without batch norm. Reproduced: both."""
    trials = _pick(tables.trials("activation", "steps_to_target"), batch_norm=False)
    groups = {name: _pick(trials, activation=name) for name in ("relu", "elu", "leaky_relu")}
    words = "plain: " + ", ".join(f"{name} {_steps(group)}" for name, group in groups.items())
    bound = _median_steps(groups["relu"])
    holds = {
        name: np.isfinite(_median_steps(groups[name])) and _median_steps(groups[name]) <= bound
        for name in ("elu", "leaky_relu")
    }
    return Finding(words, _all_or_some(holds, "the activation"))


def far_fewer_steps(tables: StudyTables) -> Finding:
    """6. ReLU: the accuracy is the median best of the plain net at the lowest rate. Holds at a rate
    if batch norm (no decay) is there in half the steps that the plain net at the lowest takes."""
    frame = tables.recorded(
        "curves", ("activation", "learning_rate", "decay_steps"), "test_accuracy"
    ).dropna(subset=["test_accuracy"])
    frame = frame[(frame.activation == "relu") & frame.decay_steps.isna()]
    lowest = frame.learning_rate.min()
    plain = _pick(frame, batch_norm=False, learning_rate=lowest)
    level = plain.groupby("trial_id").test_accuracy.max().median()
    needed = median(_first_step(plain, level))
    steps = {
        rate: median(_first_step(rows, level))
        for rate, rows in _pick(frame, batch_norm=True).groupby("learning_rate")
    }
    words = f"{level:.1%}: plain at {lowest:g} in {needed:g} steps; batch norm " + ", ".join(
        f"at {rate:g} in {_finite(count)}" for rate, count in steps.items()
    )
    holds = {f"{rate:g}": count <= needed / 2 for rate, count in steps.items()}
    return Finding(words, _all_or_some(holds, "the learning rate"))


def trains_where_plain_does_not(tables: StudyTables) -> Finding:
    """7. Holds for an activation if at some rate most seeds reach the target with batch norm (no
    decay) and most do not without."""
    trials = tables.trials("activation", "learning_rate", "decay_steps", "reached")
    trials = trials[trials.decay_steps.isna()]
    share = trials.groupby(["activation", "batch_norm", "learning_rate"]).reached.mean()
    words, holds = [], {}
    for name in trials.activation.unique():
        plain, normed = (_level(share, name, arm) for arm in (False, True))
        rates = [f"{r:g}" for r in normed.index if normed[r] > 0.5 >= plain.get(r, 1.0)]
        holds[name] = bool(rates)
        diverged = _pick(trials, activation=name, batch_norm=False).status.eq("diverged").sum()
        words.append(
            f"{name}: batch norm alone at {', '.join(rates) or 'no rate'} ({diverged} plain runs "
            "diverged)"
        )
    return Finding("; ".join(words), _all_or_some(holds, "the activation"))


def sigmoid_trains_behind_relu(tables: StudyTables) -> Finding:
    """8. Reproduced: at some rate most sigmoid nets reach the target with batch norm, at none
    without, and the best median accuracy over rates is below ReLU's. Not reproduced: at no rate
    with batch norm. Depends: on the learning rate, if plain nets reach it; else on the part."""
    trials = tables.trials("activation", "learning_rate", "decay_steps", "reached", "best_accuracy")
    trials = trials[trials.decay_steps.isna()]
    share = trials.groupby(["activation", "batch_norm", "learning_rate"]).reached.mean()
    best = trials.groupby(["activation", "batch_norm", "learning_rate"]).best_accuracy.median()
    plain, normed = _level(share, "sigmoid", False), _level(share, "sigmoid", True)
    ours, relu = _level(best, "sigmoid", True).max(), _level(best, "relu", True).max()
    trained = [f"{rate:g}" for rate in plain.index if plain[rate] > 0.5]
    words = (
        f"best with batch norm: sigmoid {ours:.1%}, ReLU {relu:.1%}; sigmoid without: "
        f"{_level(best, 'sigmoid', False).max():.1%}; rates at which most sigmoid nets train: "
        f"{int((normed > 0.5).sum())} with, {len(trained)} without, of {len(normed)}"
    )
    if not (normed > 0.5).any():
        return Finding(words, NOT_REPRODUCED)
    if trained:
        return Finding(
            words, f"depends on the learning rate: plain sigmoids train at {', '.join(trained)}"
        )
    if ours >= relu:
        return Finding(words, "depends on the part: sigmoids train, and are not behind ReLUs")
    return Finding(words, REPRODUCED)


def fast_decay_costs_nothing(tables: StudyTables) -> Finding:
    """25. Holds at a rate and activation if with the fastest decay the median best accuracy is at
    most half a percentage point below that with the slowest."""
    trials = tables.trials("activation", "learning_rate", "decay_steps", "best_accuracy")
    trials = _pick(trials, batch_norm=True).dropna(subset=["decay_steps"])
    if trials.decay_steps.nunique() < 2:
        raise NotRunError("two decays of the rate with batch norm")
    fast, slow = trials.decay_steps.min(), trials.decay_steps.max()
    keys = ["activation", "learning_rate", "decay_steps"]
    best = trials.groupby(keys).best_accuracy.median().unstack()
    loss = best[slow] - best[fast]
    words = f"best accuracy lost by decay in {fast:g} and not {slow:g} steps: " + ", ".join(
        f"{name} at {rate:g} {100 * value:+.1f} points" for (name, rate), value in loss.items()
    )
    holds = {f"{name} at {rate:g}": value <= 0.005 for (name, rate), value in loss.items()}
    return Finding(words, _all_or_some(holds, "the activation and the rate"))


def lenet_loss_falls_at_once(tables: StudyTables) -> Finding:
    """9. The published pair: plain at the lowest rate, batch norm at the highest. Reproduced: the
    median epoch in which the mean training loss is at most 0.55 is 1 or 2 with batch norm, and at
    least twice as late without. Depends: on the part, if one of them holds."""
    frame = tables.recorded("curves", ("learning_rate",), "train_loss")
    frame["epoch"] = frame.groupby("trial_id").step.rank()
    rates = frame.learning_rate
    plain = _pick(frame[rates == rates.min()], batch_norm=False)
    normed = _pick(frame[rates == rates.max()], batch_norm=True)
    late, soon = (
        median(_first_step(rows.assign(step=rows.epoch), -0.55, -rows.train_loss))
        for rows in (plain, normed)
    )
    words = (
        f"epoch with training loss at most 0.55: plain {_finite(late)} (rate {rates.min():g}), "
        f"batch norm {_finite(soon)} (rate {rates.max():g})"
    )
    parts = {"batch norm is there in two epochs": soon <= 2, "plain is later": late >= 2 * soon}
    return Finding(words, _all_or_some(parts, "the part"))


def lenet_accuracy_swings(tables: StudyTables) -> Finding:
    """10. Batch norm: test accuracy falls by two points or more from one epoch to the next.
    Reproduced: in all runs; depends on the seed: in some."""
    frame = _pick(
        tables.recorded("curves", ("learning_rate",), "test_accuracy"), batch_norm=True
    ).dropna(subset=["test_accuracy"])
    falls = frame.groupby("trial_id").test_accuracy.agg(lambda a: (-a.diff()).max()).dropna()
    if falls.empty:
        raise NotRunError("a second epoch")
    swinging = int((falls >= 0.02).sum())
    words = (
        f"largest fall from an epoch to the next: median {100 * falls.median():.1f} points, at "
        f"least 2 in {swinging}/{len(falls)} runs"
    )
    return Finding(words, _some_of(swinging, len(falls), "the seed"))


def relu_cannot_fit_without(tables: StudyTables) -> Finding:
    """11. Errors are the best over epochs, relative to the test points' variance. Reproduced: ReLU
    nets are above a half in all plain runs and below a tenth in all with batch norm. Depends: on
    the seed. Not reproduced: where one holds in no run."""
    frame = tables.recorded("evaluation", ("activation",), "data", "loss")
    frame = _pick(frame, activation="relu", data="test")
    y = tables.read("predictions", "trial_id", "y")
    variance = y[y.trial_id == y.trial_id.iloc[0]].y.var(ddof=0)
    plain, normed = (
        _pick(frame, batch_norm=arm).groupby("trial_id").loss.min() / variance
        for arm in (False, True)
    )
    stuck, fitted = int((plain > 0.5).sum()), int((normed < 0.1).sum())
    words = (
        f"best test error / variance: plain {plain.median():.2g} ({stuck}/{len(plain)} above 0.5), "
        f"batch norm {normed.median():.2g} ({fitted}/{len(normed)} below 0.1)"
    )
    if not stuck or not fitted:
        return Finding(words, NOT_REPRODUCED)
    return Finding(words, _some_of(stuck + fitted, len(plain) + len(normed), "the seed"))


def plain_tanh_saturates(tables: StudyTables) -> Finding:
    """12. Saturated: beyond 0.9, after the last step, over all layers. Reproduced: plain, at least
    a tenth at either end; batch norm, at most half the plain share. Depends: on the part."""
    frame = tables.recorded(
        "histograms", ("activation",), "layer", "tensor", "low", "high", "counts"
    )
    frame = _pick(frame, activation="tanh", tensor="activation")
    frame = frame[frame.step == frame.step.max()]
    shares = {}
    for arm in (False, True):
        rows = _pick(frame, batch_norm=arm)
        below, above = (
            rows.apply(_share_beyond, axis=1, bound=bound).groupby(rows.trial_id).mean().median()
            for bound in (-0.9, 0.9)
        )
        shares[arm] = below, above
    words = "; ".join(
        f"{name}: {below:.0%} below -0.9, {above:.0%} above 0.9"
        for name, (below, above) in zip(("plain", "batch norm"), shares.values(), strict=True)
    )
    parts = {
        "plain saturates at both ends": min(shares[False]) >= 0.1,
        "batch norm stays inside": sum(shares[True]) <= sum(shares[False]) / 2,
    }
    return Finding(words, _all_or_some(parts, "the part"))


def higher_and_sooner(tables: StudyTables) -> Finding:
    """13. Higher: median final accuracy; sooner: median steps to the target."""
    trials = tables.trials("final_accuracy", "steps_to_target")
    plain, normed = (_pick(trials, batch_norm=arm) for arm in (False, True))
    words = "; ".join(
        f"{name}: {_median_percent(group.final_accuracy)} in the end, "
        f"{group.target_accuracy.iloc[0]:.0%} in {_steps(group)} steps"
        for name, group in (("plain", plain), ("batch norm", normed))
    )
    parts = {
        "higher": normed.final_accuracy.median() > plain.final_accuracy.median(),
        "sooner": _median_steps(normed) < _median_steps(plain),
    }
    return Finding(words, _all_or_some(parts, "the part"))


def percentiles_stay(tables: StudyTables) -> Finding:
    """14. Drift of a unit: how far the most mobile of its three percentiles travels (its range over
    steps), over the mean distance of the outer two. Reproduced: with batch norm, the median over
    units and seeds is at most half the plain one. Depends: it is smaller, by less."""
    frame = tables.recorded("percentiles", (), "unit", "p15", "p50", "p85")
    frame["spread"] = frame.p85 - frame.p15
    runs = frame.groupby(["batch_norm", "trial_id", "unit"])
    columns = ["p15", "p50", "p85"]
    drift = (runs[columns].max() - runs[columns].min()).max(axis=1) / runs.spread.mean()
    plain, normed = (_level(drift, arm).median() for arm in (False, True))
    words = (
        f"drift over spread: plain {plain:.2g}, batch norm {normed:.2g} "
        f"({len(drift)} units of {frame.trial_id.nunique()} runs)"
    )
    if normed <= plain / 2:
        return Finding(words, REPRODUCED)
    if normed < plain:
        return Finding(words, f"depends on how much is drift: {normed / plain:.2g} of the plain")
    return Finding(words, NOT_REPRODUCED)


def gradients_shrink(tables: StudyTables) -> Finding:
    """15. The depth study's deepest net at the start; ratio of the first hidden layer's norm to the
    last's. Holds: plain sigmoid below 0.1; plain ReLU, and either with batch norm, 1/3 to 3."""
    frame = _start_of(tables)
    widths = frame.hidden_units.astype(str).str.split("-").map(lambda each: len(set(each)))
    unequal = frame[widths > 1]
    if unequal.empty:
        raise NotRunError("a network of unequal layers")
    frame = unequal[unequal.depth == unequal.depth.max()]
    ratios = {}
    for name, arm in (("sigmoid", False), ("relu", False), ("sigmoid", True), ("relu", True)):
        rows = _pick(frame, activation=name, batch_norm=arm).sort_values("layer")
        ends = rows.groupby("trial_id").gradient_norm.agg(["first", "last"])
        ratios[f"{'batch norm' if arm else 'plain'} {name}"] = (
            ends["first"] / ends["last"]
        ).median()
    words = f"{frame.depth.max()} layers, first / last: " + ", ".join(
        f"{name} {ratio:.2g}" for name, ratio in ratios.items()
    )
    holds = {
        name: ratio < 0.1 if name == "plain sigmoid" else 1 / 3 <= ratio <= 3
        for name, ratio in ratios.items()
    }
    return Finding(words, _all_or_some(holds, "the network"))


def batch_norm_gradients_grow(tables: StudyTables) -> Finding:
    """16. ReLU with batch norm, equal layers, at the start: growth of the squared norm a layer
    towards the input, fitted over all layers but the last. Holds at a depth if from 1.32 to 1.62
    (1.47, 10% off). Hard to train: the deepest net's median final accuracy is ten points below that
    of the next deepest. Reproduced: all of it."""
    frame = _pick(_start_of(tables), activation="relu", batch_norm=True)
    equal = frame.hidden_units.astype(str).str.split("-").map(lambda each: len(set(each)) == 1)
    frame = frame[equal & (frame.depth >= 10)]
    if frame.empty:
        raise NotRunError("a network of ten equal layers or more")
    words, holds = [], {}
    for depth, rows in frame.groupby("depth"):
        growth = [_growth(run) for _, run in rows.groupby("trial_id")]
        words.append(f"{depth} layers: {np.median(growth):.3g} a layer")
        holds[f"growth at {depth} layers"] = 1.32 <= np.median(growth) <= 1.62
    trials = _pick(tables.trials("activation", "depth", "final_accuracy"), activation="relu")
    final = _pick(trials, batch_norm=True).groupby("depth").final_accuracy.median()
    if len(final) < 2:
        raise NotRunError("networks of several depths")
    shown = ", ".join(f"{depth} layers {final[depth]:.1%}" for depth in final.index[-2:])
    words.append(f"accuracy after {trials.max_steps.max()} steps: {shown}")
    holds["the deepest is hard to train"] = final.iloc[-1] <= final.iloc[-2] - 0.1
    return Finding("; ".join(words), _all_or_some(holds, "the depth"))


def nothing_learned_from_one(tables: StudyTables) -> Finding:
    """17. Batch norm at batch 1: accuracy at most 20%. Depends: on the seed."""
    trials = _pick(_kinds(tables), kind="batch norm", batch_size=1)
    stuck = int((trials.error >= 1 - _NEAR_CHANCE).sum())
    words = (
        f"accuracy at batch 1: {1 - trials.error.median():.1%}, {stuck}/{len(trials)} at most "
        f"{_NEAR_CHANCE:.0%}"
    )
    return Finding(words, _some_of(stuck, len(trials), "the seed"))


def small_batches_hurt_batch_norm(tables: StudyTables) -> Finding:
    """18. Median test error at the smallest batch above 1, over the kind's least at any batch.
    Reproduced: at least 1.5 for batch norm, less for group norm. Depends: on the part."""
    ratios, words = {}, []
    for kind in ("batch norm", "group norm"):
        errors = _pick(_kinds(tables), kind=kind).groupby("batch_size").error.median()
        errors = errors[errors.index > 1]
        if len(errors) < 2:
            raise NotRunError(f"{kind} at several batch sizes above 1")
        ratios[kind] = errors.iloc[0] / errors.min()
        words.append(
            f"{kind}: error {errors.iloc[0]:.1%} at batch {errors.index[0]}, least "
            f"{errors.min():.1%} at {errors.idxmin()}"
        )
    parts = {
        "batch norm gets worse": ratios["batch norm"] >= 1.5,
        "group norm does not": ratios["group norm"] < 1.5,
    }
    return Finding("; ".join(words), _all_or_some(parts, "the part"))


def renorm_recovers(tables: StudyTables) -> Finding:
    """19. Holds at a batch of 2 to 8 if renorm's median error is at most 0.9 of batch norm's."""
    trials = _kinds(tables)
    trials = trials[trials.batch_size.between(2, 8)]
    errors = {
        kind: _pick(trials, kind=kind).groupby("batch_size").error.median()
        for kind in ("batch norm", "batch norm, renorm")
    }
    plain, renorm = errors.values()
    sizes = [size for size in plain.index if size in renorm.index]
    words = "error without and with renorm: " + ", ".join(
        f"batch {size} {plain[size]:.1%} and {renorm[size]:.1%}" for size in sizes
    )
    holds = {str(size): renorm[size] <= 0.9 * plain[size] for size in sizes}
    return Finding(words, _all_or_some(holds, "the batch size"))


def regularization_matters_less(tables: StudyTables) -> Finding:
    """20. Gap: training less test accuracy, without dropout and L2. Matter: the range of median
    test accuracies over settings. Reproduced: both are smaller with batch norm."""
    frame = tables.recorded("evaluation", ("dropout", "l2"), "data", "accuracy")
    frame = frame[frame.step == frame.step.max()].fillna({"dropout": 0.0, "l2": 0.0})
    keys = ["batch_norm", "dropout", "l2", "trial_id"]
    wide = frame.pivot(index=keys, columns="data", values="accuracy")
    medians = wide.assign(gap=wide.train - wide.test).groupby(keys[:3]).median()
    gaps, ranges = {}, {}
    for arm in (False, True):
        of_arm = _level(medians, arm)
        if (0.0, 0.0) not in of_arm.index:
            raise NotRunError("runs without dropout and L2")
        gaps[arm] = of_arm.gap[(0.0, 0.0)]
        ranges[arm] = of_arm.test.max() - of_arm.test.min()
    words = (
        f"gap: plain {100 * gaps[False]:.2f} points, batch norm {100 * gaps[True]:.2f}; dropout "
        f"and L2 move test accuracy by {100 * ranges[False]:.2f} and {100 * ranges[True]:.2f}"
    )
    parts = {
        "the gap is smaller": gaps[True] < gaps[False],
        "dropout and L2 move the accuracy less": ranges[True] < ranges[False],
    }
    return Finding(words, _all_or_some(parts, "the part"))


def momentum_decides(tables: StudyTables) -> Finding:
    """21. Reproduced: over momenta, the largest median of steps to the target is at least twice the
    smallest, and their ratio is larger than that of the slowest to the fastest seed at the fastest
    momentum. Depends: larger than the seeds' ratio, but not twice."""
    steps = _statistics_steps(tables)
    momenta = steps[steps.index.str.fullmatch(r"momentum [\d.]+")]
    if len(momenta) < 2:
        raise NotRunError("several momenta")
    medians = momenta.apply(lambda row: median(row.to_numpy(float)), axis=1)
    words = ", ".join(f"{name} {_finite(value)}" for name, value in medians.items())
    fastest = momenta.loc[medians.idxmin()]
    ratio, seeds = medians.max() / medians.min(), fastest.max() / fastest.min()
    words = f"median steps: {words}; slowest over fastest seed {seeds:.2g}"
    if not ratio > seeds:
        return Finding(words, NOT_REPRODUCED)
    if ratio >= 2:
        return Finding(words, REPRODUCED)
    return Finding(words, f"depends on how much is more: {ratio:.2g} times over momenta")


def debiased_removes_lag(tables: StudyTables) -> Finding:
    """22. Holds for a kind if its median steps to the target are at most 1.25 times those with the
    test batch's own statistics, which have no lag."""
    steps = _statistics_steps(tables).apply(lambda row: median(row.to_numpy(float)), axis=1)
    kinds = ("recalibrated", "momentum 0.99, debiased")
    missing = [kind for kind in (*kinds, "batch", "momentum 0.99") if kind not in steps]
    if missing:
        raise NotRunError(", ".join(missing))
    words = ", ".join(
        f"{kind} {_finite(steps[kind])}" for kind in ("momentum 0.99", *kinds, "batch")
    )
    holds = {kind: steps[kind] <= 1.25 * steps["batch"] for kind in kinds}
    return Finding(f"median steps: {words}", _all_or_some(holds, "the statistics"))


def _cost(tables):
    raise NotRunError("its rule waits for the study")


_RAWLES, _IOFFE = "Rawles 2018", "Ioffe & Szegedy 2015"
CLAIMS: Mapping[int, Claim] = {
    1: Claim("Plain: steps to 90% grow with every added layer", _RAWLES, "depth", plain_steps_grow),
    2: Claim("Batch norm: they are nearly constant", _RAWLES, "depth", batch_norm_steps_stay),
    3: Claim("A batch-norm step costs more: less is gained in seconds", _RAWLES, "cost", _cost),
    4: Claim(
        "7 layers of sigmoids stay near chance; with batch norm, about as many steps as ReLU",
        _RAWLES,
        "activation",
        sigmoid_needs_batch_norm,
    ),
    5: Claim(
        "ELU and leaky ReLU resist vanishing gradients without batch norm",
        _RAWLES,
        "activation",
        elu_and_leaky_relu_resist,
    ),
    6: Claim(
        "Batch norm reaches the plain net's accuracy in far fewer steps",
        _IOFFE,
        "learning_rate",
        far_fewer_steps,
    ),
    7: Claim(
        "It trains at rates where plain nets diverge or stall",
        _IOFFE,
        "learning_rate",
        trains_where_plain_does_not,
    ),
    8: Claim(
        "Sigmoids train with it and not without, and stay behind ReLUs",
        _IOFFE,
        "learning_rate",
        sigmoid_trains_behind_relu,
    ),
    9: Claim(
        "LeNet's training loss is at 0.55 in an epoch or two, and much later without",
        "LeNet tutorials",
        "lenet",
        lenet_loss_falls_at_once,
    ),
    10: Claim(
        "At such rates its test accuracy swings", "LeNet tutorials", "lenet", lenet_accuracy_swings
    ),
    11: Claim(
        "ReLU, badly initialized: the plain net cannot fit, batch norm can",
        "Morvan",
        "initialization",
        relu_cannot_fit_without,
    ),
    12: Claim(
        "Plain tanh saturates at both ends, batch norm keeps it inside",
        "Morvan",
        "initialization",
        plain_tanh_saturates,
    ),
    13: Claim("Higher test accuracy, sooner", _IOFFE, "distribution", higher_and_sooner),
    14: Claim(
        "Percentiles of a sigmoid's input drift without, and stay put with it",
        _IOFFE,
        "distribution",
        percentiles_stay,
    ),
    15: Claim(
        "Plain gradients shrink towards the input (sigmoid strongly, ReLU hardly); batch norm "
        "keeps them level",
        _IOFFE,
        "gradients",
        gradients_shrink,
    ),
    16: Claim(
        "Deep ReLU nets with it: squared gradients grow 1.47 times a layer; 50 layers are hard",
        "Yang et al. 2019",
        "gradients",
        batch_norm_gradients_grow,
    ),
    17: Claim(
        "At batch 1 nothing is learned", "arithmetic", "batch_size", nothing_learned_from_one
    ),
    18: Claim(
        "Batch norm gets worse as the batch shrinks, group norm does not",
        "Wu & He 2018",
        "batch_size",
        small_batches_hurt_batch_norm,
    ),
    19: Claim("Renorm recovers part of it", "Ioffe 2017", "batch_size", renorm_recovers),
    20: Claim(
        "Dropout and L2 matter less: without them, the gap is smaller",
        _IOFFE,
        "regularization",
        regularization_matters_less,
    ),
    21: Claim(
        "Steps to 90% depend on the momentum more than on the training",
        "Wu & Johnson 2021",
        "moving_average",
        momentum_decides,
    ),
    22: Claim(
        "Recalibrated and debiased statistics remove the lag",
        "Wu & Johnson 2021",
        "moving_average",
        debiased_removes_lag,
    ),
    23: Claim("Fusing takes much of batch norm's cost away", "practice", "cost", _cost),
    24: Claim("A folded net costs what the plain net costs", "practice", "cost", _cost),
    25: Claim(
        "Decaying the rate six times faster costs the batch-norm net nothing",
        _IOFFE,
        "learning_rate",
        fast_decay_costs_nothing,
    ),
}


def _pick(frame, **values):
    """The rows with these values; a NotRunError that names them if there are none."""
    for name, value in values.items():
        frame = frame[frame[name] == value]
    if frame.empty:
        raise NotRunError(", ".join(f"{name}={value}" for name, value in values.items()))
    return frame


def _level(indexed, *key):
    """What is under the first levels of an index; a NotRunError if nothing is."""
    try:
        return indexed.loc[key if len(key) > 1 else key[0]]
    except KeyError as error:
        raise NotRunError(f"{key}") from error


def _median_steps(trials):
    return median(with_misses(trials.steps_to_target))


def _steps(trials):
    """Median steps with reached/total."""
    steps = with_misses(trials.steps_to_target)
    middle = median(steps)
    shown = f"{middle:g}" if np.isfinite(middle) else f">{trials.max_steps.max()}"
    return f"{shown} ({np.isfinite(steps).sum()}/{len(steps)})"


def _steps_by(tables, column, **values):
    """Median steps by a column, as numbers and in words."""
    trials = _pick(tables.trials(column, "steps_to_target"), **values)
    groups = dict(list(trials.groupby(column)))
    if len(groups) < 2:
        raise NotRunError(f"several values of {column}")
    medians = pd.Series({value: _median_steps(group) for value, group in groups.items()})
    return medians, ", ".join(f"{value}: {_steps(group)}" for value, group in groups.items())


def _median_percent(values):
    return f"{values.median():.1%}"


def _finite(steps):
    return f"{steps:g}" if np.isfinite(steps) else "never"


def _first_step(rows, level, values=None):
    """For each run, the first step whose accuracy (or other value) is at least the level."""
    values = rows.test_accuracy if values is None else values
    steps = rows.step.where(values >= level, np.inf)
    return steps.groupby(rows.trial_id).min().to_numpy(float)


def _all_or_some(holds, condition):
    """Reproduced if all hold, not if none does; else depends on which, and those are named."""
    if not holds:
        raise NotRunError("runs to compare")
    if all(holds.values()):
        return REPRODUCED
    if not any(holds.values()):
        return NOT_REPRODUCED
    yes = ", ".join(name for name, value in holds.items() if value)
    no = ", ".join(name for name, value in holds.items() if not value)
    return f"depends on {condition}: yes: {yes}; no: {no}"


def _some_of(count, total, condition):
    """Reproduced if in all, not if in none."""
    if count in (0, total):
        return REPRODUCED if count else NOT_REPRODUCED
    return f"depends on {condition}: {count} of {total}"


def _share_beyond(row, bound):
    """The share of a histogram's values beyond a bound, away from zero; even within a bin."""
    counts = np.array(str(row.counts).split("-"), float)
    edges = np.linspace(row.low, row.high, len(counts) + 1)
    if row.high == row.low:
        return float(abs(row.low) > abs(bound) and row.low * bound > 0)
    below = np.interp(bound, edges, np.concatenate([[0.0], counts.cumsum()]) / counts.sum())
    return float(1 - below if bound > 0 else below)


def _start_of(tables):
    """The gradients at the first recorded step, with the settings of their trials."""
    settings = ("depth", "hidden_units", "activation")
    frame = tables.recorded("gradients", settings, "layer", "gradient_norm")
    return frame[frame.step == frame.step.min()]


def _growth(run):
    """The factor by which the squared norm grows from a layer to the one below, fitted."""
    run = run[run.layer < run.layer.max()]
    slope = np.polyfit(run.layer.to_numpy(float), 2 * np.log(run.gradient_norm.to_numpy(float)), 1)
    return float(np.exp(-slope[0]))


def _kinds(tables):
    """The trials with their kind of normalization and test error, a diverged one's being chance."""
    names = ("group_norm", "bn_renorm", "bn_virtual_batch_size", "batch_size", "final_accuracy")
    trials = tables.trials(*names)
    kinds = batch_size.kinds(trials)
    return trials.assign(kind=kinds, error=1 - trials.final_accuracy.fillna(0.1))


def _statistics_steps(tables):
    """First recorded step at the target: a row a kind of statistics, a column a run."""
    found = tables.read("statistics", "trial_id", "step", "statistics", "accuracy")
    return moving_average.first_steps(found, tables.trials())
