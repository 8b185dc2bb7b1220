"""The pages of participants."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from bids_wmh_uad.bids.dataset import FailedSession, forget_indexes
from bids_wmh_uad.bids.results import read_summaries
from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.errors import EXIT_OK, SessionError

LOGGER = logging.getLogger("bids_wmh_uad")
PAGE_FAILED = "sub-%s: the page could not be written (%s); the results are not affected."


def write_reports(config: RunConfig, subjects: Sequence[str], failed: Sequence[FailedSession]) -> None:
    """Write the page of each subject; one that fails is said and changes nothing else.

    Parameters
    ----------
    config : RunConfig
    subjects : sequence of str
        Labels without prefix.
    failed : sequence of FailedSession
    """
    from bids_wmh_uad.reports.subject import write_subject_report

    for subject in subjects:
        failures = {
            f"ses-{entry.session}" if entry.session else "": str(entry.error)
            for entry in failed
            if entry.subject == subject
        }
        try:
            write_subject_report(
                config.output_dir, subject, failures=failures, model=Path(config.method.model)
            )
        except Exception as error:  # a page must not cost the others theirs
            LOGGER.warning(PAGE_FAILED, subject, error)
            LOGGER.debug("", exc_info=True)
        forget_indexes()  # nireports makes one for each page


def rebuild_reports(config: RunConfig) -> int:
    """Rebuild the selected participants' pages from the derivatives (``--reports-only``).

    Raises
    ------
    MissingInputError
        If there are no results.
    """
    selected = config.selection.participant_label
    subjects, failed = set(), []
    for summary in read_summaries(config.output_dir).values():
        subject = str(summary["participant_id"]).removeprefix("sub-")
        session = str(summary["session_id"])
        subjects.add(subject)
        if summary.get("status") == "failed":
            error = SessionError(str(summary.get("reason")))
            failed.append(FailedSession(subject, session[4:] if session != "n/a" else None, error))
    write_reports(config, sorted(subjects.intersection(selected) if selected else subjects), failed)
    return EXIT_OK
