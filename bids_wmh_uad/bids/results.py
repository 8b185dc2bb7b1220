"""Reading what sessions left: their summaries, images and transforms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.errors import NO_RESULTS, MissingInputError


def result_path(summary: Path, output: str) -> Path:
    """Where the session with this summary has one of its outputs, by its name in ``derivatives.OUTPUTS``."""
    start = str(summary).removesuffix(derivatives.OUTPUTS["summary"])
    return Path(start + derivatives.OUTPUTS[output])


def find_summaries(output_dir: Path) -> list[Path]:
    """The summary files of all sessions, failed ones included."""
    patterns = ("sub-*/anat/*_summary.json", "sub-*/ses-*/anat/*_summary.json")
    return sorted(path for pattern in patterns for path in output_dir.glob(pattern))


def read_summaries(output_dir: Path) -> dict[Path, dict[str, Any]]:
    """The readable summaries of all sessions, sorted by participant and session; one for each session.

    A failed session's is left out when the session has a result as well.

    Raises
    ------
    MissingInputError
        If there is none.
    """
    read = {path: derivatives.read_summary(path) for path in find_summaries(output_dir)}
    readable = {path: summary for path, summary in read.items() if "participant_id" in summary}
    done = {identity(summary) for summary in readable.values() if summary.get("status") == "done"}
    chosen = [
        (path, summary)
        for path, summary in readable.items()
        if summary.get("status") == "done" or identity(summary) not in done
    ]
    if not chosen:
        raise MissingInputError(NO_RESULTS.format(path=output_dir))
    return dict(sorted(chosen, key=lambda item: identity(item[1])))


def finished(summaries: Mapping[Path, Mapping[str, Any]]) -> dict[Path, Mapping[str, Any]]:
    """Those of the sessions that have results."""
    return {path: summary for path, summary in summaries.items() if summary.get("status") == "done"}


def identity(row: Mapping[str, Any]) -> tuple[str, str]:
    """Participant and session of a summary or row."""
    return str(row["participant_id"]), str(row["session_id"])


def failed_summary(participant_id: str, session_id: str, reason: str) -> dict[str, Any]:
    """What the summary of a session without a result says."""
    return {
        "participant_id": participant_id,
        "session_id": session_id,
        "status": "failed",
        "reason": reason,
    }
