"""What became of every session that a run was asked for: a table that is true at any moment, whatever ends the run."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from bids_wmh_uad.bids.dataset import FailedSession, Session
from bids_wmh_uad.errors import BusyError, EmptySelectionError, MissingInputError, WmhUadError
from bids_wmh_uad.files import write_text

LOGGER = logging.getLogger("bids_wmh_uad")
NOT_UPDATED = "The table of the sessions is not up to date: %s"
DONE, ALREADY_DONE, FAILED, WAITING, ELSEWHERE, UNFINISHED, INTERRUPTED = (
    "done", "already done", "failed", "waiting for data", "in work elsewhere", "unfinished", "interrupted",
)  # fmt: skip
"""Names of what becomes of a session. Unfinished is one that the run has not ended yet, or never will: it was killed."""
MEANINGS = {
    DONE: "this run finished it",
    ALREADY_DONE: "another run finished it, nothing was to do",
    FAILED: "the reason says why",
    WAITING: "a scan is missing or was not fetched",
    ELSEWHERE: "another process works on it",
    UNFINISHED: "the run works on it, or was killed before it ended",
    INTERRUPTED: "the run was stopped before it ended",
}
"""What each means, for people."""
SHOWN = 8
"""Largest number of sessions that the short table names for one status."""


@dataclass(frozen=True)
class _Row:
    subject: str
    session: str | None
    label: str
    status: str = UNFINISHED
    reason: str = "n/a"

    @cached_property
    def line(self) -> str:
        """Its line of the table: made once, for the table is written as often as there are sessions."""
        session = f"ses-{self.session}" if self.session else "n/a"
        return _line(f"sub-{self.subject}", session, self.status, " ".join(self.reason.split()))


class StatusTable:
    """The table of a run's sessions on disk, written anew, in one step, whenever one of them ends.

    It is not on disk before `write`: call that where `interrupt` is sure to follow, however soon the run is stopped.

    Parameters
    ----------
    path : Path
        ``logs/RUN/status.tsv``.
    sessions : iterable of Session
        Those that can be started: unfinished, until something else is said.
    unusable : iterable of FailedSession
        Those that cannot.
    """

    def __init__(self, path: Path, sessions: Iterable[Session], unusable: Iterable[FailedSession]) -> None:
        self.path = path
        asked: list[Session | FailedSession] = sorted([*sessions, *unusable], key=lambda entry: entry.label)
        self._rows = {entry.label: _Row(entry.subject, entry.session, entry.label) for entry in asked}
        self._fail(unusable)

    def add(self, subjects: Iterable[str]) -> None:
        """Add a row of what changed between the sessions of each participant: without a session, labelled `change_label`."""
        for subject in subjects:
            label = change_label(subject)
            self._rows[label] = _Row(subject, None, label)
        self.write()

    def end(self, statuses: Mapping[str, str], reason: str = "n/a") -> None:
        """Say what became of sessions.

        Parameters
        ----------
        statuses : mapping of str to str
            Status by label.
        reason : str
            Of all of them.
        """
        for label, status in statuses.items():
            self._rows[label] = replace(self._rows[label], status=status, reason=reason)
        self.write()

    def fail(self, failed: Iterable[FailedSession]) -> None:
        """Say which sessions failed, or cannot be started, and why."""
        self._fail(failed)
        self.write()

    def fail_change(self, subject: str, error: Exception) -> None:
        """Say that the comparison of a participant's sessions failed, and why."""
        self.end({change_label(subject): _of_error(error)}, str(error))

    def interrupt(self) -> None:
        """Say that what has not ended never will: the run ends before it."""
        self.end({label: INTERRUPTED for label, row in self._rows.items() if row.status == UNFINISHED})

    def summary(self) -> list[str]:
        """The short table: a line for each status that occurs, with its number of sessions and the first of them."""
        lines = []
        for status in MEANINGS:
            labels = [row.label for row in self._rows.values() if row.status == status]
            if labels:
                more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
                lines.append(f"{status:<17} {len(labels):>5}  {', '.join(labels[:SHOWN])}{more}")
        return lines

    def write(self) -> None:
        """Write the table; a disk that does not take it is said, and the run goes on."""
        head = _line("participant_id", "session_id", "status", "reason")
        text = head + "".join(row.line for row in self._rows.values())
        try:
            write_text(self.path, text.encode("utf-8", "replace").decode())
        except WmhUadError as error:  # a full disk ends the run elsewhere, or nothing does
            LOGGER.warning(NOT_UPDATED, error)

    def _fail(self, failed: Iterable[FailedSession]) -> None:
        for entry in failed:
            row = _Row(entry.subject, entry.session, entry.label, _of_error(entry.error), str(entry.error))
            self._rows[entry.label] = row


def _line(*cells: str) -> str:
    """A line of a table with tabs."""
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerow(cells)
    return text.getvalue()


def change_label(subject: str) -> str:
    """What the comparison of a participant's sessions is called."""
    return f"sub-{subject} (change)"


def _of_error(error: Exception) -> str:
    """The status of a session that was not done."""
    if isinstance(error, BusyError):
        return ELSEWHERE
    return WAITING if isinstance(error, MissingInputError | EmptySelectionError) else FAILED
