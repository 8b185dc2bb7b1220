"""Which sessions, and which T1w belongs to which FLAIR.

The rules, in one place:

* only what lies in ``sub-*/[ses-*/]anat`` is looked at, under a name of that participant and session;
* one FLAIR and one T1w per session; where a session has several, an ordinary one comes before
  one whose name says that it shows something else (contrast agent, inversion, echo, ...), then
  the one with the lowest ``run`` is taken (no ``run`` counts as the first), then the first by name.
  ``--bids-filter-file`` chooses otherwise; what was not used is reported;
* the T1w comes from the FLAIR's own session, else from another session if the subject
  has exactly one session with a T1w;
* a session that has a T1w but no FLAIR is a failed session, unless another session of
  the subject borrows that T1w.

Only the requested participants are opened, and of those only ``anat/``.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_wmh_uad.bids import names
from bids_wmh_uad.bids.layout import find_files, forget_indexes, open_layout, require_utf8, warn_of_names
from bids_wmh_uad.config import Selection
from bids_wmh_uad.errors import (
    BAD_DESCRIPTION,
    BAD_FILTER_FILE,
    BROKEN_LINK,
    EMPTY_SELECTION,
    MISNAMED,
    MISSING_FLAIR,
    MISSING_T1W,
    NO_SUCH_DIRECTORY,
    NOT_A_FILE,
    NOT_BIDS,
    NOT_READABLE,
    SPECIAL_SCAN,
    UNKNOWN_LABELS,
    EmptySelectionError,
    InvalidBIDSError,
    MissingInputError,
    SessionWarning,
    UsageError,
    WmhUadError,
)
from bids_wmh_uad.reading import ANNEX_POINTER, open_file, read_json, read_object

LOGGER = logging.getLogger("bids_wmh_uad")
_SUFFIXES = {"t1w": "T1w", "flair": "FLAIR"}
"""BIDS suffixes by their key in a filter file."""


@dataclass(frozen=True)
class Session:
    """One unit of work: a FLAIR with the T1w that goes with it.

    Attributes
    ----------
    subject, session
        Labels without prefix; ``session`` is None in a dataset without sessions.
    flair, t1w
        Absolute paths.
    unused
        Further FLAIR and T1w of the same session that the rules passed over.
    """

    subject: str
    session: str | None
    flair: Path
    t1w: Path
    unused: tuple[Path, ...] = ()

    @property
    def label(self) -> str:
        """``sub-X`` or ``sub-X/ses-Y``, for people."""
        return session_label(self.subject, self.session)

    @property
    def prefix(self) -> str:
        """The FLAIR's entities: the start of every output's name."""
        return names.result_prefix(self.subject, self.session, self.flair)

    @property
    def workflow_name(self) -> str:
        """A name that nipype accepts, the same in every run."""
        return re.sub(r"\W", "_", self.prefix) + "_wf"

    @property
    def warnings(self) -> tuple[SessionWarning, ...]:
        """What the names of its scans give to doubt."""
        return tuple(
            SPECIAL_SCAN.format(contrast=contrast, name=path.name, parts=", ".join(changes))
            for contrast, path in (("FLAIR", self.flair), ("T1w", self.t1w))
            if (changes := names.read_name(path.name).changes)
        )

    def failed(self, error: WmhUadError) -> FailedSession:
        """Turn it into one that failed with `error`."""
        return FailedSession(self.subject, self.session, error, self.prefix)


@dataclass(frozen=True)
class FailedSession:
    """A session that was asked for and has no result, and why: it cannot be processed, or a step of it failed.

    Attributes
    ----------
    subject, session
        Labels without prefix.
    error
        The reason, for people; with the exit code that it means.
    prefix
        The FLAIR's entities; empty where there is no FLAIR.
    """

    subject: str
    session: str | None
    error: WmhUadError
    prefix: str = ""

    @property
    def label(self) -> str:
        """``sub-X`` or ``sub-X/ses-Y``, for people."""
        return session_label(self.subject, self.session)


def session_label(subject: str, session: str | None) -> str:
    """``sub-X`` or ``sub-X/ses-Y``."""
    return f"sub-{subject}" + (f"/ses-{session}" if session else "")


def check_dataset(bids_dir: Path, *, skip_validation: bool = False) -> None:
    """Raise unless `bids_dir` is a directory with a valid ``dataset_description.json``.

    Raises
    ------
    MissingInputError
        If there is no such directory, or the description's content was not fetched.
    InvalidBIDSError
        If the description is absent, is not JSON or lacks ``Name`` or ``BIDSVersion``; with `skip_validation`,
        only if it is JSON of another kind than an object.
    """
    if not bids_dir.is_dir():
        raise MissingInputError(NO_SUCH_DIRECTORY.format(path=bids_dir))
    path = bids_dir / "dataset_description.json"
    if skip_validation:
        _require_harmless(path)
        return
    _require_content([path], bids_dir)
    try:
        description = read_json(path)
    except FileNotFoundError:
        raise InvalidBIDSError(NOT_BIDS.format(path=bids_dir, reason="no dataset_description.json")) from None
    except (OSError, ValueError) as error:
        reason = f"dataset_description.json: {error}"
        raise InvalidBIDSError(NOT_BIDS.format(path=bids_dir, reason=reason)) from error
    keys = description if isinstance(description, dict) else ()
    missing = [key for key in ("Name", "BIDSVersion") if key not in keys]
    if missing:
        reason = f"dataset_description.json lacks {' and '.join(missing)}"
        raise InvalidBIDSError(NOT_BIDS.format(path=bids_dir, reason=reason))


def _require_harmless(path: Path) -> None:
    """Refuse a description that pybids, which reads it unasked, would wait for or fall over."""
    try:
        read_object(path)
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        pass  # pybids does without
    except (OSError, ValueError) as error:
        raise InvalidBIDSError(BAD_DESCRIPTION.format(path=path, reason=error)) from error


def find_sessions(bids_dir: Path, selection: Selection) -> tuple[list[Session], list[FailedSession]]:
    """Walk the dataset and pair T1w with FLAIR by the rules above.

    Parameters
    ----------
    bids_dir : Path
        The dataset; :func:`check_dataset` is called first.
    selection : Selection
        Participants, sessions and filters.

    Returns
    -------
    sessions, unusable
        Both sorted by subject and session.

    Raises
    ------
    EmptySelectionError
        If a label does not exist, or nothing matches.
    UsageError
        If the filter file cannot be used.
    """
    check_dataset(bids_dir, skip_validation=selection.skip_bids_validation)
    require_utf8(bids_dir)
    filters = read_filters(selection.bids_filter_file)
    subjects = _requested_subjects(bids_dir, selection.participant_label)
    warn_of_names(bids_dir, subjects)
    images = _find_images(bids_dir, subjects, selection, filters)
    sessions: list[Session] = []
    unusable: list[FailedSession] = []
    for subject in subjects:
        flairs, t1ws = (images[key].get(subject, {}) for key in ("flair", "t1w"))
        good, bad = _pair(bids_dir, subject, flairs, t1ws, selection)
        sessions += good
        unusable += bad
        has_images = subject in images["flair"] or subject in images["t1w"]
        if selection.participant_label and not has_images:
            text = EMPTY_SELECTION.format(
                path=bids_dir / f"sub-{subject}", filters=_describe(selection, filters)
            )
            unusable.append(FailedSession(subject, None, EmptySelectionError(text)))
    filtered_out = "flair" in filters and not images["flair"]
    if not sessions and (
        filtered_out or all(isinstance(entry.error, EmptySelectionError) for entry in unusable)
    ):
        raise EmptySelectionError(
            EMPTY_SELECTION.format(path=bids_dir, filters=_describe(selection, filters))
        )
    return sessions, unusable


def read_filters(path: Path | None) -> dict[str, dict[str, Any]]:
    """Read a BIDS filter file: ``{"t1w": {entity: value}, "flair": {...}}``.

    ``null`` asks for the entity's absence and ``"*"`` for its presence, as in fMRIPrep.

    Raises
    ------
    UsageError
        If the file is absent, is not such a mapping, or has another key.
    """
    if path is None:
        return {}
    from bids.layout import Query

    special = {None: Query.NONE, "*": Query.ANY}
    try:
        content = read_object(path)
        unknown = set(content) - set(_SUFFIXES)
        if unknown:
            raise UsageError(BAD_FILTER_FILE.format(path=path, reason=f"unknown keys {sorted(unknown)}"))
        return {
            key: {
                entity: special.get(value, value) if not isinstance(value, list) else value
                for entity, value in entities.items()
            }
            for key, entities in content.items()
        }
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(BAD_FILTER_FILE.format(path=path, reason=error)) from error


def _requested_subjects(bids_dir: Path, labels: tuple[str, ...]) -> list[str]:
    known = sorted(
        entry.name[4:]
        for entry in bids_dir.iterdir()
        if re.fullmatch(f"sub-{names.LABEL}", entry.name) and entry.is_dir()
    )
    unknown = sorted(set(labels) - set(known))
    if unknown:
        shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
        raise EmptySelectionError(
            UNKNOWN_LABELS.format(path=bids_dir, labels=", ".join(unknown), known=shown or "none")
        )
    return sorted(labels) or known


def _find_images(
    bids_dir: Path, subjects: list[str], selection: Selection, filters: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, dict[str | None, list[Path]]]]:
    """Paths by modality, subject and session, the preferred first."""
    only = subjects if selection.participant_label else ()
    layout = open_layout(bids_dir, only, selection.bids_database_dir)
    images: dict[str, dict[str, dict[str | None, list[Path]]]] = {key: {} for key in _SUFFIXES}
    for key, suffix in _SUFFIXES.items():
        query = {"suffix": suffix, "extension": [".nii", ".nii.gz"], **filters.get(key, {})}
        for path in sorted(find_files(layout, query, selection.bids_filter_file), key=_preference):
            place = names.read_place(path.relative_to(bids_dir))
            if place is None:  # a database of another program may know files elsewhere
                continue
            name = names.read_name(path.name)
            if not name.belongs_to(*place):
                LOGGER.warning("%s", MISNAMED.format(path=path))
            elif name.is_magnitude:
                subject, session = place
                sessions = images[key].setdefault(subject, {})
                sessions.setdefault(session or name.entities.get("ses"), []).append(path)
    forget_indexes()
    return images


def _preference(path: Path) -> tuple[int, int, str]:
    name = names.read_name(path.name)
    return len(name.changes), name.run, str(path)


def _require_content(paths: Iterable[Path], bids_dir: Path) -> None:
    """Raise if DataLad or git-annex has not fetched a file (a link that leads nowhere, or the text of one), or it may not be read.

    What is no file at all is refused too; one that is not there is not this function's business.

    Raises
    ------
    MissingInputError
    """
    for path in paths:
        if (path.is_symlink() and not path.exists()) or _is_annex_pointer(path):
            raise MissingInputError(BROKEN_LINK.format(path=path, name=path.relative_to(bids_dir)))
        if path.exists() and not path.is_file():
            raise MissingInputError(NOT_A_FILE.format(path=path))
        if path.exists() and not os.access(path, os.R_OK):
            raise MissingInputError(NOT_READABLE.format(path=path))


def _is_annex_pointer(path: Path) -> bool:
    """Whether a file is the placeholder of an unlocked git-annex file."""
    try:
        with open_file(path) as stream:
            return stream.read(len(ANNEX_POINTER)) == ANNEX_POINTER
    except OSError:  # reading the scan says so
        return False


def _pair(
    bids_dir: Path,
    subject: str,
    flairs: Mapping[str | None, list[Path]],
    t1ws: Mapping[str | None, list[Path]],
    selection: Selection,
) -> tuple[list[Session], list[FailedSession]]:
    requested = set(selection.session_label)
    usable: list[Session] = []
    unusable: list[FailedSession] = []
    borrowed = set()
    for session, (flair, *other_flairs) in sorted(flairs.items(), key=lambda item: item[0] or ""):
        if requested and session not in requested:
            continue
        sources = [session] if session in t1ws else list(t1ws)
        if len(sources) != 1:
            text = MISSING_T1W.format(where=session_label(subject, session), flair=flair)
            unusable.append(FailedSession(subject, session, MissingInputError(text)))
            continue
        borrowed.update(sources)
        t1w, *other_t1ws = t1ws[sources[0]]
        try:
            _require_content([flair, t1w], bids_dir)
            usable.append(Session(subject, session, flair, t1w, (*other_flairs, *other_t1ws)))
        except MissingInputError as error:
            unusable.append(FailedSession(subject, session, error))
    for session in sorted(set(t1ws) - set(flairs) - borrowed, key=lambda label: label or ""):
        if not requested or session in requested:
            text = MISSING_FLAIR.format(where=session_label(subject, session), t1w=t1ws[session][0])
            unusable.append(FailedSession(subject, session, MissingInputError(text)))
    return usable, unusable


def _describe(selection: Selection, filters: Mapping[str, Any]) -> str:
    parts = [
        f"{name}={', '.join(labels)}"
        for name, labels in (
            ("participants", selection.participant_label),
            ("sessions", selection.session_label),
        )
        if labels
    ]
    parts += [f"{key} filter {dict(value)}" for key, value in filters.items()]
    return "; ".join(parts) or "no filter"
