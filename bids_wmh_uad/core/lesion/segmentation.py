"""From an anomaly map to lesions and numbers: what the segment step computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_wmh_uad.core.image.volume import voxel_sizes
from bids_wmh_uad.core.lesion.candidates import Candidate, Surroundings, describe_candidates
from bids_wmh_uad.core.lesion.components import Lesion, label_lesions, lesion_table, total_volume_ml
from bids_wmh_uad.core.lesion.decision import IN_VENTRICLES, LesionDecision
from bids_wmh_uad.core.lesion.landmarks import Tissue
from bids_wmh_uad.core.lesion.regions import REGIONS, LesionPlace, place_lesions
from bids_wmh_uad.core.lesion.threshold import OperatingPoint, calibrated_probability, operating_point
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.errors import HIGH_LOAD, UNSTABLE_VOLUME, SessionWarning

MASK_WARNINGS = frozenset({HIGH_LOAD.code, UNSTABLE_VOLUME.code})
"""Codes of the warnings that another threshold can bring or take away."""
INTERVAL = (0.95, 0.05)
"""Probabilities at and above which voxels count at the lower and the upper end of the volume's interval."""


@dataclass(frozen=True, eq=False)
class Lesions:
    """Regions of one kind: accepted lesions, or rejected candidates.

    Attributes
    ----------
    labels : ndarray of int32, shape (X, Y, Z)
        0 = none, 1 = the largest.
    rows : tuple of Lesion
    places : tuple of LesionPlace
    candidates : tuple of Candidate
        What the decision looked at; empty where it did not (`DetectionParameters.decides`).
    probabilities : tuple of float
        Of being a lesion; empty likewise.
    reasons : tuple of str
        Why each was rejected; empty for lesions.
    """

    labels: NDArray[np.int32]
    rows: tuple[Lesion, ...]
    places: tuple[LesionPlace, ...]
    candidates: tuple[Candidate, ...] = ()
    probabilities: tuple[float, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Lesions of one session.

    Attributes
    ----------
    lesions, rejected : Lesions
        What is taken for a lesion, and what is not.
    probability : ndarray of float32, shape (X, Y, Z)
        In [0, 1]: the voxel's, times its candidate's.
    measures : dict
        What the summary says: volumes (mL), counts, the operating point.
    warnings : tuple of SessionWarning
        About this mask; their codes are among `MASK_WARNINGS`.
    """

    lesions: Lesions
    rejected: Lesions
    probability: NDArray[np.float32]
    measures: dict[str, Any]
    warnings: tuple[SessionWarning, ...]


class _Judged(NamedTuple):
    """Candidates at one threshold, with a probability each."""

    labels: NDArray[np.int32]
    candidates: list[Candidate]
    probabilities: NDArray[np.float64]
    reasons: list[str]

    def some(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
        """Renumber a choice of the candidates from 1; with the places that they have among all."""
        new = np.zeros(chosen.size + 1, np.int32)
        new[1:][chosen] = np.arange(1, chosen.sum() + 1)
        return new[self.labels], np.flatnonzero(chosen)


def segment(
    anomaly: NDArray[np.float32],
    tissue: Tissue,
    landmarks: NDArray[np.integer[Any]],
    affine: NDArray[np.float64],
    *,
    parameters: DetectionParameters,
) -> Segmentation:
    """Find candidates in an anomaly map without labels, decide which are lesions, and measure them.

    With the rule ``tail`` each candidate, a 26-connected component above the threshold, is judged by what is known of it
    (`decision.LesionDecision`); nothing inside the ventricles is a lesion. Other rules take the threshold at its word.

    Parameters
    ----------
    anomaly : ndarray, shape (X, Y, Z)
    tissue : Tissue
        Contrasts, brain, prior of grey matter (where above 0.5 the threshold's reference).
    landmarks : ndarray of int, shape (X, Y, Z)
        Ventricles, posterior fossa and cortex, from `landmarks.map_landmarks`.
    affine : ndarray, shape (4, 4)
        Voxel to world, mm.
    parameters : DetectionParameters
        Threshold rule, smallest lesion, least probability, steepness, what is warned of.

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`, from the threshold rule, or when no grey matter lies in the brain.
    """
    spacing = voxel_sizes(affine)
    point = operating_point(parameters, anomaly, tissue.mask, tissue.likely_grey)
    around = Surroundings.of(tissue, landmarks, spacing) if parameters.decides else None
    judged = _judge(anomaly, tissue.mask, point, around, affine, parameters)
    accepted = judged.probabilities >= parameters.accept
    lesions, rejected = (
        _regions(judged, chosen, anomaly, landmarks, affine) for chosen in (accepted, ~accepted)
    )
    probability = _probability(anomaly, tissue.mask, point, judged, parameters)
    lower, upper = (total_volume_ml(probability >= level, affine) for level in INTERVAL)
    shifted = [
        _volume_at(share, anomaly, tissue.mask, point, around, affine, parameters) for share in (-0.2, 0.2)
    ]
    volume = total_volume_ml(lesions.labels, affine)
    measures = {
        "wmh_volume_ml": round(volume, 4),
        "lesion_count": len(lesions.rows),
        "largest_lesion_ml": round(lesions.rows[0].volume_mm3 / 1000, 4) if lesions.rows else 0.0,
        "rejected_count": len(rejected.rows),
        "volume_ml_lower": round(min(lower, volume), 4),
        "volume_ml_upper": round(max(upper, volume), 4),
        "volume_ml_threshold_minus20": round(shifted[0], 4),
        "volume_ml_threshold_plus20": round(shifted[1], 4),
        "threshold": {
            "name": point.name,
            "parameter": point.parameter,
            "value": float(point.value),
            **({"edge": point.edge, "accept": parameters.accept} if parameters.decides else {}),
        },
        "min_lesion_volume_mm3": parameters.min_lesion_volume,
    }
    _, near_ml = place_lesions(lesions.labels, landmarks, spacing)
    measures |= _by_region(lesions.rows, lesions.places) | {"wmh_volume_ml_within_10mm": round(near_ml, 4)}
    percent = 100 * float((lesions.labels > 0).sum()) / max(1, int(tissue.mask.sum()))
    unstable = volume > 0 and shifted[0] > parameters.unstable_ratio * shifted[1]
    measures["unstable_volume"] = int(unstable)
    warnings = _warnings(percent, shifted if unstable else None, parameters)
    return Segmentation(lesions, rejected, probability, measures, warnings)


def _judge(
    anomaly: NDArray[np.float32],
    mask: NDArray[np.bool_],
    point: OperatingPoint,
    around: Surroundings | None,
    affine: NDArray[np.float64],
    parameters: DetectionParameters,
) -> _Judged:
    """Label the candidates at an operating point, largest first, and give each its probability."""
    above = point.apply(anomaly, mask)
    if around is None:
        labels = label_lesions(above, affine, parameters.min_lesion_volume)
        return _Judged(labels, [], np.ones(labels.max(initial=0)), [])
    inside = above & around.filled
    # tissue beside a ventricle is judged without what lies in it
    labels = label_lesions(above & ~inside, affine, parameters.min_lesion_volume)
    hidden = label_lesions(inside, affine, parameters.min_lesion_volume)
    candidates = describe_candidates(labels, anomaly, point.value, around, voxel_sizes(affine))
    decision = LesionDecision()
    first = len(candidates)
    labels = np.where(hidden > 0, hidden + first, labels).astype(np.int32)
    candidates += describe_candidates(hidden, anomaly, point.value, around, voxel_sizes(affine))
    probabilities = np.array([decision.probability(candidate) for candidate in candidates])
    probabilities[first:] = 0.0
    reasons = [decision.reason(candidate) for candidate in candidates[:first]]
    return _Judged(labels, candidates, probabilities, reasons + [IN_VENTRICLES] * (len(candidates) - first))


def _regions(
    judged: _Judged,
    chosen: NDArray[np.bool_],
    anomaly: NDArray[np.float32],
    landmarks: NDArray[np.integer[Any]],
    affine: NDArray[np.float64],
) -> Lesions:
    """Measure and place a choice of the candidates."""
    labels, places_of = judged.some(chosen)
    rows = lesion_table(labels, anomaly, affine)
    places, _ = place_lesions(labels, landmarks, voxel_sizes(affine))
    known = places_of if judged.candidates else ()
    return Lesions(
        labels,
        tuple(rows),
        tuple(places),
        tuple(judged.candidates[k] for k in known),
        tuple(float(judged.probabilities[k]) for k in known),
        tuple(judged.reasons[k] for k in known),
    )


def _probability(
    anomaly: NDArray[np.float32],
    mask: NDArray[np.bool_],
    point: OperatingPoint,
    judged: _Judged,
    parameters: DetectionParameters,
) -> NDArray[np.float32]:
    """Probability of each voxel, given a lesion there, times the probability that its candidate is one."""
    voxels = calibrated_probability(anomaly, point.levels(anomaly, mask), parameters.steepness)
    # the fainter voxels around a candidate share its fate
    nearest = ndimage.maximum_filter(judged.labels, 3)
    nearest = np.where(judged.labels > 0, judged.labels, nearest)
    of_candidate = np.append(1.0, judged.probabilities)[nearest]
    return np.where(mask, voxels * of_candidate, 0).astype(np.float32)


def _volume_at(
    share: float,
    anomaly: NDArray[np.float32],
    mask: NDArray[np.bool_],
    point: OperatingPoint,
    around: Surroundings | None,
    affine: NDArray[np.float64],
    parameters: DetectionParameters,
) -> float:
    """Lesion volume with all levels higher by a share, mL."""
    judged = _judge(anomaly, mask, point.moved(share), around, affine, parameters)
    return total_volume_ml(judged.some(judged.probabilities >= parameters.accept)[0], affine)


def _warnings(
    percent: float, unstable: Sequence[float] | None, parameters: DetectionParameters
) -> tuple[SessionWarning, ...]:
    """Warn of a high load, and of a volume that hangs on the threshold (at 0.8 and 1.2 times it, mL)."""
    warnings = []
    if percent > parameters.high_load_percent:
        warnings.append(HIGH_LOAD.format(percent=percent))
    if unstable is not None:
        warnings.append(UNSTABLE_VOLUME.format(high=unstable[0], low=unstable[1]))
    return tuple(warnings)


def _by_region(lesions: Sequence[Lesion], places: Sequence[LesionPlace]) -> dict[str, float]:
    """Volume and number of the lesions of each region, by the names of the summary's keys."""
    measures: dict[str, float] = {}
    for region in REGIONS:
        inside = [lesion for lesion, place in zip(lesions, places, strict=True) if place.region == region]
        measures[f"wmh_volume_ml_{region}"] = round(sum(lesion.volume_mm3 for lesion in inside) / 1000, 4)
        measures[f"lesion_count_{region}"] = len(inside)
    return measures
