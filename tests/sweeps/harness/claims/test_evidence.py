"""What rules read: tables that are missing, damaged, or of another version."""

import pandas as pd
import pytest
from claim_tables import YES, assert_verdict, depths, trial, trials

from sweeps.harness import claims
from sweeps.harness.errors import UserError


def test_what_is_missing_is_not_run_and_says_what(judge):
    with pytest.raises(claims.NotRunError, match=r"there is no depth/trials\.csv"):
        judge(1)
    with pytest.raises(claims.NotRunError, match="batch_norm=False"):
        judge(1, trials=depths(True, 10, 20))
    with pytest.raises(claims.NotRunError, match="several values of depth"):
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
