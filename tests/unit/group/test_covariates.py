"""Which columns of people's tables go into the cohort's: numbers and short labels, nothing that names a person."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cohorts import config, summary, write_summary

from bids_wmh_uad.group import run as group
from bids_wmh_uad.group.cohort import WMH_COLUMNS
from bids_wmh_uad.group.covariates import (
    LONGEST_LABEL,
    MOST_COLUMNS,
    MOST_LEVELS,
    PREFIX,
    Covariates,
    choose,
)


def chosen(values: list[str], name: str = "x", taken: tuple[str, ...] = ()) -> Covariates:
    """One column, of as many participants as it has values."""
    people = {f"sub-{number:02d}": {name: value} for number, value in enumerate(values)}
    return choose([(label, "n/a") for label in people], people, {}, taken)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("age", ["70", "71.5", "n/a", "89+"]),
        ("sex", ["F", "M", "F"]),
        ("EDSS", ["1.5", "-2", "1e3"]),
        ("group", ["patient", "healthy control"]),
        ("education", [str(number) for number in range(50)]),  # many numbers are a measure, not labels
        ("medication", ["none", "A", "B"] * 4),
        ("site_id", [f"s{number}" for number in range(8)]),  # each its own, but a site
        ("visit_time_since_onset", ["3", "4"]),
    ],
)
def test_numbers_and_short_labels_are_taken(name: str, values: list[str]) -> None:
    found = chosen(values, name)
    assert list(found.columns) == [name]
    assert not found.left_out
    cells = [row[name] for row in found.rows.values()]
    assert cells == [None if value in ("n/a", "none") else value for value in values]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("name", ["Ann", "Bob"]),
        ("PatientName", ["Ann", "Bob"]),
        ("initials", ["AB", "CD"]),
        ("date_of_birth", ["1950", "1951"]),
        ("hospital_id", ["1", "2"]),
        ("acq_time", ["2020-01-01T10:00:00", "2020-01-02"]),
        ("scanned", ["01/02/2020", "3.4.21"]),
        ("scanned_at", ["10:15", "11:30:00"]),
        ("scanned_on", ["20240131", "20240201"]),
        ("contact", ["a@example.org", "b"]),
        ("tel", ["00441234567890", "0123456789"]),
        ("remarks", ["no", "yes"]),
        ("history", ["x" * (LONGEST_LABEL + 1), "y"]),
        ("diagnosis", [f"d{number % (MOST_LEVELS + 1)}" for number in range(100)]),
        ("nickname2", ["Ann", "Bob", "Cid", "Dan", "Eve", "Fay"]),
        ("nothing", ["n/a", "NaN", ""]),
        ("long" * 20, ["1", "2"]),
    ],
)
def test_what_may_name_a_person_or_is_text_is_left_out_with_a_reason(name: str, values: list[str]) -> None:
    found = chosen(values, name)
    assert list(found.left_out) == [name]
    assert found.left_out[name]
    assert not found.columns
    assert all(row == {} for row in found.rows.values())


def test_a_column_with_one_of_our_names_keeps_its_content_under_another() -> None:
    people = {"sub-1": {"Status": "ill", PREFIX + "status": "old", "WMH_volume_ml": "3"}}
    found = choose([("sub-1", "n/a")], people, {}, WMH_COLUMNS)
    assert len({name.lower() for name in (*found.columns, *WMH_COLUMNS)}) == 3 + len(WMH_COLUMNS)
    assert sorted(found.rows["sub-1", "n/a"].values()) == ["3", "ill", "old"]
    assert all(name.startswith(PREFIX) for name in found.columns)


def test_a_decimal_comma_becomes_a_point_and_codes_stay() -> None:
    assert [row["x"] for row in chosen(["70,5", "71"]).rows.values()] == ["70.5", "71"]
    assert [row["x"] for row in chosen(["01", "02"]).rows.values()] == ["01", "02"]
    assert [row["x"] for row in chosen(["70,5", "old"]).rows.values()] == ["70,5", "old"]


def test_no_more_columns_than_a_table_can_bear() -> None:
    people = {"sub-1": {f"x{number}": "1" for number in range(MOST_COLUMNS + 5)}}
    found = choose([("sub-1", "n/a")], people, {}, ())
    assert (len(found.columns), len(found.left_out)) == (MOST_COLUMNS, 5)


def group_table(tmp_path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    group.run_group(config(tmp_path / "out", tmp_path / "raw"))
    table = pd.read_csv(tmp_path / "out" / "group_wmh.tsv", sep="\t", dtype=str, keep_default_na=False)
    return table, json.loads((tmp_path / "out" / "group_wmh.json").read_text())


def test_the_cohorts_table_has_age_and_sex_by_participant_and_session(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for subject, session in (("01", "1"), ("01", "2"), ("02", "1")):
        write_summary(tmp_path / "out", summary(subject, session))
    raw = tmp_path / "raw"
    (raw / "sub-01").mkdir(parents=True)
    (raw / "participants.tsv").write_text(
        "participant_id\tage\tsex\tcomment\tstatus\nsub-01\t70\tF\tcalls herself Ann\tdone\nsub-02\t50\tM\t\tn/a\n"
    )
    (raw / "participants.json").write_text(
        json.dumps(
            {"age": {"Description": "Age at entry.", "Units": "year"}, "sex": {"Levels": {"F": "female"}}}
        )
    )
    (raw / "sub-01" / "sub-01_sessions.tsv").write_text(
        "session_id\tage\tacq_time\tedss\nses-1\t70\t2001-02-03T04:05:06\t2\n2\t72\t2003-02-03T04:05:06\t3.5\n"
    )
    with caplog.at_level(logging.INFO):
        table, about = group_table(tmp_path)
    assert list(table["age"]) == ["70", "72", "50"]  # the session's, where there is one
    assert list(table["sex"]) == ["F", "F", "M"]
    assert list(table["edss"]) == ["2", "3.5", "n/a"]
    assert list(table[PREFIX + "status"]) == ["done", "done", "n/a"]
    assert list(table["status"]) == ["done"] * 3
    assert set(about) == set(table.columns)
    assert about["age"]["Units"] == "year"
    assert "Age at entry." in about["age"]["Description"]
    assert about["sex"]["Levels"] == {"F": "female"}
    written = (tmp_path / "out" / "group_wmh.tsv").read_text() + (tmp_path / "out" / "group.html").read_text()
    assert "Ann" not in written
    assert "2001-02" not in written
    assert "Taken from participants.tsv and sessions.tsv: age, sex, participants_status, edss" in caplog.text
    assert "comment (" in caplog.text
    assert "Ann" not in caplog.text


def test_without_the_raw_dataset_the_table_has_our_own_columns(tmp_path: Path) -> None:
    write_summary(tmp_path / "out", summary("01"))
    table, _ = group_table(tmp_path)
    assert list(table.columns) == list(WMH_COLUMNS)
