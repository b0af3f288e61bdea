import json
import os

import pytest

from sweeps.harness.errors import UserError
from sweeps.harness.results import provenance
from sweeps.harness.results.store import FORMAT, Store, conflicts, write_whole

CODE = provenance.code_fingerprint()


def record(trial_id="ab12", **changes):
    return {
        "trial_id": trial_id,
        "trial": {},
        "status": "done",
        "data": "d1",
        "environment": {"code": CODE},
        "curve": [[1, 2.5, None], [2, 1.25, 0.5]],
    } | changes


def test_what_was_written_is_read_back(tmp_path):
    Store(tmp_path).write(record())
    assert Store(tmp_path).read() == [{"format": FORMAT, **record()}]


def test_a_record_replaces_that_of_the_same_trial(tmp_path):
    store = Store(tmp_path)
    store.write(record(status="failed"))
    store.write(record(status="diverged"))
    assert [r["status"] for r in store.read()] == ["diverged"]


def test_what_is_not_finite_becomes_null(tmp_path):
    Store(tmp_path).write(record(final_loss=float("nan"), curve=[[1, float("inf"), None]]))
    text = (tmp_path / "trials" / "ab12.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["final_loss"] is None
    assert json.loads(text)["curve"] == [[1, None, None]]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"format": 1, "trial_id": "other", "status": "done"}',
        b"\xff\x00",
    ],
    ids=["empty", "cut off", "a list", "null", "no fields", "another trial's", "not text"],
)
def test_a_damaged_file_is_set_aside_with_a_message(tmp_path, capsys, content):
    store = Store(tmp_path)
    store.write(record("good"))
    bad = tmp_path / "trials" / "bad0.json"
    bad.write_bytes(content)
    assert [r["trial_id"] for r in store.read()] == ["good"]
    assert not bad.exists()
    assert bad.with_name("bad0.json.damaged").read_bytes() == content
    message = capsys.readouterr().err
    assert str(bad) in message
    assert "bad0.json.damaged" in message
    assert "will run again" in message


def test_temporary_files_of_a_killed_run_are_ignored(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "trials" / ".ab12.json.x7f3").write_text('{"form')
    assert store.read() == []


def test_a_newer_format_is_refused_and_left_alone(tmp_path):
    store = Store(tmp_path)
    store.write(record())
    path = tmp_path / "trials" / "ab12.json"
    path.write_text(path.read_text().replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}'))
    with pytest.raises(UserError, match=rf"ab12.json was written by a newer .*format {FORMAT + 1}"):
        store.read()
    assert path.exists()


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file.*--results_dir"):
        Store(in_the_way / "mnist" / "depth")


def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_rubbish(tmp_path):
    target = tmp_path / "table.csv"
    target.mkdir()  # a folder in the file's place: the last step, the renaming, fails
    with pytest.raises(UserError, match=r"cannot write .*table\.csv"):
        write_whole(target, b"new")
    assert os.listdir(tmp_path) == ["table.csv"]


def test_conflicts_counts_trials_of_other_code_and_other_data():
    records = [
        record(),
        record(data="d2"),
        record(environment={"code": "c2"}),
        record(status="failed"),
    ]
    assert conflicts(records, "d1") == "1 of 3 with other code and 1 of 3 with other data"
    assert conflicts([record()], "d1") is None


def test_another_version_of_a_program_is_other_code(monkeypatch):
    monkeypatch.setattr(provenance, "program_fingerprint", {"noise": "p1", None: None}.get)
    same, other = ({"code": CODE, "program_code": code} for code in ("p1", "p2"))
    trial = {"program": "noise"}
    assert conflicts([record(trial=trial, environment=same)], "d1") is None
    expected = "1 of 1 with other code"
    assert conflicts([record(trial=trial, environment=other)], "d1") == expected
    assert conflicts([record(trial=trial)], "d1") == expected
