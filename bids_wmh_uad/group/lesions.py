"""Every lesion of a cohort in one table."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bids_wmh_uad.bids.results import identity, result_path
from bids_wmh_uad.bids.tables import LESION_COLUMNS
from bids_wmh_uad.config import TEMPLATE
from bids_wmh_uad.errors import UNREADABLE_SIDECAR, BadDataError
from bids_wmh_uad.group.cohort import WMH_COLUMNS
from bids_wmh_uad.imaging.registration import read_transform
from bids_wmh_uad.reading import MAX_TABLE_BYTES, read_text

LOGGER = logging.getLogger("bids_wmh_uad")
PLACE = ("mni_x", "mni_y", "mni_z")
COHORT_LESION_COLUMNS: dict[str, dict[str, Any]] = {
    **{name: WMH_COLUMNS[name] for name in ("participant_id", "session_id")},
    "index": {"Description": "Number of the lesion in its session's image of lesions."},
    **{name: about for name, about in LESION_COLUMNS.items() if name != "reason"},
    **{
        name: {
            "Description": f"Centroid in {TEMPLATE}, {end} positive, by the session's affine transform; n/a without one.",
            "Units": "mm",
        }
        for name, end in zip(PLACE, ("right", "anterior", "superior"), strict=True)
    },
}
"""Columns of ``group_lesions.tsv``."""
Tables = Mapping[Path, list[dict[str, Any]]]
"""Lesions of sessions, by their summaries' paths."""


def read_lesions(summaries: Mapping[Path, Mapping[str, Any]]) -> dict[Path, list[dict[str, Any]]]:
    """The lesion tables of the finished sessions; one that cannot be read is said and left out."""
    found: dict[Path, list[dict[str, Any]]] = {}
    for path, summary in summaries.items():
        if summary.get("status") != "done":
            continue
        try:
            found[path] = _read(result_path(path, "table"))
        except BadDataError as error:
            LOGGER.warning("%s", error)
    return found


def _read(path: Path) -> list[dict[str, Any]]:
    """One table.

    Raises
    ------
    BadDataError
        `errors.UNREADABLE_SIDECAR`.
    """
    try:
        return list(
            csv.DictReader(io.StringIO(read_text(path, MAX_TABLE_BYTES), newline=None), delimiter="\t")
        )
    except (OSError, ValueError, csv.Error) as error:
        raise BadDataError(UNREADABLE_SIDECAR.format(path=path, reason=error)) from error


def cohort_lesions(summaries: Mapping[Path, Mapping[str, Any]], tables: Tables) -> list[dict[str, Any]]:
    """One row per lesion, in the order of the sessions: :data:`COHORT_LESION_COLUMNS`."""
    rows = []
    for path, lesions in tables.items():
        participant, session = identity(summaries[path])
        start = {"participant_id": participant, "session_id": session}
        try:
            to_template = read_transform(result_path(path, "flair_to_template"))
        except BadDataError as error:
            LOGGER.warning("%s", error)
            to_template = np.full((4, 4), math.nan)
        for lesion in lesions:
            place = to_template @ [*(_number(lesion.get(axis)) for axis in "xyz"), 1.0]
            known = {name: _plain(lesion.get(name)) for name in COHORT_LESION_COLUMNS}
            moved = {name: round(float(value), 1) for name, value in zip(PLACE, place[:3], strict=True)}
            rows.append(known | start | moved)
    return rows


def _plain(value: object) -> object:
    """A cell of a table as it was before it was written: numbers are written alike, whoever read them."""
    number = _number(value)
    if math.isnan(number):
        return value
    return int(number) if number.is_integer() else number


def _number(value: object) -> float:
    try:
        return float(value) if isinstance(value, (int, float, str)) else math.nan
    except ValueError:
        return math.nan
