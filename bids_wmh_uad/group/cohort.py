"""The sessions of a derivatives dataset: their summaries, one table, and work on many at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from bids_wmh_uad.bids.results import identity
from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.core.lesion.lobes import LOBES, OTHER
from bids_wmh_uad.core.lesion.regions import REGIONS
from bids_wmh_uad.core.parallel import process_map
from bids_wmh_uad.errors import BadDataError
from bids_wmh_uad.workflows.engine import duration

Item = TypeVar("Item")
Result = TypeVar("Result")

Rows = Mapping[tuple[str, str], dict[str, Any]]
"""Cells by participant and session."""
LOGGER = logging.getLogger("bids_wmh_uad")
PROGRESS = "%d of %d sessions, about %s left"
TELL_EVERY = 20.0
"""Seconds between two lines that say how far the work is, at least."""
AT_ONCE = 16
"""Sessions that each process is given before the next look at the clock."""
PER_PROCESS = 20.0
"""Seconds of work that make a further process worth its start and its memory."""

CHECKS = {
    "flair_grey": "FLAIR: median of grey over white matter's mode",
    "t1w_grey": "T1w: median of grey over white matter's mode",
    "flair_noise": "FLAIR: noise over white matter's mode",
    "t1w_noise": "T1w: noise over white matter's mode",
    "flair_empty": "FLAIR: fraction of the brain that is exactly 0",
    "t1w_empty": "T1w: fraction of the brain that is exactly 0",
    "dependence": "Correlation ratio: fraction of FLAIR's variance that T1w explains",
    "sameness": "Pearson's correlation of FLAIR and T1w",
    "template_r": "Correlation of T1w and template",
    "coverage": "Fraction of the template's brain that is in the brain mask",
    "cut": "Largest share of the brain's widest cross-section that a face of the image cuts off",
    "thickness_mm": "Largest voxel size of the FLAIR, mm",
    "scale_max": "Largest stretch of the affine to the template",
    "scale_min": "Smallest stretch of the affine to the template",
}
"""Numbers by which the scans are doubted (`core.image.quality.measure`); two more are columns of their own."""

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
    **{
        f"lesion_count_{region}": {"Description": f"Number of {region} lesions; they add up to lesion_count."}
        for region in REGIONS
    },
    **{
        f"wmh_volume_ml_{lobe}": {
            "Description": f"Lesion volume in the {lobe.replace('_', ' ')}, by a registered atlas of lobes, voxel by voxel; all lobes and other add up to wmh_volume_ml.",
            "Units": "mL",
        }
        for lobe in LOBES
    },
    f"wmh_volume_ml_{OTHER}": {
        "Description": "Lesion volume in no lobe: deep nuclei, brainstem, cerebellum.",
        "Units": "mL",
    },
    "fazekas_periventricular_estimate": {
        "Description": "Estimate of the periventricular Fazekas grade, by how far periventricular lesions reach from the ventricle; no rater's grade.",
        "Levels": {"0": "none", "1": "up to 5 mm", "2": "up to 10 mm", "3": "10 mm and more"},
    },
    "fazekas_deep_estimate": {
        "Description": "Estimate of the deep Fazekas grade, by the largest diameter of deep lesions in an axial slice; no rater's grade.",
        "Levels": {"0": "none", "1": "less than 10 mm", "2": "10 mm and more", "3": "20 mm and more"},
    },
    "icv_ml": {"Description": "Volume of the brain mask.", "Units": "mL"},
    "wmh_percent_icv": {"Description": "100 x wmh_volume_ml / icv_ml.", "Units": "percent"},
    **{
        f"wmh_percent_icv_{end}": {
            "Description": f"{end.capitalize()} end of its interval: 100 x volume_ml_{end} / icv_ml.",
            "Units": "percent",
        }
        for end in ("lower", "upper")
    },
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
    **{
        f"check_{name}": {"Description": f"{text}; of the scans, see docs/preprocessing.md."}
        for name, text in CHECKS.items()
    },
    "warnings": {"Description": "Number of warnings; their texts are on the participant's page."},
    "reason": {"Description": "Why a failed session failed."},
}


def cohort_table(summaries: Mapping[Path, Mapping[str, Any]], covariates: Rows) -> list[dict[str, Any]]:
    """One row per session: :data:`WMH_COLUMNS`, then what is known beside its scans, by participant and session."""
    return [_row(summary) | covariates.get(identity(summary), {}) for summary in summaries.values()]


def _row(summary: Mapping[str, Any]) -> dict[str, Any]:
    threshold = summary.get("threshold", {})
    checks = summary.get("checks")
    values = {
        **summary,
        **{
            f"wmh_percent_icv_{end}": _percent_of_icv(summary, f"volume_ml_{end}")
            for end in ("lower", "upper")
        },
        **{f"check_{name}": checks.get(name) for name in CHECKS if isinstance(checks, Mapping)},
        "threshold": threshold.get("value"),
        "threshold_rule": f"{threshold['name']}={threshold['parameter']:g}" if threshold else None,
        "model": (summary.get("model") or {}).get("name"),
        "warnings": len(summary["warnings"]) if "warnings" in summary else None,
    }
    return {column: values.get(column) for column in WMH_COLUMNS}


def _percent_of_icv(summary: Mapping[str, Any], volume: str) -> float | None:
    part, whole = summary.get(volume), summary.get("icv_ml")
    if not isinstance(part, (int, float)) or not isinstance(whole, (int, float)) or not whole:
        return None
    return round(100 * part / whole, 4)


def for_each(
    function: Callable[[Item], Result], items: Sequence[Item], config: RunConfig, seconds: float
) -> list[Result | BadDataError]:
    """Apply a picklable function to every session, on as many processes as ``--nprocs`` and the work allow; says how far it is.

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
    found: list[Result | BadDataError] = []
    start = told = monotonic()
    for first in range(0, len(items), jobs * AT_ONCE):
        found += process_map(partial(_attempt, function), items[first : first + jobs * AT_ONCE], jobs)
        now = monotonic()
        if now - told > TELL_EVERY and len(found) < len(items):
            left = duration((now - start) * (len(items) - len(found)) / len(found))
            LOGGER.info(PROGRESS, len(found), len(items), left)
            told = now
    return found


def _attempt(function: Callable[[Item], Result], item: Item) -> Result | BadDataError:
    try:
        return function(item)
    except BadDataError as error:
        return error
