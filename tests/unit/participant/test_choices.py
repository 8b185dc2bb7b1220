"""Two FLAIR of one session in one output directory: the newest run's counts, the other is said and kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import FailedSession, Session
from bids_wmh_uad.bids.results import SUPERSEDED, read_summaries
from bids_wmh_uad.errors import EXIT_OK, OLDER_RESULT, MissingInputError, SessionError
from bids_wmh_uad.files import dump_json
from bids_wmh_uad.group import run as group
from bids_wmh_uad.participant.failures import record_failures
from bids_wmh_uad.reports.subject import read_sessions
from tests.unit.group.cohorts import config, summary

ERROR = SessionError("it broke")


def choice(acquisition: str, session: str | None = None) -> Session:
    return Session("1", session, Path(f"sub-1_acq-{acquisition}_FLAIR.nii.gz"), Path("sub-1_T1w.nii.gz"))


def finish(out: Path, session: Session) -> Path:
    """What a run that succeeds leaves of the session, if it was not there."""
    path = derivatives.output_path(out, session, "summary")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        volume = float(len(session.prefix))
        path.write_bytes(dump_json(summary("1", session.session, wmh_volume_ml=volume, threshold={})))
    record_failures(out, [session], [])
    return path


def fail(out: Path, session: Session) -> Path:
    record_failures(out, [session], [session.failed(ERROR)])
    return derivatives.failure_path(out, session.subject, session.session)


def rows(out: Path) -> dict[Path, Any]:
    return {path: content["status"] for path, content in read_summaries(out).items()}


@pytest.mark.parametrize("session", [None, "2"])
def test_the_newest_choice_is_the_row_and_the_older_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, session: str | None
) -> None:
    first = finish(tmp_path, choice("3D", session))
    content = first.read_bytes()
    second = finish(tmp_path, choice("2D", session))
    assert rows(tmp_path) == {second: "done"}
    assert caplog.messages == [OLDER_RESULT.format(path=first, kept=second.name)]
    assert derivatives.read_summary(first)[SUPERSEDED] == second.name
    finish(tmp_path, choice("3D", session))  # finished before: only the mark changes
    assert rows(tmp_path) == {first: "done"}
    assert first.read_bytes() == content
    assert derivatives.read_summary(second)[SUPERSEDED] == first.name


def test_a_third_choice_leaves_one_row_too(tmp_path: Path) -> None:
    paths = [finish(tmp_path, choice(name)) for name in ("a", "c", "b")]
    assert list(rows(tmp_path)) == [paths[-1]]
    before = {path: path.stat().st_mtime_ns for path in paths}
    finish(tmp_path, choice("b"))
    assert {path: path.stat().st_mtime_ns for path in paths} == before  # nothing was to do


def test_a_choice_that_fails_is_the_row_until_the_next_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = finish(tmp_path, choice("3D"))
    failure = fail(tmp_path, choice("2D"))
    caplog.clear()
    assert rows(tmp_path) == {failure: "failed"}
    assert caplog.messages == [OLDER_RESULT.format(path=first, kept=failure.name)]
    finish(tmp_path, choice("3D"))
    assert rows(tmp_path) == {first: "done"}
    assert not failure.exists()
    assert fail(tmp_path, choice("3D")) == failure  # of the same FLAIR: its result is kept
    assert not failure.exists()
    assert rows(tmp_path) == {first: "done"}


def test_a_session_that_could_not_start_changes_nothing(tmp_path: Path) -> None:
    finish(tmp_path, choice("3D"))
    second = finish(tmp_path, choice("2D"))
    record_failures(tmp_path, [], [FailedSession("1", None, MissingInputError("no FLAIR"))])
    assert rows(tmp_path) == {second: "done"}


def test_without_the_newest_files_the_older_result_counts_again(tmp_path: Path) -> None:
    first = finish(tmp_path, choice("3D"))
    finish(tmp_path, choice("2D")).unlink()
    assert rows(tmp_path) == {first: "done"}


def test_marks_that_point_at_each_other_lose_no_session(tmp_path: Path) -> None:
    paths = [finish(tmp_path, choice(name)) for name in ("3D", "2D")]
    for number, (path, other) in enumerate(zip(paths, reversed(paths), strict=True)):
        path.write_bytes(dump_json(summary("1") | {SUPERSEDED: other.name}))
        os.utime(path, ns=(number, number))
    assert rows(tmp_path) == {paths[1]: "done"}


def test_of_results_that_an_older_version_left_the_last_written_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [derivatives.output_path(tmp_path, choice(name), "summary") for name in ("2D", "3D", "FS")]
    for path, time in zip(paths, (5, 9, 7), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dump_json(summary("1")))
        os.utime(path, ns=(time, time))
    assert rows(tmp_path) == {paths[1]: "done"}
    assert sorted(caplog.messages) == [
        OLDER_RESULT.format(path=path, kept=paths[1].name) for path in (paths[0], paths[2])
    ]


def test_the_page_says_which_result_is_older(tmp_path: Path) -> None:
    first, second = finish(tmp_path, choice("3D")), finish(tmp_path, choice("2D"))
    warned = {row.prefix: row.warnings[0] for row in read_sessions(tmp_path, "1")}
    assert warned == {
        "sub-1_acq-2D": "look",
        "sub-1_acq-3D": OLDER_RESULT.format(path=first.name, kept=second.name),
    }


def test_other_sessions_are_not_touched(tmp_path: Path) -> None:
    finish(tmp_path, choice("3D", "1"))
    finish(tmp_path, choice("2D", "2"))
    assert list(rows(tmp_path).values()) == ["done", "done"]
    assert group.run_group(config(tmp_path)) == EXIT_OK
    assert (tmp_path / "group_wmh.tsv").read_text().count("\nsub-1\t") == 2
