"""The results of a cohort against reference masks, with brightness and the smoothed FLAIR z-score beside the model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.bids.references import Reference, find_reference
from bids_wmh_uad.bids.results import result_path
from bids_wmh_uad.config import GroupConfig
from bids_wmh_uad.core.evaluation.measures import map_measures, mask_measures
from bids_wmh_uad.core.evaluation.overlap import Components
from bids_wmh_uad.core.evaluation.ranking import Ranking
from bids_wmh_uad.core.image.volume import Volume, bounding_box, check_same_grid
from bids_wmh_uad.core.lesion.components import voxel_volume
from bids_wmh_uad.errors import (
    EMPTY_BRIGHTNESS,
    NO_BRIGHTNESS,
    NO_REFERENCE,
    NO_SUCH_DIRECTORY,
    REFERENCE_OUTSIDE,
    BadDataError,
    MissingInputError,
)
from bids_wmh_uad.group.cohort import WMH_COLUMNS, for_each
from bids_wmh_uad.group.scans import flair_z_map
from bids_wmh_uad.imaging.masks import LESION, OTHER_PATHOLOGY, read_reference
from bids_wmh_uad.imaging.registration import read_transform
from bids_wmh_uad.imaging.scans import read_volume

LOGGER = logging.getLogger("bids_wmh_uad")
SECONDS = 1.0
"""Of work on one session, roughly (`benchmarks/group_reference.py`)."""
MAPS = {"model": "", "brightness": "brightness_", "baseline": "baseline_"}
"""The maps that are judged over all thresholds, and what their columns begin with: the anomaly map, brightness, FLAIR."""
OUTSIDE_LIMIT = 0.01
"""Fraction of a reference outside the brain mask above which it is said."""
RATIO_LIMIT = 5.0
OCTAVE, OCTAVES = 32, 10
"""Pooled curves look at scores of +-2 ** (k / 32) up to 2 ** 10: steps of 2 %."""

EVALUATION_COLUMNS: dict[str, dict[str, Any]] = {
    "participant_id": WMH_COLUMNS["participant_id"],
    "session_id": WMH_COLUMNS["session_id"],
    "reference_volume_ml": {"Description": "Volume of the reference inside the brain mask.", "Units": "mL"},
    "wmh_volume_ml": {"Description": "Volume of the lesion mask, as compared.", "Units": "mL"},
    "dice": {"Description": "Dice of the lesion mask and the reference."},
    "h95_mm": {
        "Description": "95th percentile of the distance between boundaries in axial slices, the larger of both ways; n/a when a mask is empty.",
        "Units": "mm",
    },
    "avd_percent": {
        "Description": "100 |V_reference - V_result| / V_reference; n/a without a reference lesion.",
        "Units": "percent",
    },
    "lesion_recall": {
        "Description": "Fraction of the reference's 26-connected lesions that the mask touches; 1 if it has none."
    },
    "lesion_precision": {
        "Description": "Fraction of the mask's lesions that touch the reference; 1 if there are none."
    },
    "lesion_f1": {"Description": "Harmonic mean of lesion_recall and lesion_precision."},
    "ap": {"Description": "Average precision of the anomaly map."},
    "auroc": {"Description": "Area under the ROC curve of the anomaly map."},
    "auroc30": {
        "Description": "The same up to a false-positive rate of 0.3, divided by 0.3.",
    },
    "aupro": {
        "Description": "Area under the per-region-overlap curve of the anomaly map: every reference lesion counts alike."
    },
    "aupro30": {
        "Description": "The same up to a false-positive rate of 0.3, divided by 0.3.",
    },
    "best_dice": {
        "Description": "Dice at the best threshold of the anomaly map (needs the reference: an upper bound)."
    },
    "best_threshold": {"Description": "That threshold."},
    "brightness_ap": {
        "Description": "ap of the default score's brightness, which needs no model, on the same voxels; n/a where it cannot be computed."
    },
    "brightness_auroc": {"Description": "auroc of brightness."},
    "brightness_aupro": {"Description": "aupro of brightness."},
    "brightness_best_dice": {"Description": "best_dice of brightness."},
    "baseline_ap": {"Description": "ap of the smoothed FLAIR z-score on the same voxels."},
    "baseline_auroc": {"Description": "auroc of the smoothed FLAIR z-score."},
    "baseline_aupro": {"Description": "aupro of the smoothed FLAIR z-score."},
    "baseline_best_dice": {"Description": "best_dice of the smoothed FLAIR z-score."},
}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One session against its reference.

    Attributes
    ----------
    row : dict
        Measures, by their column.
    curves : dict
        For each of `MAPS` that there is: ``roc`` and ``pro`` on `fpr_grid`, ``precision`` on
        `recall_grid`, ``counts`` (2, T) of true and false positives on `score_grid`; for ``model`` also
        ``dice`` on `ratio_grid`.
    sizes : (2, bands) int array
        Reference lesions found, and all, by size.
    lesion_voxels : int
    warnings : tuple of str
        What the user should know.
    """

    row: dict[str, float]
    curves: dict[str, dict[str, NDArray[Any]]]
    sizes: NDArray[np.int64]
    lesion_voxels: int
    warnings: tuple[str, ...]


def fpr_grid() -> NDArray[np.float64]:
    """False-positive rates of the cohort's curves, dense where they matter."""
    return np.concatenate([np.linspace(0, 0.05, 51), np.linspace(0.06, 0.3, 25), np.linspace(0.35, 1, 14)])


def recall_grid() -> NDArray[np.float64]:
    """Recalls of the cohort's precision-recall curve."""
    return np.linspace(0, 1, 51)


def ratio_grid() -> NDArray[np.float64]:
    """Multiples of a session's own threshold; 1 is among them."""
    return np.geomspace(1 / RATIO_LIMIT, RATIO_LIMIT, 41)


def score_grid() -> NDArray[np.float64]:
    """Scores at which sessions are pooled, ascending."""
    positive = 2.0 ** (np.arange(-OCTAVE * OCTAVES, OCTAVE * OCTAVES + 1) / OCTAVE)
    return np.concatenate([-positive[::-1], [0.0], positive])


def evaluate_cohort(
    config: GroupConfig,
    reference: Path,
    summaries: Mapping[Path, Mapping[str, Any]],
    masks: Mapping[Path, Path],
) -> tuple[list[dict[str, Any]], list[Evaluation | None]]:
    """Evaluate every finished session that has a reference mask.

    A session whose reference is absent is left out and said; one whose reference
    cannot be used is said and has n/a in every measure.

    Parameters
    ----------
    config : GroupConfig
    reference : Path
        Derivatives dataset.
    summaries : mapping
        Of all sessions, by path.
    masks : mapping
        Lesion mask of each finished session, by its summary's path.

    Returns
    -------
    rows : list of dict
    evaluations : list of Evaluation or None
        None where the reference could not be used.
    """
    if not reference.is_dir():
        raise MissingInputError(NO_SUCH_DIRECTORY.format(path=reference))
    pairs = []
    for path in masks:
        summary = summaries[path]
        found = find_reference(reference, summary["participant_id"], summary["session_id"])
        if found is None:
            LOGGER.warning(NO_REFERENCE.format(where=path.name, path=reference))
        else:
            pairs.append((path, found))
    LOGGER.info("Evaluating %d sessions", len(pairs))
    tasks = [(path, found, masks[path], summaries[path]["threshold"]["value"]) for path, found in pairs]
    outcomes = for_each(
        partial(_evaluate_task, resample=config.selection.resample_reference), tasks, config, SECONDS
    )
    rows: list[dict[str, Any]] = []
    evaluations: list[Evaluation | None] = []
    for (path, _), outcome in zip(pairs, outcomes, strict=True):
        ids = {key: summaries[path][key] for key in ("participant_id", "session_id", "wmh_volume_ml")}
        evaluation = None if isinstance(outcome, BadDataError) else outcome
        if isinstance(outcome, BadDataError):
            LOGGER.error("%s", outcome)
        else:
            for warning in outcome.warnings:
                LOGGER.warning("%s", warning)
        measures = evaluation.row if evaluation else {}
        evaluations.append(evaluation)
        rows.append({column: {**ids, **measures}.get(column) for column in EVALUATION_COLUMNS})
    return rows, evaluations


def _evaluate_task(task: tuple[Path, Reference, Path, float], resample: bool) -> Evaluation:
    return evaluate_session(*task, resample=resample)


def evaluate_session(
    summary: Path, reference: Reference, mask: Path, threshold: float, *, resample: bool = False
) -> Evaluation:
    """Compare one session's mask and map, brightness and the FLAIR z-score with a reference mask.

    Everything is computed inside the brain mask, without the reference's other pathology (label
    2), on the FLAIR's own grid.

    Parameters
    ----------
    summary : Path
    reference : Reference
    mask : Path
    threshold : float
        Of the mask, in units of the anomaly map.
    resample : bool
        Bring a reference on another grid to the FLAIR's.

    Raises
    ------
    GridMismatchError
        If the reference is on another grid and is not to be resampled.
    BadDataError
        If the reference or a result cannot be read.
    """
    result = read_volume(mask)
    volumes = {name: _read_result(summary, name, result, mask) for name in ("brain", "anomaly", "flair")}
    truth, notes = _read_truth(summary, reference, result, mask, resample)
    warnings = list(notes)
    scores = {"model": volumes["anomaly"].data}
    try:
        scores["brightness"] = _read_brightness(summary, result, mask)
    except BadDataError as error:
        warnings.append(NO_BRIGHTNESS.format(where=summary.name, reason=error))
    brain = volumes["brain"].data > 0
    outside, total = int(((truth == LESION) & ~brain).sum()), int((truth == LESION).sum())
    if outside > OUTSIDE_LIMIT * total:
        warnings.append(REFERENCE_OUTSIDE.format(path=reference.path, percent=100 * outside / total))
    box = bounding_box(brain, margin=1)  # nothing counts beyond, and half of a field of view is air
    brain, truth, scores = brain[box], truth[box], {name: score[box] for name, score in scores.items()}
    flair = Volume(volumes["flair"].data[box], volumes["flair"].affine)
    scores["baseline"] = flair_z_map(result_path(summary, "flair"), flair, brain)
    inside = (brain & (truth != OTHER_PATHOLOGY)).T  # transposed, voxels come in the order of the file
    found, affine = (result.data[box] > 0).T & inside, result.affine[:, [2, 1, 0, 3]]
    lesions = Components.of((truth == LESION).T & inside, found)
    labels = lesions.labels[inside]
    rankings = {name: Ranking.of(score.T[inside], labels) for name, score in scores.items()}
    row = mask_measures(found, lesions, affine) | _ranking_measures(rankings)
    sizes = np.stack(lesions.by_volume(voxel_volume(result.affine) / 1000))
    curves = {name: _curves(ranking) for name, ranking in rankings.items()}
    curves["model"]["dice"] = rankings["model"].dice_at(threshold * ratio_grid())
    return Evaluation(row, curves, sizes, int(lesions.sizes.sum()), tuple(warnings))


def _read_result(summary: Path, name: str, result: Volume, mask: Path) -> Volume:
    """One of the session's images, on the mask's grid."""
    path = result_path(summary, name)
    volume = read_volume(path)
    check_same_grid(result, volume, (str(mask), str(path)))
    return volume


def _read_brightness(summary: Path, result: Volume, mask: Path) -> NDArray[Any]:
    """The session's brightness; `BadDataError` where none could be computed."""
    score = _read_result(summary, "brightness", result, mask).data
    if not score.any():
        raise BadDataError(EMPTY_BRIGHTNESS.format(path=result_path(summary, "brightness")))
    return score


def _read_truth(
    summary: Path, reference: Reference, result: Volume, mask: Path, resample: bool
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """The reference on the FLAIR's grid; one in the T1w's space comes there by the session's own transform."""
    matrix = read_transform(result_path(summary, "t1w_to_flair")) if reference.in_t1w_space else None
    may_resample = resample and reference.may_be_resampled
    return read_reference(
        reference.path, result, mask, matrix=matrix, may_resample=may_resample, remedy=reference.remedy
    )


def _ranking_measures(rankings: Mapping[str, Ranking]) -> dict[str, float]:
    """Measures of each map, with its prefix of `MAPS`."""
    row: dict[str, float] = {}
    for name, ranking in rankings.items():
        row |= {f"{MAPS[name]}{key}": value for key, value in map_measures(ranking).items()}
    return {key: value for key, value in row.items() if key in EVALUATION_COLUMNS}


def _curves(ranking: Ranking) -> dict[str, NDArray[Any]]:
    return {
        "roc": ranking.roc(fpr_grid()),
        "pro": ranking.pro(fpr_grid()),
        "precision": ranking.precision(recall_grid()),
        "counts": np.stack(ranking.counts_at(score_grid())),
    }
