"""Which columns of ``participants.tsv`` and ``sessions.tsv`` go into the cohort's table: numbers and short labels, nothing that names a person."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_wmh_uad.bids.participants import (
    SITE_COLUMNS,
    Participants,
    Sessions,
    about_columns,
    read_participants,
    read_sessions,
    sites_of,
)

LOGGER = logging.getLogger("bids_wmh_uad")
MOST_LEVELS, LONGEST_LABEL = 20, 32
"""Largest number of different labels of a column, and of letters of a label: more is free text."""
MOST_COLUMNS, LONGEST_NAME, MOST_SHOWN = 200, 64, 20
"""Largest number of columns taken, of letters of a column's name, and of columns that the log lists."""
FEWEST_FOR_OWN = 6
"""Number of participants from which a column of labels that all differ is taken for names, not for groups."""
MISSING = frozenset(("", "n/a", "na", "nan", "none", "null"))
"""Cells that say nothing, in any case."""
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)
TOPPED = re.compile(r"\d+\+")
"""A number and everything above it: ages are often given as ``89+``."""
DATE = re.compile(
    r"\d{4}-\d{1,2}-\d{1,2}(T.*)?|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}[./]\d{1,2}[./]\d{1,2}.*|\d{1,2}:\d{2}(:.*)?"
)
"""Days and times of day."""
PERSONAL = re.compile(
    r"(.*_)?(name|initials?|date|dob|birthdate|birthday|birth_?year|year_of_birth|address|street|city|zip|postcode|e?mail|phone"
    r"|ssn|mrn|id|identifier|comments?|notes?|remarks?)(_.*)?"
)
"""Names of columns that may tell who a person is, or hold free text."""
LONG_NUMBER = 10**7
"""Whole numbers from here on are dates (20240131), telephone or record numbers."""
PREFIX = "participants_"
"""Start of the name of a column that has the name of one of ours."""
ABOUT_KEYS = ("LongName", "Description", "Levels", "Units")
"""What is taken over of what ``participants.json`` says of a column."""


@dataclass(frozen=True)
class Covariates:
    """What is known of the sessions beside their scans.

    Parameters
    ----------
    rows : dict
        By participant and session, the cells of the columns taken.
    columns : dict
        Their data dictionary, in order.
    left_out : dict
        The other columns, and why each is left out.
    sites : dict
        By participant, the columns that name a site or scanner, by which an evaluation is split.
    """

    rows: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    sites: Participants = field(default_factory=dict)


def read_covariates(
    directories: Sequence[Path], sessions: Collection[tuple[str, str]], taken: Collection[str]
) -> Covariates:
    """Read the tables of some datasets, and say in the log which of their columns are taken.

    Parameters
    ----------
    directories : sequence of Path
        Datasets, which need not exist: the first that has a table counts.
    sessions : collection of (participant, session)
        With results.
    taken : collection of str
        Names of our own columns.
    """
    known = {participant for participant, _ in sessions}
    participants = read_participants(directories, known)
    found = choose(
        sessions, participants, read_sessions(directories, known), taken, about_columns(directories)
    )
    reasons = [f"{name[:LONGEST_NAME]} ({reason})" for name, reason in found.left_out.items()]
    for text, columns in (("Taken from", list(found.columns)), ("Not taken from", reasons)):
        if columns:
            more = f" and {len(columns) - MOST_SHOWN} more" if len(columns) > MOST_SHOWN else ""
            LOGGER.info(
                "%s participants.tsv and sessions.tsv: %s%s", text, ", ".join(columns[:MOST_SHOWN]), more
            )
    return found


def choose(
    sessions: Collection[tuple[str, str]],
    participants: Participants,
    visits: Sessions,
    taken: Collection[str],
    about: Mapping[str, Mapping[str, Any]] | None = None,
) -> Covariates:
    """Choose the columns that hold numbers or short labels.

    Parameters
    ----------
    sessions : collection of (participant, session)
    participants, visits : dict
        From `read_participants` and `read_sessions`; where both have a column, the session's cell counts.
    taken : collection of str
        Names of our own columns: one of theirs with such a name, in any case, gets :data:`PREFIX`.
    about : mapping, optional
        From `about_columns`.
    """
    merged = {key: {**participants.get(key[0], {}), **visits.get(key, {})} for key in sessions}
    names = list(
        dict.fromkeys(name for source in (*participants.values(), *visits.values()) for name in source)
    )
    found = Covariates({key: {} for key in merged}, sites=sites_of(participants))
    used = {name.lower() for name in taken}
    for name in names:
        cells = {key: _known(row.get(name)) for key, row in merged.items()}
        reason = _unfit(
            name, [value for value in cells.values() if value is not None], len({p for p, _ in merged})
        )
        if not reason and len(found.columns) == MOST_COLUMNS:
            reason = f"more than {MOST_COLUMNS} columns"
        if reason:
            found.left_out[name] = reason
            continue
        column = _free_name(" ".join(name.split()), used)
        used.add(column.lower())
        found.columns[column] = _about(name, (about or {}).get(name, {}))
        number = _kind(cells.values())
        for key, value in cells.items():
            found.rows[key][column] = None if value is None else number(value)
    return found


def _known(cell: str | None) -> str | None:
    return None if cell is None or cell.strip().lower() in MISSING else " ".join(cell.split())


def _unfit(name: str, values: Sequence[str], participants: int) -> str:
    """Why a column is left out; empty if it is not."""
    plain = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()).strip("_")
    levels = set(values)
    site = name.lower() in SITE_COLUMNS
    tests: tuple[tuple[Callable[[], bool], str], ...] = (
        (lambda: not values, "empty"),
        (lambda: len(name) > LONGEST_NAME, "a long name"),
        (lambda: not site and PERSONAL.fullmatch(plain) is not None, "its name: it may tell who a person is, or be free text"),
        (lambda: any(DATE.fullmatch(value) or "@" in value for value in levels), "dates or addresses"),
        (lambda: any(_is_long(value) for value in levels), "long whole numbers: dates, telephone or record numbers"),
        (lambda: all(_is_number(value) or TOPPED.fullmatch(value) for value in levels), ""),
        (lambda: any(len(value) > LONGEST_LABEL for value in levels), "long text"),
        (lambda: len(levels) > MOST_LEVELS, "many different labels"),
        (lambda: not site and len(levels) >= max(FEWEST_FOR_OWN, participants), "a label of its own for each participant"),
    )  # fmt: skip
    return next((reason for applies, reason in tests if applies()), "")


def _is_number(value: str) -> bool:
    return NUMBER.fullmatch(value) is not None and math.isfinite(_number(value))


def _is_long(value: str) -> bool:
    return re.fullmatch(r"[+-]?\d+([.,]0*)?", value) is not None and abs(_number(value)) >= LONG_NUMBER


def _number(value: str) -> float:
    return float(value.replace(",", "."))


def _kind(values: Iterable[str | None]) -> Callable[[str], Any]:
    """How the cells of a column are written: as numbers if all are (a decimal comma becomes a point), else as they stand.

    Whole numbers stay as they stand too: ``01`` may be a code.
    """
    known = [value for value in values if value is not None]
    decimal = all(_is_number(value) for value in known) and any("," in value for value in known)
    return (lambda value: value.replace(",", ".")) if decimal else str


def _free_name(name: str, used: Collection[str]) -> str:
    while name.lower() in used:
        name = PREFIX + name
    return name


def _about(name: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """The data dictionary's entry: where the column comes from, and what its own dictionary says."""
    about = {key: known[key] for key in ABOUT_KEYS if isinstance(known.get(key), (str, dict))}
    own = about.get("Description")
    text = f"From participants.tsv or sessions.tsv, there {name}"
    about["Description"] = f"{text}: {own}" if isinstance(own, str) else f"{text}."
    return about
