"""Pages are rebuilt from the derivatives alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bids_wmh_uad.bids.dataset import FailedSession
from bids_wmh_uad.cli.run import _dispatch
from bids_wmh_uad.config import Performance, Running, Selection
from bids_wmh_uad.errors import EXIT_OK, SessionError
from bids_wmh_uad.participant import reports
from tests.unit.group.cohorts import config, summary, write_failure, write_session, write_summary


def test_reports_are_rebuilt_for_the_participants_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for subject in ("1", "2"):
        write_summary(tmp_path, summary(subject))
    write_failure(tmp_path, "2", "9", "it broke")
    asked: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(
        "bids_wmh_uad.participant.reports.write_reports",
        lambda _, subjects, failed: asked.append(
            (list(subjects), {entry.label: str(entry.error) for entry in failed})
        ),
    )
    plain = replace(config(tmp_path), analysis_level="participant")
    assert reports.rebuild_reports(plain) == EXIT_OK
    reports.rebuild_reports(replace(plain, selection=Selection(participant_label=("2", "none"))))
    assert asked == [(["1", "2"], {"sub-2/ses-9": "it broke"}), (["2"], {"sub-2/ses-9": "it broke"})]


def test_a_page_names_the_failures_of_other_processes_too(tmp_path: Path) -> None:
    write_failure(tmp_path, "2", "9", "it broke elsewhere")
    own = FailedSession("2", "8", SessionError("it broke here"))
    reports.write_reports(replace(config(tmp_path), analysis_level="participant"), ["2"], [own])
    page = (tmp_path / "sub-2.html").read_text()
    assert "it broke elsewhere" in page
    assert "it broke here" in page
    assert not list(tmp_path.rglob("*.lock"))


def test_many_pages_are_written_by_several_processes_and_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reports, "PAGES_PER_PROCESS", 2)
    subjects = [str(number) for number in range(1, 5)]
    pages = []
    for jobs, root in ((1, tmp_path / "one" / "out"), (2, tmp_path / "two" / "out")):
        for subject in subjects:
            write_summary(root, summary(subject))
        (root / "sub-3.html").mkdir()  # stands where a page belongs
        settings = replace(config(root), performance=Performance(nprocs=jobs))
        caplog.clear()
        reports.write_reports(settings, subjects, [FailedSession("2", "8", SessionError("it broke here"))])
        assert [text for text in caplog.messages if "sub-3: the page could not be written" in text]
        assert "it broke here" in (root / "sub-2.html").read_text()
        pages.append({subject: (root / f"sub-{subject}.html").read_bytes() for subject in ("1", "2", "4")})
    assert pages[0] == pages[1]


def test_at_the_group_level_the_cohorts_page_is_rebuilt(tmp_path: Path) -> None:
    write_session(tmp_path, "1")
    only = replace(config(tmp_path), running=Running(reports_only=True, work_dir=tmp_path / "work"))
    assert _dispatch(only) == EXIT_OK
    assert (tmp_path / "group.html").is_file()
