"""The group level, on made-up results: the cohort's table, its page, and the whole run."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from cohorts import (
    config,
    reference_path,
    save,
    summary,
    truth_mask,
    write_failure,
    write_session,
    write_summary,
)

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.results import read_summaries
from bids_wmh_uad.errors import (
    EXIT_OK,
    NO_RESULTS,
    BadDataError,
    MissingInputError,
)
from bids_wmh_uad.group import cohort
from bids_wmh_uad.group import run as group
from bids_wmh_uad.group.cohort import WMH_COLUMNS, cohort_table
from bids_wmh_uad.group.prevalence import PREVALENCE

# ---------------------------------------------------------------- the table


def test_one_row_per_session_in_order(tmp_path: Path) -> None:
    for subject, session in (("2", "1"), ("10", None), ("1", "2"), ("1", "1")):
        write_summary(tmp_path, summary(subject, session))
    rows = cohort_table(read_summaries(tmp_path), {})
    ids = [(row["participant_id"], row["session_id"]) for row in rows]
    assert ids == [("sub-1", "ses-1"), ("sub-1", "ses-2"), ("sub-10", "n/a"), ("sub-2", "ses-1")]
    assert all(list(row) == list(WMH_COLUMNS) for row in rows)


def test_zero_lesions_are_zero_and_failed_is_n_a(tmp_path: Path) -> None:
    write_summary(tmp_path, summary("1", wmh_volume_ml=0.0, lesion_count=0, largest_lesion_ml=0.0))
    write_summary(tmp_path, summary("2"))
    write_failure(tmp_path, "3", "1", "it broke")
    assert group.run_group(config(tmp_path)) == EXIT_OK
    table = pd.read_csv(tmp_path / "group_wmh.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert list(table.columns) == list(WMH_COLUMNS)
    assert json.loads((tmp_path / "group_wmh.json").read_text()) == WMH_COLUMNS
    assert list(table["status"]) == ["done", "done", "failed"]
    assert list(table["wmh_volume_ml"]) == ["0", "0.12", "n/a"]
    assert list(table["lesion_count"]) == ["0", "1", "n/a"]
    assert list(table["reason"]) == ["n/a", "n/a", "it broke"]
    assert list(table["threshold_rule"]) == ["tail=6", "tail=6", "n/a"]
    assert list(table["warnings"]) == ["1", "1", "n/a"]
    assert (tmp_path / "group.html").is_file()
    assert not (tmp_path / "group_evaluation.tsv").exists()


def test_the_volumes_interval_and_its_stability_are_columns(tmp_path: Path) -> None:
    known = {"rejected_count": 3, "volume_ml_lower": 0.05, "volume_ml_upper": 0.5, "unstable_volume": 1}
    write_summary(tmp_path, summary("1", **known))
    write_summary(tmp_path, summary("2"))  # of an earlier version
    first, second = cohort_table(read_summaries(tmp_path), {})
    assert {name: first[name] for name in known} == known
    assert {name: second[name] for name in known} == dict.fromkeys(known)
    assert set(known) <= set(WMH_COLUMNS)


def test_an_unreadable_summary_is_no_row(tmp_path: Path) -> None:
    write_summary(tmp_path, summary("1"))
    write_summary(tmp_path, summary("2")).write_text("{")
    assert [row["participant_id"] for row in cohort_table(read_summaries(tmp_path), {})] == ["sub-1"]


def test_no_results_are_said(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError) as raised:
        cohort_table(read_summaries(tmp_path), {})
    assert str(raised.value) == NO_RESULTS.format(path=tmp_path)


def test_the_group_level_keeps_the_link_to_the_raw_data(tmp_path: Path) -> None:
    write_summary(tmp_path, summary("1"))
    derivatives.write_dataset_files(tmp_path, Path("/data/bids"))
    before = (tmp_path / "dataset_description.json").read_bytes()
    group.run_group(config(tmp_path))
    assert (tmp_path / "dataset_description.json").read_bytes() == before


def test_a_second_run_changes_no_table(tmp_path: Path) -> None:
    write_session(tmp_path / "out", "1")
    save(reference_path(tmp_path / "ref", "1"), truth_mask())
    stamps = []
    for _ in range(2):
        group.run_group(config(tmp_path / "out", reference=tmp_path / "ref"))
        stamps.append({path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("group_*")})
    assert stamps[0] == stamps[1]
    tables = (
        "wmh.tsv",
        "wmh.json",
        "lesions.tsv",
        "lesions.json",
        "evaluation.tsv",
        "evaluation.json",
        "summary.json",
    )
    prevalence = PREVALENCE.format(desc="")
    names = {*tables, prevalence, prevalence.replace(".nii.gz", ".json")}
    assert set(stamps[0]) == {f"group_{name}" for name in names}


# ---------------------------------------------------------------- work on many sessions


def _no_sevens(number: int) -> int:
    if number == 7:
        raise BadDataError("seven")
    return 2 * number


def test_work_on_many_sessions_keeps_order_and_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cohort, "TELL_EVERY", -1.0)
    count = 2 * cohort.AT_ONCE + 1
    with caplog.at_level("INFO"):
        found = cohort.for_each(_no_sevens, range(count), config(tmp_path), seconds=0.0)
    assert [value for value in found if not isinstance(value, BadDataError)] == [
        2 * number for number in range(count) if number != 7
    ]
    assert str(found[7]) == "seven"
    told = [record.args[:2] for record in caplog.records if record.msg == cohort.PROGRESS]
    assert told == [(cohort.AT_ONCE, count), (2 * cohort.AT_ONCE, count)]
