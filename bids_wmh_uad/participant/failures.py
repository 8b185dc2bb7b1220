"""Why sessions failed: said, and left where the group level finds it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import FailedSession, Session
from bids_wmh_uad.bids.results import failed_summary, make_current
from bids_wmh_uad.errors import BusyError
from bids_wmh_uad.files import dump_json, write_atomically

LOGGER = logging.getLogger("bids_wmh_uad")
FAILED = "%s: FAILED. %s"


def record_failures(output_dir: Path, sessions: Sequence[Session], failed: Sequence[FailedSession]) -> None:
    """Say which sessions failed and why, and write it down; what an earlier failure left of the others goes.

    A session that has a result from an earlier run keeps it untouched, but for the mark of one that is of another
    FLAIR than this run's: what the newest run was asked for counts, be it done or failed. One that another process
    works on is that one's to write of.

    Parameters
    ----------
    output_dir : Path
    sessions : sequence of Session
        All that could be started.
    failed : sequence of FailedSession
        Of these, and those that could not be started.
    """
    broken = {entry.label for entry in failed}
    for session in sessions:
        if session.label not in broken:
            path = derivatives.failure_path(output_dir, session.subject, session.session)
            path.unlink(missing_ok=True)
            make_current(derivatives.output_path(output_dir, session, "summary"))
    for entry in failed:
        if isinstance(entry.error, BusyError):
            continue
        path = derivatives.failure_path(output_dir, entry.subject, entry.session)
        result = _earlier_result(path, entry.prefix)
        if result is None:
            session_id = f"ses-{entry.session}" if entry.session else "n/a"
            content = failed_summary(f"sub-{entry.subject}", session_id, entry.error)
            write_atomically(path, dump_json(content))
        if entry.prefix:  # this run chose a FLAIR
            make_current(result or path)
    for entry in sorted(failed, key=lambda entry: entry.label):
        if isinstance(entry.error, BusyError):  # its text names the session
            LOGGER.warning("%s", entry.error)
        else:
            LOGGER.error(FAILED, entry.label, entry.error)


def _earlier_result(failure: Path, prefix: str) -> Path | None:
    """The summary of a finished run of the session: under its own name, or, where no FLAIR gives that, any."""
    pattern = f"{prefix or '*'}_{derivatives.OUTPUTS['summary']}"
    return next(iter(sorted(failure.parent.glob(pattern))), None)
