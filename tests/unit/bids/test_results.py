"""Which files are summaries of sessions; what is none is said, and the others count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cohorts import summary, write_summary

from bids_wmh_uad.bids.derivatives import write_dataset_files
from bids_wmh_uad.bids.results import current_summaries
from bids_wmh_uad.errors import UNREADABLE_SUMMARY, CannotCreateError

THRESHOLD = {"name": "tail", "parameter": 3.5, "value": 2.0}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", ""),
        ("[]", "not a JSON object"),
        ("{}", "no participant_id"),
        ({"participant_id": 3}, "participant_id is 3"),
        ({"threshold": []}, "threshold is []"),
        ({"threshold": THRESHOLD | {"value": "high"}}, "value is 'high'"),
        ({"warnings": {"code": "X"}}, "warnings is {'code': 'X'}"),
        ({"wmh_volume_ml": "1.2"}, "wmh_volume_ml is '1.2'"),
        ({"lesion_count": True}, "lesion_count is True"),
        ({"versions": "1.0"}, "versions is '1.0'"),
    ],
)
def test_a_file_that_is_no_summary_is_said_and_the_others_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: Any, reason: str
) -> None:
    good = write_summary(tmp_path, summary("1"))
    bad = write_summary(tmp_path, summary("2"))
    bad.write_text(content if isinstance(content, str) else json.dumps(summary("2") | content))
    assert list(current_summaries(tmp_path)) == [good]
    start = UNREADABLE_SUMMARY.partition("{reason}")[0].format(path=bad)
    assert any(text.startswith(start + reason) for text in caplog.messages)


@pytest.mark.parametrize(
    "content", [{"threshold": None}, {"wmh_volume_ml": 3}, {"model": None}, {"warnings": []}]
)
def test_what_a_summary_may_hold(tmp_path: Path, content: dict[str, Any]) -> None:
    path = write_summary(tmp_path, summary("1", **content))
    assert list(current_summaries(tmp_path)) == [path]


def test_the_description_is_the_last_of_the_datasets_files(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").mkdir()  # cannot be written: as if the run was killed before
    with pytest.raises(CannotCreateError):
        write_dataset_files(tmp_path, None)
    assert (tmp_path / "README.md").is_file()
    assert (tmp_path / ".bidsignore").is_file()
