"""Claims about networks whose learning rates are tuned per arm and depth.

Rates are selected on the validation set. The numbers of claims 26 and 27 come from the test
set, with other seeds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from sweeps.harness.claims import Claim
from sweeps.harness.claims.checks import check, ratio, statistic
from sweeps.harness.claims.evidence import StudyTables, in_steps, pick, steps
from sweeps.harness.claims.verdicts import (
    DEPENDS,
    NOT_REPRODUCED,
    REPRODUCED,
    Finding,
    UndecidedError,
    all_parts,
    undecided,
)
from sweeps.harness.claims.wording import layers, listed
from sweeps.harness.results.intervals import SEEDS_NEEDED
from sweeps.harness.trial import arm_name
from sweeps.harness.wording import counted
from sweeps.tuned import selection

_GROWTH = 1.25  # smallest ratio of steps that counts as growth with depth
_MOST = 0.5  # share of the saved steps above which tuning saves most of them


def plain_steps_grow_when_tuned(tables: StudyTables) -> Finding:
    """Claim 26, from the steps of the deepest and the shallowest network at the selected rates.

    The growth of an arm is the median at the largest depth, divided by the median at depth 1.

    Reproduced: the growth is above 1.25 for plain networks and below 1.25 with batch norm.
    Depends on the part: only one of the two holds.
    Not reproduced: neither holds.
    """
    report = _Report.of(tables)
    first, last = min(report.depths), max(report.depths)
    if first == last:
        raise UndecidedError("the claim needs several depths")
    plain, normed = (
        ratio(steps(report.tuned(last, arm)), steps(report.tuned(first, arm))) for arm in _ARMS
    )
    parts = {
        "tuned plain networks need more steps": check(plain, "above", _GROWTH),
        "tuned networks with batch norm need no more": check(normed, "below", _GROWTH),
    }
    of_plain, of_normed = (each.number for each in parts.values())
    measured = (
        f"at tuned rates, {layers(last)} need {of_plain} times the steps of {layers(first)} "
        f"without batch norm, and {of_normed} times with it; above {_GROWTH:g} counts as growth"
    )
    verdict = report.with_notes(all_parts(parts), [(d, a) for d in (first, last) for a in _ARMS])
    return Finding(measured, verdict, report.rows())


def tuning_saves_most(tables: StudyTables) -> Finding:
    """Claim 27, from the median steps of the deepest networks at the published and selected rates.

    Batch norm saves (plain - batch norm) steps. The share that tuning saves is 1 minus the steps
    that batch norm saves at the selected rates, divided by those at the published rate.

    Reproduced: the share is above 0.5.
    Not reproduced: the share is at most 0.5.
    """
    report = _Report.of(tables)
    depth = max(report.depths)
    samples = [steps(report.tuned(depth, arm)) for arm in _ARMS]
    samples += [steps(report.published(depth, arm)) for arm in _ARMS]
    of_steps, of_log = statistic(_share, *samples), statistic(_share_of_log, *samples)
    if np.isinf(samples[0].median()) and np.isinf(samples[2].median()):
        raise UndecidedError("plain networks miss the target at both rates")
    if not samples[3].median() < samples[2].median():
        raise UndecidedError("batch norm saves no steps at the published rate")
    share = check(of_steps, "above", _MOST)
    measured = (
        f"at {layers(depth)}, tuning saves {share.number} of the steps that batch norm saves at "
        f"the published rate of {selection.PUBLISHED:g}, and {of_log.shown('.3g')} of the "
        f"logarithm of their ratio; above {_MOST:g} of the steps counts as most"
    )
    verdict = report.with_notes(_verdict(share, "the share"), [(depth, arm) for arm in _ARMS])
    return Finding(measured, verdict, report.rows())


def batch_norm_widens_the_range(tables: StudyTables) -> Finding:
    """Claim 28, from the median steps of the deepest networks at every rate, on the validation set.

    A rate is tolerated if its median is at most twice the smallest of its arm. The rate tolerance
    is the highest tolerated rate divided by the lowest.

    Reproduced: the tolerance with batch norm, divided by that of plain networks, is above 1.
    Not reproduced: it is at most 1.
    """
    trials = _validation(tables)
    depth = trials.depth.max()
    found = {
        arm: selection.steps_by_rate(pick(trials, depth=depth, batch_norm=arm)) for arm in _ARMS
    }
    for arm, table in found.items():
        if np.isinf(table.median(axis=1)).all():
            raise UndecidedError(f"no rate reaches the target for {_named(depth, arm)}")
    plain, normed = found[False], found[True]
    if not plain.index.equals(normed.index):
        raise UndecidedError("the arms were not trained with the same rates")
    rates = plain.index.to_numpy(float)

    def tolerance_ratio(*medians):
        of_plain, of_normed = np.split(np.stack(medians), 2)
        return selection.tolerance(rates, of_normed) / selection.tolerance(rates, of_plain)

    samples = [row for table in (plain, normed) for _, row in table.iterrows()]
    wider = check(statistic(tolerance_ratio, *samples), "above", 1)
    words = [_range(arm, rates, found[arm]) for arm in _ARMS]
    measured = (
        f"at {layers(depth)}, the rate tolerance with batch norm is {wider.number} times that of "
        f"plain networks; {'; '.join(words)}"
    )
    return Finding(measured, _verdict(wider, "the ratio of the tolerances"))


_ARMS = (False, True)


class _Report(NamedTuple):
    """The steps of the report, and the rates that the selection chose.

    Attributes:
        trials: Trials on the test set.
        selected: Selection with one row per depth and arm, see `selection.table`.
    """

    trials: pd.DataFrame
    selected: pd.DataFrame

    @classmethod
    def of(cls, tables: StudyTables) -> _Report:
        """Reads the report. Raises an UndecidedError without a selection or without a report."""
        every = _trials(tables)
        selected = selection.table(_validation(tables))
        trials = selection.on("test", every)
        if trials.empty:
            raise UndecidedError(
                "there are no runs on the test set; the second part of the study makes them"
            )
        return cls(trials, selected.set_index(selection.NETWORK))

    @property
    def depths(self) -> list[int]:
        """The depths that the selection has."""
        return sorted(self.selected.index.unique("depth"))

    def tuned(self, depth: int, arm: bool) -> pd.DataFrame:
        """The trials at the selected rate."""
        return self._at(depth, arm, self._selected(depth, arm).learning_rate)

    def published(self, depth: int, arm: bool) -> pd.DataFrame:
        """The trials at the published rate."""
        return self._at(depth, arm, selection.PUBLISHED)

    def rows(self) -> list[dict[str, str]]:
        """The table below the claim, with one row per depth and arm."""
        return [
            {
                "Hidden layers": str(depth),
                "Arm": arm_name(arm),
                "Selected rate": f"{selected.learning_rate:g}",
                "Steps at it": in_steps(self.tuned(depth, arm)),
                "Over the arm's fastest depth": self._over_fastest(depth, arm),
                f"Steps at {selection.PUBLISHED:g}": in_steps(self.published(depth, arm)),
            }
            for (depth, arm), selected in self.selected.iterrows()
        ]

    def with_notes(self, verdict: str, networks: list[tuple[int, bool]]) -> str:
        """The verdict, with a note on those of the networks whose selection is questionable."""
        words = [
            f"{note} {listed(_named(*network) for network in found)}"
            for note, is_so in (
                ("no tried rate reaches the target for", lambda s: np.isinf(s.median_steps)),
                ("a better rate may lie outside the grid for", lambda s: s.at_edge),
            )
            if (found := [network for network in networks if is_so(self._selected(*network))])
        ]
        if not words:
            return verdict
        separator = "; " if ":" in verdict or verdict.startswith(DEPENDS) else ": "
        return f"{verdict}{separator}{'; '.join(words)}"

    def _over_fastest(self, depth, arm):
        """The steps at the selected rate, divided by those of the arm's fastest depth."""
        found = [steps(self.tuned(other, arm)) for other in self.depths]
        return ratio(steps(self.tuned(depth, arm)), min(found, key=pd.Series.median)).shown(".3g")

    def _selected(self, depth, arm):
        try:
            return self.selected.loc[(depth, arm)]
        except KeyError as error:
            raise UndecidedError(f"no rate was selected for {_named(depth, arm)}") from error

    def _at(self, depth, arm, rate):
        found = self.trials[
            (self.trials.depth == depth)
            & (self.trials.batch_norm == arm)
            & (self.trials.learning_rate == rate)
        ]
        if found.empty:
            raise UndecidedError(
                f"there are no runs of {_named(depth, arm)} on the test set at rate {rate:g}"
            )
        return found


def _verdict(check, name):
    """The verdict on a claim about a single number. `name` is the number's name."""
    if check.holds is None:
        return undecided({name: check})
    return REPRODUCED if check.holds else NOT_REPRODUCED


def _trials(tables):
    names = ("depth", "learning_rate", "evaluated_on", "steps_to_target")
    return tables.trials(*names)


def _validation(tables):
    """The trials of the selection. Raises an UndecidedError if there are too few seeds."""
    trials = selection.on("validation", _trials(tables))
    if trials.empty:
        raise UndecidedError("there are no runs on the validation set to select a rate from")
    seeds = trials.groupby([*selection.NETWORK, "learning_rate"]).seed.nunique().min()
    if seeds < SEEDS_NEEDED:
        raise UndecidedError(
            f"rates were selected with {counted(seeds, 'seed')}; {SEEDS_NEEDED} are needed"
        )
    return trials


def _range(arm, rates, table):
    """A clause with an arm's tolerated rates and its number of rates that reach the target."""
    medians = table.median(axis=1).to_numpy()
    low, high = selection.tolerated(rates, medians)
    lowest = " (the lowest rate tried)" if rates.min() == low else ""
    highest = " (the highest rate tried)" if rates.max() == high else ""
    return (
        f"{arm_name(arm)}: from {low:g}{lowest} to {high:g}{highest}, and "
        f"{np.isfinite(medians).sum()} of {len(rates)} rates reach the target"
    )


def _named(depth, arm):
    return f"{arm_name(arm)} at {layers(depth)}"


def _share(tuned_plain, tuned_normed, plain, normed):
    """The share of the steps saved by batch norm that tuning saves. NaN if it saves none."""
    saved = plain - normed
    return np.where(saved > 0, 1 - (tuned_plain - tuned_normed) / saved, np.nan)


def _share_of_log(tuned_plain, tuned_normed, plain, normed):
    """The same share, computed with the logarithm of the ratio of steps."""
    saved = np.log(plain / normed)
    return np.where(saved > 0, 1 - np.log(tuned_plain / tuned_normed) / saved, np.nan)


CLAIMS = {
    26: Claim(
        "With tuned learning rates, plain networks still need more steps as depth grows, and "
        "networks with batch norm do not",
        "Rawles 2018, with tuned rates",
        plain_steps_grow_when_tuned,
        charts="steps_by_depth",
    ),
    27: Claim(
        "Most of the steps that batch norm saves at the published learning rate are saved by "
        "tuning the plain network's rate instead",
        "Choi et al. 2019",
        tuning_saves_most,
        charts="steps_by_depth",
    ),
    28: Claim(
        "Batch norm widens the range of learning rates that train",
        "Bjorck et al. 2018",
        batch_norm_widens_the_range,
        needs=lambda trial: trial.evaluated_on == "validation",
        charts="steps_by_rate",
    ),
}
