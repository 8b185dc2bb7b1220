"""Which sessions this process works on, when several processes share an output directory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import FailedSession, Session
from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.errors import BusyError, UntrustedDirectoryError
from bids_wmh_uad.files import sweep
from bids_wmh_uad.locks import Locks
from bids_wmh_uad.workflows import engine


@contextmanager
def claim(
    sessions: Sequence[Session], config: RunConfig
) -> Iterator[tuple[list[Session], list[FailedSession]]]:
    """Take sessions and their working directories for this process, until the end of the block.

    Temporary files that killed processes left among the sessions' outputs are removed, before and after.

    Parameters
    ----------
    sessions : sequence of Session
    config : RunConfig

    Yields
    ------
    list of Session
        Those that are this process's now.
    list of FailedSession
        The others: another process works on them, or their working directory cannot be trusted.
    """
    mine: list[Session] = []
    others: list[FailedSession] = []
    with Locks() as locks:
        for session in sessions:
            try:
                locks.take(derivatives.lock_path(config.output_dir, session.label), session.label)
                engine.take_session(session, config, locks)
            except (BusyError, UntrustedDirectoryError) as error:
                others.append(session.failed(error))
            else:
                mine.append(session)
        directories = [path for session in mine for path in _output_directories(session, config.output_dir)]
        sweep(directories)
        try:
            yield mine, others
        finally:
            sweep(directories)


def _output_directories(session: Session, output_dir: Path) -> tuple[Path, Path]:
    subject = derivatives.session_directory(output_dir, session.subject, None).parent
    return derivatives.session_directory(output_dir, session.subject, session.session), subject / "figures"
