"""Reading what sessions left: their summaries, images and transforms."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.errors import NO_RESULTS, OLDER_RESULT, UNREADABLE_SUMMARY, MissingInputError, WmhUadError
from bids_wmh_uad.files import dump_json, write_atomically
from bids_wmh_uad.reading import read_object

LOGGER = logging.getLogger("bids_wmh_uad")
NUMBER = (int, float)
OF_THRESHOLD: dict[str, Any] = {"name": str, "parameter": NUMBER, "value": NUMBER}
"""Types of what a summary says of its threshold."""
KINDS: dict[str, Any] = {
    "participant_id": str, "session_id": str, "status": str, "reason": str, "score": str, "threshold": dict, "model": dict,
    "warnings": list, "versions": dict, "checks": dict, "inputs": dict, "wmh_volume_ml": NUMBER, "lesion_count": NUMBER,
    "largest_lesion_ml": NUMBER, "icv_ml": NUMBER, "wmh_percent_icv": NUMBER, "volume_ml_lower": NUMBER,
    "volume_ml_upper": NUMBER, "registration_overlap": NUMBER,
}  # fmt: skip
"""Types of what tables and pages read of a summary; null, and what is not there, will do."""
SUPERSEDED = "superseded_by"
"""Key of a summary that is no longer the session's result; its value is the name of the summary that is."""


def result_path(summary: Path, output: str) -> Path:
    """Where the session with this summary has one of its outputs, by its name in ``derivatives.OUTPUTS``."""
    return beside(summary, derivatives.OUTPUTS[output])


def beside(summary: Path, ending: str) -> Path:
    """The file of the session with this summary whose name ends so."""
    return Path(str(summary).removesuffix(derivatives.OUTPUTS["summary"]) + ending)


def find_summaries(output_dir: Path) -> list[Path]:
    """The summary files of all sessions, failed ones included."""
    patterns = ("sub-*/anat/*_summary.json", "sub-*/ses-*/anat/*_summary.json")
    return sorted(path for pattern in patterns for path in output_dir.glob(pattern))


def read_summaries(output_dir: Path) -> dict[Path, dict[str, Any]]:
    """The readable summaries of all sessions, sorted by participant and session; one for each session.

    A failed session's is left out when the session has a result as well, and so is a result of another
    FLAIR than that of the newest run.

    Raises
    ------
    MissingInputError
        If there is none.
    """
    chosen = current_summaries(output_dir)
    if not chosen:
        raise MissingInputError(NO_RESULTS.format(path=output_dir))
    return chosen


def current_summaries(output_dir: Path) -> dict[Path, dict[str, Any]]:
    """As `read_summaries`; empty if there is none. Results that are left out, and files that are none, are said."""
    sessions: dict[tuple[str, str], dict[Path, dict[str, Any]]] = {}
    for path in find_summaries(output_dir):
        try:
            summary = _require_summary(read_object(path))
            sessions.setdefault(identity(summary), {})[path] = summary
        except (OSError, ValueError) as error:
            LOGGER.warning("%s", UNREADABLE_SUMMARY.format(path=path, reason=error))
    chosen = {}
    for _, found in sorted(sessions.items()):
        current = _current(found)
        chosen[current] = found[current]
        for path in set(finished(found)) - {current}:
            LOGGER.warning("%s", OLDER_RESULT.format(path=path, kept=current.name))
    return chosen


def _require_summary(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a file, if it is what a session's summary holds.

    Raises
    ------
    ValueError
        Naming what is not.
    """
    for key in ("participant_id", "session_id"):
        if key not in content:
            raise ValueError(f"no {key}")
    threshold = content.get("threshold")
    for values, kinds in ((content, KINDS), (threshold if isinstance(threshold, dict) else {}, OF_THRESHOLD)):
        for key, kind in kinds.items():
            value = values.get(key)
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                raise ValueError(f"{key} is {value!r:.40}")
    return content


def _current(found: Mapping[Path, Mapping[str, Any]]) -> Path:
    """Which of one session's summaries counts: a result that was not superseded, else the failure, else any result."""
    done = finished(found)
    standing = [path for path, summary in done.items() if not _is_superseded(path, summary)]
    failed = [path for path in found if path not in done]
    # earlier versions marked nothing: then the time of writing decides
    return max(standing or failed or list(done), key=lambda path: (path.stat().st_mtime_ns, path.name))


def _is_superseded(path: Path, summary: Mapping[str, Any]) -> bool:
    """Whether another summary took this one's place, and is still there."""
    name = summary.get(SUPERSEDED)
    return isinstance(name, str) and name != path.name and path.with_name(Path(name).name).is_file()


def make_current(summary: Path) -> None:
    """Mark all other results beside a session's summary as superseded by it, and none but them.

    Parameters
    ----------
    summary : Path
        Of the newest run, done or failed. Nothing happens if it is not there.

    Raises
    ------
    CannotCreateError, StorageError
        If a summary cannot be written.
    """
    if not summary.is_file():
        return
    for path in [summary, *sorted(summary.parent.glob(f"*_{derivatives.OUTPUTS['summary']}"))]:
        old = derivatives.read_summary(path)
        new = {key: value for key, value in old.items() if key != SUPERSEDED}
        if path != summary:
            new[SUPERSEDED] = summary.name
        if old and new != old:
            write_atomically(path, dump_json(new))


def finished(summaries: Mapping[Path, Mapping[str, Any]]) -> dict[Path, Mapping[str, Any]]:
    """Those of the sessions that have results."""
    return {path: summary for path, summary in summaries.items() if summary.get("status") == "done"}


def identity(row: Mapping[str, Any]) -> tuple[str, str]:
    """Participant and session of a summary or row."""
    return str(row["participant_id"]), str(row["session_id"])


def failed_summary(participant_id: str, session_id: str, error: WmhUadError) -> dict[str, Any]:
    """What the summary of a session without a result says."""
    return {
        "participant_id": participant_id,
        "session_id": session_id,
        "status": "failed",
        "error": type(error).__name__,
        "reason": str(error),
    }
