"""``participants.tsv``: which site and scanner each participant belongs to, as people's programs write that table."""

from __future__ import annotations

import codecs
import csv
import io
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bids_wmh_uad.errors import (
    BAD_PARTICIPANTS,
    PARTICIPANTS_DIFFER,
    PARTICIPANTS_FORMAT,
    PARTICIPANTS_MISSING,
    BadDataError,
)
from bids_wmh_uad.reading import MAX_TABLE_BYTES, read_bytes

LOGGER = logging.getLogger("bids_wmh_uad")
SITE_COLUMNS = ("site", "site_id", "center", "centre", "scanner", "scanner_id", "manufacturer")
"""Columns of ``participants.tsv``, in any case, by which the evaluation is split."""
ID = "participant_id"
DELIMITERS = {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "bars", " ": "spaces"}
"""What may separate columns, the likeliest first, and its name."""
MOST_SHOWN = 10
"""Largest number of participants that a warning lists."""

Participants = dict[str, dict[str, str]]


def read_participants(directories: Sequence[Path], known: Iterable[str]) -> Participants:
    """Site and scanner of each participant, from the first ``participants.tsv`` that is a table.

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
        By ``participant_id`` (always with ``sub-``), the :data:`SITE_COLUMNS` present, named as in the file;
        empty without a file.
    """
    for directory in directories:
        path = directory / "participants.tsv"
        try:
            found = _read(path)
        except FileNotFoundError:
            if not path.is_symlink():
                continue
            LOGGER.warning("%s", BAD_PARTICIPANTS.format(path=path, reason="a link that leads nowhere"))
        except (OSError, csv.Error, BadDataError) as error:
            LOGGER.warning("%s", BAD_PARTICIPANTS.format(path=path, reason=error))
        else:
            missing = sorted(set(known) - found.keys())
            if missing and any(found.values()):
                LOGGER.warning("%s", PARTICIPANTS_MISSING.format(path=path, labels=_shown(missing)))
            return found
    return {}


def _read(path: Path) -> Participants:
    """Read one table.

    Raises
    ------
    OSError
    csv.Error, BadDataError
        If it is no table of participants.
    """
    text, encoding = _decode(read_bytes(path, MAX_TABLE_BYTES))
    lines = io.StringIO(text, newline=None)  # of any system
    header = next((line for line in lines if line.strip()), "")
    delimiter = next((sign for sign in DELIMITERS if sign in header), "\t")
    names = [name.strip() for name in next(_rows([header], delimiter), [])]
    if ID not in [name.lower() for name in names]:
        raise BadDataError(f"no column {ID}")
    if encoding != "UTF-8" or delimiter != "\t":
        values = {"path": path, "encoding": encoding, "delimiter": DELIMITERS[delimiter]}
        LOGGER.warning("%s", PARTICIPANTS_FORMAT.format(**values))
    found, differ = _collect(names, _rows(lines, delimiter))
    if differ:
        LOGGER.warning("%s", PARTICIPANTS_DIFFER.format(path=path, labels=_shown(sorted(differ))))
    return found


def _rows(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter == " ")


def _collect(names: Sequence[str], rows: Iterable[Sequence[str]]) -> tuple[Participants, set[str]]:
    """The sites of each participant, and who has several that differ."""
    found: Participants = {}
    differ = set()
    for row in rows:
        cells = dict(zip(names, (cell.strip() for cell in row), strict=False))
        label = next((value for name, value in cells.items() if name.lower() == ID), "")
        if not label:
            continue
        label = "sub-" + re.sub("^sub-", "", label, flags=re.IGNORECASE)
        sites = {name: value for name, value in cells.items() if name.lower() in SITE_COLUMNS and value}
        if found.get(label, sites) != sites:
            differ.add(label)
        found[label] = sites
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
