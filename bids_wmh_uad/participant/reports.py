"""The pages of participants."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import FailedSession
from bids_wmh_uad.bids.layout import forget_indexes
from bids_wmh_uad.bids.results import read_summaries
from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.errors import EXIT_OK, SessionError
from bids_wmh_uad.locks import Locks

LOGGER = logging.getLogger("bids_wmh_uad")
PAGE_WAIT = 60.0
"""Seconds to wait for another process that writes the same page."""
PAGES_PER_PROCESS = 20
"""Pages that make a further process worth its start."""
PAGE_FAILED = "sub-%s: the page could not be written (%s); the results are not affected."


def write_reports(config: RunConfig, subjects: Sequence[str], failed: Sequence[FailedSession]) -> None:
    """Write the page of each subject, on as many processes as ``--nprocs`` and the work allow; one that fails is said and changes nothing else.

    Parameters
    ----------
    config : RunConfig
    subjects : sequence of str
        Labels without prefix.
    failed : sequence of FailedSession
    """
    write = partial(_write_report, config, failed)
    jobs = min(config.performance.nprocs, len(subjects) // PAGES_PER_PROCESS)
    if jobs > 1:
        from bids_wmh_uad.core.parallel import process_map

        reasons = process_map(write, subjects, jobs)
    else:
        reasons = [write(subject) for subject in subjects]
    for subject, reason in zip(subjects, reasons, strict=True):
        if reason is not None:
            LOGGER.warning(PAGE_FAILED, subject, reason)


def _write_report(config: RunConfig, failed: Sequence[FailedSession], subject: str) -> str | None:
    """Write one page; why it could not be written."""
    from bids_wmh_uad.reports.subject import write_subject_report

    failures = _recorded(config.output_dir, subject) | {
        f"ses-{entry.session}" if entry.session else "": str(entry.error)
        for entry in failed
        if entry.subject == subject
    }
    name = f"sub-{subject}_page"
    try:
        # of two processes with a session each, the second to write must have seen the first's results
        with Locks() as locks:
            locks.take(derivatives.lock_path(config.output_dir, name), name, wait=PAGE_WAIT)
            write_subject_report(
                config.output_dir, subject, failures=failures, model=Path(config.method.model)
            )
    except Exception as error:  # a page must not cost the others theirs
        LOGGER.debug("", exc_info=True)
        return str(error) or type(error).__name__
    finally:
        forget_indexes()  # nireports makes one for each page
    return None


def _recorded(output_dir: Path, subject: str) -> dict[str, str]:
    """Why sessions have no result, by ``ses-Y`` or nothing, as this run and others wrote it down."""
    root = derivatives.session_directory(output_dir, subject, None).parent
    reasons = {}
    for start in ("anat", "ses-*/anat"):
        for path in sorted(root.glob(f"{start}/*_{derivatives.FAILURE}")):
            summary = derivatives.read_summary(path)
            session = str(summary.get("session_id", "n/a"))
            reasons["" if session == "n/a" else session] = str(summary.get("reason"))
    return reasons


def rebuild_reports(config: RunConfig) -> int:
    """Rebuild the selected participants' pages from the derivatives (``--reports-only``).

    Raises
    ------
    MissingInputError
        If there are no results.
    """
    selected = config.selection.participant_label
    subjects, failed = set(), []
    for path, summary in read_summaries(config.output_dir).items():
        # where it lies, not what it says: that may name a place outside of the dataset
        subject = path.relative_to(config.output_dir).parts[0].removeprefix("sub-")
        session = str(summary["session_id"])
        subjects.add(subject)
        if summary.get("status") == "failed":
            error = SessionError(str(summary.get("reason")))
            failed.append(FailedSession(subject, session[4:] if session != "n/a" else None, error))
    write_reports(config, sorted(subjects.intersection(selected) if selected else subjects), failed)
    return EXIT_OK
