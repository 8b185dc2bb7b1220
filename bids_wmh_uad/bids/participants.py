"""``participants.tsv``, ``sessions.tsv`` and ``scans.tsv``: what is known of people and of their visits, as people's programs write these tables."""

from __future__ import annotations

import codecs
import csv
import io
import logging
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from bids_wmh_uad.errors import (
    BAD_PARTICIPANTS,
    PARTICIPANTS_DIFFER,
    PARTICIPANTS_FORMAT,
    PARTICIPANTS_MISSING,
    BadDataError,
)
from bids_wmh_uad.reading import MAX_TABLE_BYTES, read_bytes, read_object

LOGGER = logging.getLogger("bids_wmh_uad")
SITE_COLUMNS = ("site", "site_id", "center", "centre", "scanner", "scanner_id", "manufacturer")
"""Columns of ``participants.tsv``, in any case, by which the evaluation is split."""
ID, SESSION_ID, FILE_NAME = "participant_id", "session_id", "filename"
TIME = "acq_time"
"""Column, in any case, of when a session or a scan began."""
DELIMITERS = {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "bars", " ": "spaces"}
"""What may separate columns, the likeliest first, and its name."""
MOST_SHOWN = 10
"""Largest number of participants that a warning lists."""

Participants = dict[str, dict[str, str]]
Sessions = dict[tuple[str, str], dict[str, str]]


def read_participants(directories: Sequence[Path], known: Iterable[str]) -> Participants:
    """What is known of each participant, from the first ``participants.tsv`` that is a table.

    What cannot be used, or had to be guessed, is said in the log.

    Parameters
    ----------
    directories : sequence of Path
        Datasets, which need not exist.
    known : iterable of str
        The participants with results, ``sub-X``.

    Returns
    -------
    dict
        By ``participant_id`` (always with ``sub-``), of the known ones, the cells that are not empty, named as in
        the file; empty without a file.
    """
    labels = set(known)
    for directory in directories:
        path = directory / "participants.tsv"
        found = _read_or_say(path, ID, "sub-", labels)
        if found is not None:
            missing = sorted(labels - found.keys())
            if missing and (not found or any(found.values())):
                LOGGER.warning("%s", PARTICIPANTS_MISSING.format(path=path, labels=_shown(missing)))
            return found
    return {}


def read_sessions(directories: Sequence[Path], known: Iterable[str]) -> Sessions:
    """What is known of each session, from the ``sub-X_sessions.tsv`` of the participants with results.

    Parameters
    ----------
    directories : sequence of Path
        Datasets, which need not exist: the first that has the participant's table counts.
    known : iterable of str
        The participants with results, ``sub-X``.

    Returns
    -------
    dict
        By participant and session (always with ``sub-`` and ``ses-``), as of :func:`read_participants`.
    """
    sessions: Sessions = {}
    for participant in sorted(label for label in known if "/" not in label):
        for directory in directories:
            path = directory / participant / f"{participant}_sessions.tsv"
            found = _read_or_say(path, SESSION_ID, "ses-")
            if found is not None:
                sessions |= {(participant, session): cells for session, cells in found.items()}
                break
    return sessions


def acquisition_times(
    directories: Sequence[Path], flairs: Mapping[tuple[str, str], str]
) -> dict[tuple[str, str], datetime]:
    """When sessions were scanned: by ``acq_time`` of ``sessions.tsv``, else of the FLAIR in ``scans.tsv``.

    Parameters
    ----------
    directories : sequence of Path
        Datasets, which need not exist.
    flairs : mapping
        Name of the FLAIR's file by participant and session (``sub-X``; ``ses-Y`` or ``n/a``).

    Returns
    -------
    dict
        Of the sessions whose time is there and can be read; time zones are left out.
    """
    sessions = read_sessions(directories, {participant for participant, _ in flairs})
    times = {}
    for who, flair in flairs.items():
        moment = _moment(sessions.get(who, {})) or _moment(_scan_cells(directories, *who, flair))
        if moment is not None:
            times[who] = moment
    return times


def _scan_cells(directories: Sequence[Path], participant: str, session: str, flair: str) -> dict[str, str]:
    """What ``scans.tsv`` says of a scan."""
    parts = [participant] if session == "n/a" else [participant, session]
    for directory in directories:
        found = _read_or_say(directory.joinpath(*parts, f"{'_'.join(parts)}_scans.tsv"), FILE_NAME, "")
        if found is not None:
            return found.get(f"anat/{flair}", {})
    return {}


def _moment(cells: Mapping[str, str]) -> datetime | None:
    text = next((value for name, value in cells.items() if name.lower() == TIME), "")
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None


def about_columns(directories: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """What the ``participants.json`` and ``sessions.json`` of some datasets say of columns; empty where they say nothing."""
    about: dict[str, dict[str, Any]] = {}
    for path in (
        directory / f"{name}.json" for directory in directories for name in ("participants", "sessions")
    ):
        try:
            content = read_object(path)
        except (OSError, ValueError):
            continue
        described = {name: entry for name, entry in content.items() if isinstance(entry, dict)}
        about = described | about
    return about


def sites_of(participants: Participants) -> Participants:
    """Of all that is known of participants, their :data:`SITE_COLUMNS`."""
    return {
        label: {name: value for name, value in cells.items() if name.lower() in SITE_COLUMNS}
        for label, cells in participants.items()
    }


def _read_or_say(
    path: Path, key: str, start: str, known: Container[str] | None = None
) -> Participants | None:
    """One table, or None if it is not there or cannot be used, which is said."""
    try:
        return _read(path, key, start, known)
    except FileNotFoundError:
        if path.is_symlink():
            LOGGER.warning(
                "%s", BAD_PARTICIPANTS.format(path=path, reason="a link that leads nowhere", key=key)
            )
    except (OSError, csv.Error, BadDataError) as error:
        LOGGER.warning("%s", BAD_PARTICIPANTS.format(path=path, reason=error, key=key))
    return None


def _read(path: Path, key: str, start: str, known: Container[str] | None) -> Participants:
    """Read one table, by the labels in its column `key`, which begin with `start`, or should; only the `known`, if given.

    Raises
    ------
    OSError
    csv.Error, BadDataError
        If it is no such table.
    """
    text, encoding = _decode(read_bytes(path, MAX_TABLE_BYTES))
    lines = io.StringIO(text, newline=None)  # of any system
    header = next((line for line in lines if line.strip()), "")
    delimiter = next((sign for sign in DELIMITERS if sign in header), "\t")
    rows = _rows([header, *lines], delimiter)
    names = [name.strip() for name in next(rows, [])]
    if key not in [name.lower() for name in names]:
        raise BadDataError(f"no column {key}")
    if encoding != "UTF-8" or delimiter != "\t":
        values = {"path": path, "encoding": encoding, "delimiter": DELIMITERS[delimiter]}
        LOGGER.warning("%s", PARTICIPANTS_FORMAT.format(**values))
    found, differ = _collect(names, rows, key, start, known)
    if differ:
        LOGGER.warning("%s", PARTICIPANTS_DIFFER.format(path=path, labels=_shown(sorted(differ))))
    return found


def _rows(lines: Sequence[str], delimiter: str) -> Iterator[list[str]]:
    """The cells of each line. BIDS' tables know no quotes: one without its fellow stands for itself, and joins no lines."""
    alone = delimiter == "\t" and any(line.count('"') % 2 for line in lines)
    if alone:
        return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter == " ")


def _collect(
    names: Sequence[str], rows: Iterable[Sequence[str]], key: str, start: str, known: Container[str] | None
) -> tuple[Participants, set[str]]:
    """The cells of each label that are not empty, and the labels with several lines that differ."""
    found: Participants = {}
    differ = set()
    for row in rows:
        cells = {name: cell.strip() for name, cell in zip(names, row, strict=False) if name}
        label = next((value for name, value in cells.items() if name.lower() == key), "")
        label = start + re.sub(f"^{start}", "", label, flags=re.IGNORECASE)
        if label == start or (known is not None and label not in known):
            continue
        kept = {name: value for name, value in cells.items() if name.lower() != key and value}
        if found.get(label, kept) != kept:
            differ.add(label)
        found[label] = kept
    return found, differ


def _decode(content: bytes) -> tuple[str, str]:
    """Text and the encoding that it was in, by its first bytes or because it is one; Latin-1, which takes all, last.

    Raises
    ------
    BadDataError
        If it holds zeros, which no text does.
    """
    marks = {
        codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16",
        codecs.BOM_UTF16_BE: "UTF-16",
    }  # fmt: skip
    names = [name for mark, name in marks.items() if content.startswith(mark)]
    if not names and b"\0" in content[:2]:  # of UTF-16 without a mark: its first letters are ASCII
        names = ["UTF-16-BE" if content[0] == 0 else "UTF-16-LE"]
    for encoding in names or ["UTF-8-SIG", "Windows-1252", "Latin-1"]:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, encoding.removesuffix("-SIG")
    raise BadDataError("no text")


def _shown(labels: Sequence[str]) -> str:
    more = len(labels) - MOST_SHOWN
    return ", ".join(labels[:MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
