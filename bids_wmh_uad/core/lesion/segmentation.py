"""From an anomaly map to lesions and numbers: what the segment step computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_wmh_uad.core.image.volume import bounding_box, cut_affine, voxel_sizes
from bids_wmh_uad.core.lesion.candidates import Candidate, Surroundings, describe_candidates
from bids_wmh_uad.core.lesion.components import (
    Lesion,
    label_lesions,
    lesion_table,
    total_volume_ml,
    voxel_volume,
)
from bids_wmh_uad.core.lesion.decision import IN_VENTRICLES, LesionDecision
from bids_wmh_uad.core.lesion.fazekas import fazekas_estimate
from bids_wmh_uad.core.lesion.landmarks import Tissue
from bids_wmh_uad.core.lesion.lobes import lobes_of_lesions
from bids_wmh_uad.core.lesion.regions import REGIONS, LesionPlace, place_lesions
from bids_wmh_uad.core.lesion.threshold import OperatingPoint, calibrated_probability, operating_point
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.errors import HIGH_LOAD, UNSTABLE_VOLUME, SessionWarning

MASK_WARNINGS = frozenset({HIGH_LOAD.code, UNSTABLE_VOLUME.code})
"""Codes of the warnings that another threshold can bring or take away."""
RIM_VOXELS = 8
"""Voxels around the brain's box that are kept: more than a candidate's rim at the finest voxels."""
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
    lobes : tuple of str
        Of each; empty where no atlas of lobes was given.
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
    lobes: tuple[str, ...] = ()
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
    decision: LesionDecision

    def accepted(self, least: float) -> NDArray[np.bool_]:
        """Which are lesions: those of at least a probability, and none inside the ventricles (whose is 0)."""
        chosen: NDArray[np.bool_] = (self.probabilities >= least) & (self.probabilities > 0)
        return chosen

    def some(self, chosen: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Labels of a choice of the candidates, numbered from 1."""
        new = np.zeros(chosen.size + 1, np.int32)
        new[1:][chosen] = np.arange(1, chosen.sum() + 1)
        labels: NDArray[np.int32] = new[self.labels]
        return labels


@dataclass(frozen=True, eq=False)
class _Scene:
    """One session's map and all that candidates are judged by."""

    anomaly: NDArray[np.float32]
    tissue: Tissue
    affine: NDArray[np.float64]
    parameters: DetectionParameters
    around: Surroundings | None
    decision: LesionDecision
    evidence: NDArray[np.float32] | None

    def judge(self, point: OperatingPoint) -> _Judged:
        """Label the candidates at an operating point, largest first, and give each its probability."""
        above, smallest = point.apply(self.anomaly, self.tissue.mask), self.parameters.min_lesion_volume
        if self.around is None:
            labels = label_lesions(above, self.affine, smallest)
            return _Judged(labels, [], np.ones(labels.max(initial=0)), [], self.decision)
        # tissue beside a ventricle is judged without what lies in it
        inside = above & self.around.filled
        labels = label_lesions(above & ~inside, self.affine, smallest)
        free = int(labels.max(initial=0))
        hidden = label_lesions(inside, self.affine, smallest)
        labels = np.where(hidden > 0, hidden + free, labels).astype(np.int32)
        candidates = describe_candidates(
            labels, self.anomaly, point.value, self.around, voxel_sizes(self.affine), self.evidence
        )
        decision = self.decision.for_scan(candidates[:free], self.parameters.prior_candidates)
        probabilities = np.array([decision.probability(candidate) for candidate in candidates])
        probabilities[free:] = 0.0
        reasons = [self.decision.reason(candidate) for candidate in candidates[:free]]
        reasons += [IN_VENTRICLES] * (len(candidates) - free)
        return _Judged(labels, candidates, probabilities, reasons, decision)

    def volume_ml(self, point: OperatingPoint) -> float:
        """Volume of all lesions at an operating point, mL."""
        judged = self.judge(point)
        return total_volume_ml(judged.some(judged.accepted(self.parameters.accept)), self.affine)

    def probability(self, point: OperatingPoint, judged: _Judged) -> NDArray[np.float32]:
        """Probability of each voxel, given a lesion there, times the probability that its candidate is one."""
        mask, steepness = self.tissue.mask, self.parameters.steepness
        scored = mask & (self.anomaly != 0)  # what has no score is never a lesion, even at a threshold of 0
        voxels = calibrated_probability(self.anomaly, point.levels(self.anomaly, mask), steepness)
        if self.around is None:
            return np.where(scored, voxels, 0).astype(np.float32)
        inside = judged.labels > 0
        of_candidate = np.append(0.0, judged.probabilities)[judged.labels]
        # the fainter voxels around candidates share the fate of the likeliest; further away each is its own
        alone = judged.decision.probability_of_peak(np.maximum(self.anomaly, 1e-30) / max(point.value, 1e-30))
        near = np.where(ndimage.maximum_filter(inside, 3), ndimage.maximum_filter(of_candidate, 3), alone)
        chance = np.where(inside, of_candidate, near)
        # what reaches the threshold and belongs to none is a speck below the smallest lesion
        hidden = self.around.filled | (voxels >= 0.5) & ~inside
        return np.where(scored & ~hidden, voxels * chance, 0).astype(np.float32)


def segment(
    anomaly: NDArray[np.float32],
    tissue: Tissue,
    landmarks: NDArray[np.integer[Any]],
    affine: NDArray[np.float64],
    *,
    parameters: DetectionParameters,
    decision: LesionDecision | None = None,
    evidence: NDArray[np.float32] | None = None,
    lobes: NDArray[np.integer[Any]] | None = None,
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
    decision : LesionDecision, optional
        Its weights; those without a network when not given.
    evidence : ndarray, shape (X, Y, Z), optional
        The network's, from `score.latent.AnomalyMap`.
    lobes : ndarray of int, shape (X, Y, Z), optional
        From `lobes.lobes_of`; without it, nothing is said of lobes.

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`, from the threshold rule, or when no grey matter lies in the brain.
    """
    box = bounding_box(tissue.mask, margin=RIM_VOXELS)
    moved = cut_affine(affine, box)
    part = tissue.inside(box)
    around = Surroundings.of(part, landmarks[box], moved) if parameters.decides else None
    near_evidence = None if evidence is None else evidence[box]
    scene = _Scene(anomaly[box], part, moved, parameters, around, decision or LesionDecision(), near_evidence)
    found = _segment(scene, landmarks[box], None if lobes is None else lobes[box])

    def whole(inner: NDArray[Any]) -> NDArray[Any]:
        volume = np.zeros(anomaly.shape, dtype=inner.dtype)
        volume[box] = inner
        return volume

    return replace(
        found,
        lesions=replace(found.lesions, labels=whole(found.lesions.labels)),
        rejected=replace(found.rejected, labels=whole(found.rejected.labels)),
        probability=whole(found.probability),
    )


def _segment(
    scene: _Scene, landmarks: NDArray[np.integer[Any]], lobes: NDArray[np.integer[Any]] | None
) -> Segmentation:
    """The same of a scan that ends where the brain does: half of a field of view is air."""
    anomaly, tissue, affine, parameters = scene.anomaly, scene.tissue, scene.affine, scene.parameters
    point = operating_point(parameters, anomaly, tissue.mask, tissue.likely_grey)
    judged = scene.judge(point)
    accepted = judged.accepted(parameters.accept)
    (lesions, near), (rejected, _) = (
        _measure(judged, chosen, anomaly, landmarks, lobes, affine) for chosen in (accepted, ~accepted)
    )
    lesions = replace(lesions, reasons=("",) * len(lesions.reasons))
    probability = scene.probability(point, judged)
    lower, upper = (total_volume_ml(probability >= level, affine) for level in INTERVAL)
    shifted = [scene.volume_ml(point.moved(share)) for share in (-0.2, 0.2)]
    volume = total_volume_ml(lesions.labels, affine)
    unstable = shifted[0] > parameters.unstable_ratio * shifted[1]
    measures = {
        "wmh_volume_ml": round(volume, 4),
        "lesion_count": len(lesions.rows),
        "largest_lesion_ml": round(lesions.rows[0].volume_mm3 / 1000, 4) if lesions.rows else 0.0,
        "rejected_count": len(rejected.rows),
        "volume_ml_lower": round(min(lower, volume), 4),
        "volume_ml_upper": round(max(upper, volume), 4),
        "volume_ml_threshold_minus20": round(shifted[0], 4),
        "volume_ml_threshold_plus20": round(shifted[1], 4),
        "unstable_volume": int(unstable),
        "threshold": _about(point, parameters),
        "min_lesion_volume_mm3": parameters.min_lesion_volume,
        **_by_region(lesions.rows, lesions.places),
        **near,
        **fazekas_estimate(lesions.labels, [place.region for place in lesions.places], landmarks, affine),
    }
    percent = 100 * float((lesions.labels > 0).sum()) / max(1, int(tissue.mask.sum()))
    warnings = [HIGH_LOAD.format(percent=percent)] if percent > parameters.high_load_percent else []
    if unstable:
        warnings.append(UNSTABLE_VOLUME.format(high=shifted[0], low=shifted[1]))
    return Segmentation(lesions, rejected, probability, measures, tuple(warnings))


def _about(point: OperatingPoint, parameters: DetectionParameters) -> dict[str, Any]:
    """What the summary says of the operating point."""
    about = {"name": point.name, "parameter": point.parameter, "value": float(point.value)}
    return about | ({"edge": point.edge, "accept": parameters.accept} if parameters.decides else {})


def _measure(
    judged: _Judged,
    chosen: NDArray[np.bool_],
    anomaly: NDArray[np.float32],
    landmarks: NDArray[np.integer[Any]],
    lobes: NDArray[np.integer[Any]] | None,
    affine: NDArray[np.float64],
) -> tuple[Lesions, dict[str, float]]:
    """Measure and place a choice of the candidates; with the volumes near the ventricles and in each lobe, mL."""
    labels = judged.some(chosen)
    places, near_ml = place_lesions(labels, landmarks, voxel_sizes(affine))
    volumes = {"wmh_volume_ml_within_10mm": near_ml}
    names: list[str] = []
    if lobes is not None:
        names, voxels = lobes_of_lesions(labels, lobes)
        voxel_ml = voxel_volume(affine) / 1000
        volumes |= {f"wmh_volume_ml_{lobe}": count * voxel_ml for lobe, count in voxels.items()}
    known = np.flatnonzero(chosen) if judged.candidates else ()
    return Lesions(
        labels,
        tuple(lesion_table(labels, anomaly, affine)),
        tuple(places),
        tuple(names),
        tuple(judged.candidates[k] for k in known),
        tuple(float(judged.probabilities[k]) for k in known),
        tuple(judged.reasons[k] for k in known),
    ), {name: round(volume, 4) for name, volume in volumes.items()}


def _by_region(lesions: Sequence[Lesion], places: Sequence[LesionPlace]) -> dict[str, float]:
    """Volume and number of the lesions of each region, by the names of the summary's keys."""
    measures: dict[str, float] = {}
    for region in REGIONS:
        inside = [lesion for lesion, place in zip(lesions, places, strict=True) if place.region == region]
        measures[f"wmh_volume_ml_{region}"] = round(sum(lesion.volume_mm3 for lesion in inside) / 1000, 4)
        measures[f"lesion_count_{region}"] = len(inside)
    return measures
