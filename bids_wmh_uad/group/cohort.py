"""The sessions of a derivatives dataset: their summaries, one table, and work on many at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.core.lesion.regions import REGIONS
from bids_wmh_uad.core.parallel import process_map
from bids_wmh_uad.errors import BadDataError

Item = TypeVar("Item")
Result = TypeVar("Result")

PER_PROCESS = 20.0
"""Seconds of work that make a further process worth its start and its memory."""

WMH_COLUMNS: dict[str, dict[str, Any]] = {
    "participant_id": {"Description": "Participant."},
    "session_id": {"Description": "Session; n/a in a dataset without sessions."},
    "status": {
        "Description": "Outcome.",
        "Levels": {"done": "results exist", "failed": "no result: see reason"},
    },
    "wmh_volume_ml": {"Description": "Total lesion volume; 0: none found, n/a: failed.", "Units": "mL"},
    "lesion_count": {"Description": "26-connected lesions; 0: none found, n/a: failed."},
    "largest_lesion_ml": {"Description": "Volume of the largest lesion.", "Units": "mL"},
    **{
        f"wmh_volume_ml_{region}": {
            "Description": f"Volume of the {region} lesions, each whole.",
            "Units": "mL",
        }
        for region in REGIONS
    },
    "wmh_volume_ml_within_10mm": {
        "Description": "Supratentorial lesion volume within 10 mm of the ventricles.",
        "Units": "mL",
    },
    "icv_ml": {"Description": "Volume of the brain mask.", "Units": "mL"},
    "wmh_percent_icv": {"Description": "100 x wmh_volume_ml / icv_ml.", "Units": "percent"},
    "rejected_count": {"Description": "Candidates that were not taken for lesions."},
    "volume_ml_lower": {
        "Description": "Lower end of the volume's interval: voxels of probability 0.95 and more.",
        "Units": "mL",
    },
    "volume_ml_upper": {
        "Description": "Upper end of the volume's interval: voxels of probability 0.05 and more.",
        "Units": "mL",
    },
    "volume_ml_threshold_minus20": {"Description": "Volume at 0.8 x the threshold.", "Units": "mL"},
    "volume_ml_threshold_plus20": {"Description": "Volume at 1.2 x the threshold.", "Units": "mL"},
    "unstable_volume": {"Description": "1: the two differ by more than a factor of 2; 0: they do not."},
    "threshold": {"Description": "Anomaly score at and above which a voxel is lesion."},
    "threshold_rule": {"Description": "Label-free rule that gave the threshold."},
    "score": {"Description": "Anomaly score used."},
    "paradigm": {
        "Description": "Whose patches the One-Class SVMs learnt from: patient, pooled or voxel; n/a without a model."
    },
    "model": {"Description": "Model used; n/a where the score (brightness) uses none."},
    "registration_overlap": {"Description": "Dice of the T1w and FLAIR brain masks after registration."},
    "warnings": {"Description": "Number of warnings; their texts are on the participant's page."},
    "reason": {"Description": "Why a failed session failed."},
}


def cohort_table(
    summaries: Mapping[Path, Mapping[str, Any]], participants: Mapping[str, Mapping[str, str]]
) -> list[dict[str, Any]]:
    """One row per session: :data:`WMH_COLUMNS`, then what ``participants.tsv`` says of site and scanner."""
    rows = [_row(summary) for summary in summaries.values()]
    return [{**row, **participants.get(row["participant_id"], {})} for row in rows]


def _row(summary: Mapping[str, Any]) -> dict[str, Any]:
    threshold = summary.get("threshold", {})
    values = {
        **summary,
        "threshold": threshold.get("value"),
        "threshold_rule": f"{threshold['name']}={threshold['parameter']:g}" if threshold else None,
        "model": (summary.get("model") or {}).get("name"),
        "warnings": len(summary["warnings"]) if "warnings" in summary else None,
    }
    return {column: values.get(column) for column in WMH_COLUMNS}


def site_columns(participants: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """The data dictionary of the columns that come from ``participants.tsv``."""
    names = dict.fromkeys(name for row in participants.values() for name in row)
    return {name: {"Description": "From participants.tsv."} for name in names}


def for_each(
    function: Callable[[Item], Result], items: Sequence[Item], config: RunConfig, seconds: float
) -> list[Result | BadDataError]:
    """Apply a picklable function to every session, on as many processes as ``--nprocs`` and the work allow.

    Parameters
    ----------
    function : callable
    items : sequence
    config : RunConfig
    seconds : float
        What one session takes, roughly.

    Returns
    -------
    list
        In the order of the items; where a session's files cannot be used, the error that says so: the
        others go on.
    """
    jobs = min(config.performance.nprocs, max(1, int(len(items) * seconds / PER_PROCESS)))
    return process_map(partial(_attempt, function), items, jobs)


def _attempt(function: Callable[[Item], Result], item: Item) -> Result | BadDataError:
    try:
        return function(item)
    except BadDataError as error:
        return error
