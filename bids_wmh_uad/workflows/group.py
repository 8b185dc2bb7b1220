"""The group level: one table of the cohort, and the evaluation against reference masks.

Reads derivatives only; nothing is recomputed and raw data may be absent.
"""

from __future__ import annotations

import json
import logging
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import session_label
from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.core.intensity import smooth_flair_z
from bids_wmh_uad.core.metrics import auroc, average_precision, best_dice, dice
from bids_wmh_uad.core.volume import Volume, check_same_grid
from bids_wmh_uad.errors import (
    EXIT_OK,
    EXIT_SESSION_FAILED,
    NO_REFERENCE,
    NO_RESULTS,
    NO_SUCH_DIRECTORY,
    NOT_3D_IMAGE,
    UNREADABLE_IMAGE,
    UNREADABLE_SIDECAR,
    BadDataError,
    BadImageError,
    MissingInputError,
)
from bids_wmh_uad.files import dump_json, write_atomically

LOGGER = logging.getLogger("bids_wmh_uad")
OTHER_PATHOLOGY = 2
"""Reference label that the WMH challenge leaves out of the evaluation."""

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
    "icv_ml": {"Description": "Volume of the brain mask.", "Units": "mL"},
    "wmh_percent_icv": {"Description": "100 x wmh_volume_ml / icv_ml.", "Units": "percent"},
    "volume_ml_threshold_minus20": {"Description": "Volume at 0.8 x the threshold.", "Units": "mL"},
    "volume_ml_threshold_plus20": {"Description": "Volume at 1.2 x the threshold.", "Units": "mL"},
    "threshold": {"Description": "Anomaly score at and above which a voxel is lesion."},
    "threshold_rule": {"Description": "Label-free rule that gave the threshold."},
    "score": {"Description": "Anomaly score used."},
    "model": {"Description": "Model used."},
    "registration_overlap": {"Description": "Dice of the T1w and FLAIR brain masks after registration."},
    "warnings": {"Description": "Number of warnings; their texts are on the participant's page."},
    "reason": {"Description": "Why a failed session failed."},
}
EVALUATION_COLUMNS: dict[str, dict[str, Any]] = {
    "participant_id": WMH_COLUMNS["participant_id"],
    "session_id": WMH_COLUMNS["session_id"],
    "reference_volume_ml": {"Description": "Volume of the reference inside the brain mask.", "Units": "mL"},
    "wmh_volume_ml": WMH_COLUMNS["wmh_volume_ml"],
    "dice": {"Description": "Dice of the lesion mask and the reference."},
    "ap": {"Description": "Average precision of the anomaly map inside the brain mask."},
    "auroc": {"Description": "Area under the ROC curve of the anomaly map inside the brain mask."},
    "best_dice": {
        "Description": "Dice at the best threshold of the anomaly map (needs the reference: an upper bound)."
    },
    "baseline_ap": {"Description": "Average precision of the smoothed FLAIR z-score on the same voxels."},
    "baseline_best_dice": {"Description": "Dice at the best threshold of the smoothed FLAIR z-score."},
}


def run_group(config: RunConfig) -> int:
    """Collect the cohort's table, evaluate it where references are given, and write the page.

    Returns
    -------
    int
        0; 1 if a session's reference could not be used.

    Raises
    ------
    MissingInputError
        If there are no results, or no such reference dataset.
    """
    from bids_wmh_uad.reports.group import write_group_report

    rows = cohort_table(config.output_dir)
    if not (config.output_dir / "dataset_description.json").is_file():  # it links the raw data
        derivatives.write_dataset_files(config.output_dir, None)
    derivatives.write_table(config.output_dir / "group_wmh.tsv", rows, WMH_COLUMNS)
    evaluation, failures = None, 0
    if config.reference is not None:
        evaluation, failures = evaluate_cohort(config.output_dir, config.reference)
        derivatives.write_table(config.output_dir / "group_evaluation.tsv", evaluation, EVALUATION_COLUMNS)
        summary = dump_json(summarise(evaluation))
        write_atomically(config.output_dir / "group_summary.json", summary)
    page = write_group_report(config.output_dir, rows, evaluation)
    LOGGER.info("%d sessions in %s", len(rows), config.output_dir / "group_wmh.tsv")
    LOGGER.info("Report: %s", page)
    return EXIT_SESSION_FAILED if failures else EXIT_OK


def rebuild_reports(config: RunConfig) -> int:
    """Rebuild every page from the derivatives (``--reports-only``)."""
    from bids_wmh_uad.workflows.participant import write_reports

    if config.analysis_level == "group":
        return run_group(config)
    rows = cohort_table(config.output_dir)
    wanted = config.selection.participant_label
    subjects = {str(row["participant_id"])[4:] for row in rows}
    failures = {
        session_label(str(row["participant_id"])[4:], str(row["session_id"])[4:] or None): str(row["reason"])
        for row in rows
        if row["status"] == "failed"
    }
    write_reports(config, sorted(subjects.intersection(wanted) if wanted else subjects), failures)
    return EXIT_OK


def cohort_table(output_dir: Path) -> list[dict[str, Any]]:
    """One row per session, from the summaries, sorted by participant and session.

    Raises
    ------
    MissingInputError
        If there is no summary at all.
    """
    summaries = [derivatives.read_summary(path) for path in find_summaries(output_dir)]
    rows = [_row(summary) for summary in summaries if "participant_id" in summary]
    done = {(row["participant_id"], row["session_id"]) for row in rows if row["status"] == "done"}
    rows = [
        row
        for row in rows
        if row["status"] == "done" or (row["participant_id"], row["session_id"]) not in done
    ]
    if not rows:
        raise MissingInputError(NO_RESULTS.format(path=output_dir))
    return sorted(rows, key=lambda row: (str(row["participant_id"]), str(row["session_id"])))


def find_summaries(output_dir: Path) -> list[Path]:
    """The summary files of all sessions, failed ones included."""
    patterns = ("sub-*/anat/*_summary.json", "sub-*/ses-*/anat/*_summary.json")
    return sorted(path for pattern in patterns for path in output_dir.glob(pattern))


def _row(summary: Mapping[str, Any]) -> dict[str, Any]:
    threshold = summary.get("threshold", {})
    values = {
        **summary,
        "threshold": threshold.get("value"),
        "threshold_rule": f"{threshold['name']}={threshold['parameter']:g}" if threshold else None,
        "model": summary.get("model", {}).get("name"),
        "warnings": len(summary["warnings"]) if "warnings" in summary else None,
    }
    return {column: values.get(column) for column in WMH_COLUMNS}


def evaluate_cohort(output_dir: Path, reference: Path) -> tuple[list[dict[str, Any]], int]:
    """Evaluate every finished session that has a reference mask.

    A session whose reference is absent is left out and said; one whose reference
    cannot be used is said and has n/a in every measure.

    Returns
    -------
    rows : list of dict
    failures : int
        References that could not be used.
    """
    if not reference.is_dir():
        raise MissingInputError(NO_SUCH_DIRECTORY.format(path=reference))
    rows, failures = [], 0
    for path in find_summaries(output_dir):
        summary = derivatives.read_summary(path)
        if summary.get("status") != "done":
            continue
        mask = find_reference(reference, summary["participant_id"], summary["session_id"])
        if mask is None:
            LOGGER.warning(NO_REFERENCE.format(where=path.name, path=reference))
            continue
        ids = {key: summary[key] for key in ("participant_id", "session_id", "wmh_volume_ml")}
        try:
            measures = evaluate_session(path, mask)
        except BadDataError as error:
            failures += 1
            measures = {}
            LOGGER.error("%s", error)  # noqa: TRY400 (the message is for users)
        rows.append({column: {**ids, **measures}.get(column) for column in EVALUATION_COLUMNS})
    return rows, failures


def find_reference(reference: Path, participant_id: str, session_id: str) -> Path | None:
    """The session's ``*_label-{WMH,lesion}_mask.nii.gz``: the first by name if there are several."""
    directory = reference / participant_id
    if session_id != "n/a":
        directory /= session_id
    found = [
        path for label in ("WMH", "lesion") for path in directory.glob(f"anat/*_label-{label}_mask.nii.gz")
    ]
    return min(found, default=None)


def evaluate_session(summary: Path, reference: Path) -> dict[str, float]:
    """Compare one session's mask and map, and the FLAIR z-score, with a reference mask.

    Everything is computed inside the brain mask, on the FLAIR's own grid.

    Raises
    ------
    GridMismatchError
        If the reference is on another grid.
    BadImageError
        If the reference cannot be read.
    """
    start = str(summary).removesuffix(derivatives.OUTPUTS["summary"])
    images = {name: Path(start + derivatives.OUTPUTS[name]) for name in ("brain", "mask", "anomaly", "flair")}
    truth = _volume(reference)
    volumes = {name: _volume(path) for name, path in images.items()}
    check_same_grid(volumes["mask"], truth, (str(images["mask"]), str(reference)))
    brain = (volumes["brain"].data > 0) & (truth.data != OTHER_PATHOLOGY)
    wanted = truth.data[brain] == 1
    anomaly = volumes["anomaly"].data[brain]
    baseline = flair_z_baseline(images["flair"], volumes["flair"].data, volumes["brain"].data > 0)[brain]
    return {
        "reference_volume_ml": float(wanted.sum() * np.prod(truth.zooms) / 1000),
        "dice": dice(volumes["mask"].data[brain] > 0, wanted),
        "ap": average_precision(anomaly, wanted),
        "auroc": auroc(anomaly, wanted),
        "best_dice": best_dice(anomaly, wanted)[0],
        "baseline_ap": average_precision(baseline, wanted),
        "baseline_best_dice": best_dice(baseline, wanted)[0],
    }


def flair_z_baseline(path: Path, flair: NDArray[Any], brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The smoothed FLAIR z-score of a session, from its preprocessed FLAIR and sidecar."""
    sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
    try:
        white_matter = json.loads(sidecar.read_text())["WhiteMatter"]
        mode, scale = white_matter["mode"], white_matter["scale"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadDataError(UNREADABLE_SIDECAR.format(path=sidecar, reason=error)) from error
    z = ((flair - mode) / scale).astype(np.float32)
    return smooth_flair_z(z, brain)


def _volume(path: Path) -> Volume:
    try:
        image = nib.load(path)
        data = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, ImageFileError, HeaderDataError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise BadImageError(UNREADABLE_IMAGE.format(path=path, reason=reason)) from error
    if data.ndim < 3 or data.size != np.prod(data.shape[:3]):
        raise BadImageError(NOT_3D_IMAGE.format(path=path, shape=data.shape))
    return Volume(data.reshape(data.shape[:3]), image.affine)


def summarise(evaluation: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean, median and number of sessions of each measure; sessions without a value are left out."""
    summary: dict[str, Any] = {"sessions": len(evaluation)}
    for column in EVALUATION_COLUMNS:
        values = [
            row[column]
            for row in evaluation
            if isinstance(row.get(column), float) and math.isfinite(row[column])
        ]
        if values:
            summary[column] = {
                "mean": float(np.mean(values)),
                "median": float(np.median(values)),
                "n": len(values),
            }
    return summary
