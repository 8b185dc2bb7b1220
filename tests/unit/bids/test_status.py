"""The table of what became of every session: true whenever somebody looks."""

from __future__ import annotations

import csv
import errno
import os
from pathlib import Path

import pytest

from bids_wmh_uad.bids import status
from bids_wmh_uad.bids.dataset import FailedSession, Session
from bids_wmh_uad.bids.status import StatusTable
from bids_wmh_uad.errors import (
    BadImageError,
    EmptySelectionError,
    MissingInputError,
    SessionError,
    TemporaryError,
    WmhUadError,
)


def session(subject: str, visit: str | None = None) -> Session:
    return Session(
        subject, visit, Path(f"/ds/sub-{subject}_FLAIR.nii.gz"), Path(f"/ds/sub-{subject}_T1w.nii.gz")
    )


def rows(path: Path) -> dict[str, tuple[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return {
            f"{row['participant_id']}/{row['session_id']}": (row["status"], row["reason"])
            for row in csv.DictReader(handle, delimiter="\t")
        }


@pytest.fixture
def table(tmp_path: Path) -> StatusTable:
    missing = FailedSession("4", "b", MissingInputError("no\tT1w\nfound"))
    return written(
        tmp_path / "run" / "status.tsv", [session("2"), session("1", "a"), session("3")], [missing]
    )


def written(path: Path, sessions: list[Session], unusable: list[FailedSession]) -> StatusTable:
    made = StatusTable(path, sessions, unusable)
    assert not path.exists(), "it is written where it is sure to be ended"
    made.write()
    return made


def test_every_session_is_there_from_the_start(table: StatusTable) -> None:
    assert rows(table.path) == {
        "sub-1/ses-a": ("unfinished", "n/a"), "sub-2/n/a": ("unfinished", "n/a"), "sub-3/n/a": ("unfinished", "n/a"),
        "sub-4/ses-b": ("waiting for data", "no T1w found"),
    }  # fmt: skip


def test_it_follows_each_session(table: StatusTable) -> None:
    table.end({"sub-2": status.ALREADY_DONE})
    table.end({"sub-1/ses-a": status.DONE})
    assert [state for state, _ in rows(table.path).values()] == [
        "done",
        "already done",
        "unfinished",
        "waiting for data",
    ]
    table.end({"sub-3": status.FAILED}, "a step failed")
    assert rows(table.path)["sub-3/n/a"] == ("failed", "a step failed")
    table.fail([session("3").failed(BadImageError("empty"))])
    assert rows(table.path)["sub-3/n/a"] == ("failed", "empty")
    table.interrupt()  # nothing is left to interrupt
    assert status.INTERRUPTED not in {state for state, _ in rows(table.path).values()}
    assert table.summary() == [
        "done                  1  sub-1/ses-a", "already done          1  sub-2", "failed                1  sub-3",
        "waiting for data      1  sub-4/ses-b",
    ]  # fmt: skip


def test_what_has_not_ended_was_interrupted(table: StatusTable) -> None:
    table.end({"sub-1/ses-a": status.DONE})
    table.interrupt()
    assert [state for state, _ in rows(table.path).values()] == [
        "done",
        "interrupted",
        "interrupted",
        "waiting for data",
    ]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MissingInputError("x"), status.WAITING), (EmptySelectionError("x"), status.WAITING),
        (BadImageError("x"), status.FAILED), (SessionError("x"), status.FAILED), (TemporaryError("x"), status.FAILED),
    ],
)  # fmt: skip
def test_what_waits_for_data(error: WmhUadError, expected: str, tmp_path: Path) -> None:
    made = written(tmp_path / "status.tsv", [], [FailedSession("1", None, error)])
    assert rows(made.path) == {"sub-1/n/a": (expected, "x")}


def test_a_long_list_is_cut_in_the_short_table(tmp_path: Path) -> None:
    made = written(tmp_path / "status.tsv", [session(f"{number:03d}") for number in range(800)], [])
    (line,) = made.summary()
    assert line.startswith("unfinished          800  sub-000, sub-001")
    assert line.endswith("and 792 more")
    assert len(rows(made.path)) == 800


def test_labels_and_reasons_of_any_kind(tmp_path: Path) -> None:
    odd = FailedSession(os.fsdecode(b"\xff"), None, SessionError('say "no"\r\n\tand <b>'))
    made = written(tmp_path / "status.tsv", [], [odd])
    assert rows(made.path) == {"sub-?/n/a": ("failed", 'say "no" and <b>')}


def test_a_disk_that_takes_no_table_costs_no_session(
    table: StatusTable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = table.path.read_bytes()
    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr("logging.Logger.propagate", True, raising=False)
    table.end({"sub-2": status.DONE})
    assert table.path.read_bytes() == before  # whole, as it was
    assert [path.name for path in table.path.parent.iterdir()] == ["status.tsv"]
