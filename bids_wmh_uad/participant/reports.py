"""The pages of participants."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from bids_wmh_uad.bids.dataset import session_label
from bids_wmh_uad.bids.results import read_summaries
from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.errors import EXIT_OK

LOGGER = logging.getLogger("bids_wmh_uad")
PAGE_FAILED = "sub-%s: the page could not be written (%s); the results are not affected."


def write_reports(config: RunConfig, subjects: Sequence[str], failures: dict[str, str]) -> None:
    """Write the page of each subject; one that fails is said and changes nothing else.

    Parameters
    ----------
    config : RunConfig
    subjects : sequence of str
        Labels without prefix.
    failures : dict
        Reasons by session label (``sub-X/ses-Y``).
    """
    from bids_wmh_uad.reports.subject import write_subject_report

    for subject in subjects:
        own = {
            label.partition("/")[2]: reason
            for label, reason in failures.items()
            if label.partition("/")[0] == f"sub-{subject}"
        }
        try:
            write_subject_report(config.output_dir, subject, failures=own, model=Path(config.method.model))
        except Exception as error:  # a page must not cost the others theirs
            LOGGER.warning(PAGE_FAILED, subject, error)
            LOGGER.debug("", exc_info=True)


def rebuild_reports(config: RunConfig) -> int:
    """Rebuild the selected participants' pages from the derivatives (``--reports-only``).

    Raises
    ------
    MissingInputError
        If there are no results.
    """
    wanted = config.selection.participant_label
    subjects, failures = set(), {}
    for summary in read_summaries(config.output_dir).values():
        subject = str(summary["participant_id"]).removeprefix("sub-")
        subjects.add(subject)
        if summary.get("status") == "failed":
            session = str(summary["session_id"])
            label = session_label(subject, session.removeprefix("ses-") if session != "n/a" else None)
            failures[label] = str(summary.get("reason"))
    write_reports(config, sorted(subjects.intersection(wanted) if wanted else subjects), failures)
    return EXIT_OK
