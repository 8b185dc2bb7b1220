"""What changed between sessions, of a whole cohort in one table: what ``--longitudinal`` left, and change per year."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_wmh_uad.bids import derivatives, tables
from bids_wmh_uad.core.change.tracking import STATUSES
from bids_wmh_uad.group.cohort import WMH_COLUMNS

LOGGER = logging.getLogger("bids_wmh_uad")
RATES = ("change_ml", "change_ml_lower", "change_ml_upper")
"""Keys of a pair of which there is also a value per year."""
TISSUE = {
    "new": "new lesions",
    "enlarging": "tissue that lesions grew by",
    "shrinking": "tissue that lesions lost",
}
CHANGE_TABLE_COLUMNS: dict[str, dict[str, Any]] = {
    "participant_id": WMH_COLUMNS["participant_id"],
    "session_before": {"Description": "Earlier session."},
    "session_after": {"Description": "Later session."},
    "kind": {
        "Description": "Which sessions are compared.",
        "Levels": {
            "consecutive": "a session and the one before",
            "total": "the last and the first of more than two",
        },
    },
    "years": {
        "Description": "Between the two, by acq_time of sessions.tsv or scans.tsv; n/a where it is not there.",
        "Units": "year",
    },
    **{
        f"wmh_volume_ml_{when}": {
            "Description": f"Lesion volume of the {which} session, by its mask.",
            "Units": "mL",
        }
        for when, which in (("before", "earlier"), ("after", "later"))
    },
    "change_ml": {
        "Description": "Change of all lesions' volume, measured on both images at once (boundary shift integral).",
        "Units": "mL",
    },
    "change_ml_lower": {"Description": "Lower end of its 95 % interval.", "Units": "mL"},
    "change_ml_upper": {"Description": "Upper end of its 95 % interval.", "Units": "mL"},
    **{
        f"{name}_per_year": {
            "Description": f"{name} / years; n/a where the years are not known, or not above 0.",
            "Units": "mL/year",
        }
        for name in RATES
    },
    **{f"{status}_count": {"Description": f"Lesions that are {status}."} for status in STATUSES},
    **{
        f"{name}_volume_ml": {"Description": f"Volume of {what}.", "Units": "mL"}
        for name, what in TISSUE.items()
    },
    "correlation_flair": {"Description": "Correlation of both FLAIR in the brain, aligned and matched."},
    "correlation_t1w": {"Description": "Likewise of both T1w."},
    "size_difference_percent": {
        "Description": "Largest stretch, along any direction, of one session's head against the other's, by an affine registration.",
        "Units": "percent",
    },
    "motion": {
        "Description": "How the participant's sessions were aligned.",
        "Levels": {"rigid": "sizes agree", "affine": "two sessions' sizes differ"},
    },
    "warnings": {
        "Description": "Number of warnings about the pair; their texts are on the participant's page."
    },
}
"""Columns of ``group_change.tsv``."""


def write_change(output_dir: Path, participants: Sequence[str]) -> int:
    """Write ``group_change.tsv`` of the participants whose sessions were compared; without any, none.

    Parameters
    ----------
    output_dir : Path
        The derivatives dataset.
    participants : sequence of str
        ``sub-X``, in order.

    Returns
    -------
    int
        Number of rows.
    """
    rows = []
    for participant in participants:
        path = derivatives.longitudinal_path(output_dir, participant.removeprefix("sub-"))
        pairs = derivatives.read_summary(path).get("pairs")
        rows += [_row(participant, pair) for pair in pairs or () if isinstance(pair, Mapping)]
    if rows:
        tables.write_table(output_dir / "group_change.tsv", rows, CHANGE_TABLE_COLUMNS)
    return len(rows)


def _row(participant: str, pair: Mapping[str, Any]) -> dict[str, Any]:
    years = pair.get("years")
    known = isinstance(years, int | float) and years > 0
    rates = {
        f"{name}_per_year": pair[name] / years if known and _is_number(pair.get(name)) else None
        for name in RATES
    }
    warnings = pair.get("warnings")
    counted = len(warnings) if isinstance(warnings, list) else None
    return {**pair, "participant_id": participant, **rates, "warnings": counted}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
