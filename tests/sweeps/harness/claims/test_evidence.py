"""What rules read: tables that are missing, damaged, or of another version."""

import dataclasses
import re
from pathlib import Path

import pandas as pd
import pytest
from claim_tables import YES, assert_verdict, depths, rows_of, trial, trials

import sweeps
from sweeps import catalog
from sweeps.harness import claims
from sweeps.harness.data import DataSize
from sweeps.harness.errors import UserError

ROOT = Path(sweeps.__file__).parents[1]


def test_a_run_that_diverged_before_its_recorder_ran_is_not_forgotten(judge):
    frame = trials(
        *[
            trial(batch_norm=arm, dropout=rate, l2=None, record="evaluation")
            for arm in (False, True)
            for rate in (None, 0.5)
        ]
    )
    rows = rows_of(
        frame,
        "evaluation",
        lambda t: [
            {"step": 10, "data": data, "accuracy": accuracy}
            for data, accuracy in (("train", 0.99), ("test", 0.95))
        ],
    )
    judge(20, trials=frame, evaluation=rows)
    first = frame.trial_id.iloc[0]
    frame.loc[frame.trial_id == first, "status"] = "diverged"
    judge(20, trials=frame, evaluation=rows)
    rows = rows[rows.trial_id != first]
    with pytest.raises(claims.UndecidedError, match=r"1 run diverged .* regularization/evaluation"):
        judge(20, trials=frame, evaluation=rows)
    # Other recorders leave nothing in this table.
    frame.loc[frame.trial_id == first, "record"] = "gradients"
    judge(20, trials=frame, evaluation=rows)


def test_missing_evidence_is_named(judge):
    with pytest.raises(claims.UndecidedError, match=r"there is no depth/trials\.csv"):
        judge(1)
    with pytest.raises(claims.UndecidedError, match="batch_norm=False"):
        judge(1, trials=depths(True, 10, 20))
    with pytest.raises(claims.UndecidedError, match="several values of depth"):
        judge(1, trials=depths(False, 10))


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


class TestDefaultGrid:
    """Rules see the trials that the study runs without flags, and verdicts need all of them."""

    @pytest.fixture
    def tables(self, tmp_path):
        """Writes trials.csv of depth on mnist_5k: ten seeds, steps by trial, further trials."""
        grid = catalog.grid("depth")(DataSize.of("mnist_5k"), 10)

        def make(steps, *others, keep=lambda trial: True):
            rows = [
                {**t.to_json(), "trial_id": t.id, "depth": t.depth, "steps_to_target": steps(t)}
                for t in [*filter(keep, grid.values()), *others]
            ]
            folder = tmp_path / "mnist_5k" / "depth"
            folder.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).assign(status="done").to_csv(folder / "trials.csv", index=False)
            return claims.StudyTables(folder, catalog.grid)

        return make

    def decide(self, number, tables):
        _, claim = catalog.claims()[number]
        return claims.decide(claim, tables)

    def test_trials_with_other_settings_do_not_count(self, tables):
        example = next(iter(catalog.grid("depth")(DataSize.of("mnist_5k"), None).values()))
        others = [
            dataclasses.replace(example, batch_norm=False, hidden_units=(500,), seed=seed, **change)
            for seed in range(5)
            for change in ({"learning_rate": 0.1}, {"activation": "sigmoid"}, {"max_steps": 60})
        ]
        made = tables(lambda t: 10 * t.depth if t not in others else 999, *others)
        finding = self.decide(1, made)
        assert [row["Median steps"] for row in finding.rows] == [
            f"{steps} [{steps}, {steps}] (10/10)" for steps in (10, 20, 30, 40, 50, 60, 70)
        ]
        assert finding.verdict == YES

    def test_a_further_seed_counts_once(self, tables):
        more = catalog.grid("depth")(DataSize.of("mnist_5k"), 11)
        extra = [t for t in more.values() if t.seed == 10]
        finding = self.decide(1, tables(lambda t: 10 * t.depth, *extra))
        assert finding.rows[0]["Median steps"] == "10 [10, 10] (11/11)"
        assert finding.verdict == YES

    @pytest.mark.parametrize(
        ("keep", "missing"),
        [
            (lambda t: t.depth < 3, "50 of the 70 trials .* missing .depth 7, 6, 5, 4, 3."),
            (
                lambda t: t.seed == 0,
                "63 of the 70 trials .* missing .seed 1, 2, 3, 4, 5, 6, 7, 8, 9.",
            ),
            (lambda t: t.batch_norm, "70 of the 70 trials"),
        ],
    )
    def test_thin_evidence_is_undecided_and_says_what_is_missing(self, tables, keep, missing):
        finding = self.decide(1, tables(lambda t: 10 * t.depth, keep=keep))
        assert re.match(f"undecided: {missing}", finding.verdict), finding.verdict

    def test_the_other_arm_is_not_needed(self, tables):
        finding = self.decide(1, tables(lambda t: 10 * t.depth, keep=lambda t: not t.batch_norm))
        assert finding.verdict == YES

    def test_trials_of_several_versions_of_the_code_decide_nothing(self, tables, tmp_path):
        made = tables(lambda t: 10 * t.depth)
        path = tmp_path / "mnist_5k" / "depth" / "trials.csv"
        frame = pd.read_csv(path, dtype={"trial_id": str}).assign(code="0123")
        frame.to_csv(path, index=False)
        assert self.decide(1, made).verdict == YES
        frame.loc[0, "code"] = "4567"
        frame.to_csv(path, index=False)
        verdict = self.decide(1, made).verdict
        assert verdict == "undecided: the trials come from several versions of the code"

    def test_all_runs_censored_is_undecided(self, tables):
        finding = self.decide(1, tables(lambda t: None))
        assert finding.verdict.startswith("undecided: no run reached the target")

    def test_published_results_are_the_default_grid_of_each_study(self):
        """So that every verdict can be computed again from the tracked tables."""
        complete, incomplete = set(), set()
        for path in sorted((ROOT / "results").glob("*/*/trials.csv")):
            table = pd.read_csv(path, dtype={"trial_id": str})
            grid = catalog.grid(path.parent.name)(DataSize.of(path.parents[1].name), None, table)
            whole = set(grid) <= set(table.trial_id)
            (complete if whole else incomplete).add(path.parent.name)
        assert not incomplete
        assert len(complete) >= 10
