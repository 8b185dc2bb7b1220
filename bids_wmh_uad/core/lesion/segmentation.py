"""From an anomaly map to lesions and numbers: what the segment step computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.core.image.volume import voxel_sizes
from bids_wmh_uad.core.lesion.components import Lesion, label_lesions, lesion_table, total_volume_ml
from bids_wmh_uad.core.lesion.regions import REGIONS, LesionPlace, place_lesions
from bids_wmh_uad.core.lesion.threshold import calibrated_probability, operating_point
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.errors import HIGH_LOAD, SessionWarning

"""Warning about the share of the brain that was marked, percent."""

MASK_WARNINGS = frozenset({HIGH_LOAD.code})
"""Codes of the warnings that another threshold can bring or take away."""


@dataclass(frozen=True)
class Segmentation:
    """Lesions of one session.

    Attributes
    ----------
    labels : ndarray of int32, shape (X, Y, Z)
        0 = no lesion, 1 = the largest.
    probability : ndarray of float32, shape (X, Y, Z)
        In [0, 1], 0.5 at the threshold.
    lesions : tuple of Lesion
    places : tuple of LesionPlace
        Where each lies; empty without a map of regions.
    measures : dict
        What the summary says: volumes (mL), counts, the operating point.
    warnings : tuple of SessionWarning
        About this mask; their codes are among `MASK_WARNINGS`.
    """

    labels: NDArray[np.int32]
    probability: NDArray[np.float32]
    lesions: tuple[Lesion, ...]
    places: tuple[LesionPlace, ...]
    measures: dict[str, Any]
    warnings: tuple[SessionWarning, ...]


def segment(
    anomaly: NDArray[np.float32],
    mask: NDArray[np.bool_],
    grey_matter: NDArray[np.bool_],
    affine: NDArray[np.float64],
    *,
    parameters: DetectionParameters,
    regions: NDArray[np.integer[Any]] | None = None,
) -> Segmentation:
    """Threshold an anomaly map without labels and measure what is left.

    Parameters
    ----------
    anomaly : ndarray, shape (X, Y, Z)
    mask : ndarray of bool, shape (X, Y, Z)
        The brain.
    grey_matter : ndarray of bool, shape (X, Y, Z)
        Reference tissue of the threshold rule.
    affine : ndarray, shape (4, 4)
        Voxel to world, mm.
    parameters : DetectionParameters
        Threshold rule, smallest lesion, steepness of the probability, load that is warned of.
    regions : ndarray of int, shape (X, Y, Z), optional
        Ventricles, posterior fossa and cortex, from `landmarks.map_landmarks`.

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`, from the threshold rule.
    """
    point = operating_point(parameters, anomaly, mask, grey_matter)
    smallest = parameters.min_lesion_volume

    def label(shift: float) -> NDArray[np.int32]:
        return label_lesions(point.moved(shift).apply(anomaly, mask), affine, smallest)

    labels = label(0.0)
    lesions = lesion_table(labels, anomaly, affine)
    volume = total_volume_ml(labels, affine)
    percent = 100 * float((labels > 0).sum()) / max(1, int(mask.sum()))
    warnings = (HIGH_LOAD.format(percent=percent),) if percent > parameters.high_load_percent else ()
    measures = {
        "wmh_volume_ml": round(volume, 4),
        "lesion_count": len(lesions),
        "largest_lesion_ml": round(lesions[0].volume_mm3 / 1000, 4) if lesions else 0.0,
        "volume_ml_threshold_minus20": round(total_volume_ml(label(-0.2), affine), 4),
        "volume_ml_threshold_plus20": round(total_volume_ml(label(0.2), affine), 4),
        "threshold": {
            "name": point.name,
            "parameter": point.parameter,
            "value": float(point.value),
            **({"peak": float(point.peak), "edge": point.edge} if point.peak > -inf else {}),
        },
        "min_lesion_volume_mm3": smallest,
    }
    places: list[LesionPlace] = []
    if regions is not None:
        places, near_ml = place_lesions(labels, regions, voxel_sizes(affine))
        measures |= _by_region(lesions, places) | {"wmh_volume_ml_within_10mm": round(near_ml, 4)}
    probability = calibrated_probability(anomaly, point.levels(anomaly, mask), parameters.steepness)
    probability = np.where(mask, probability, 0).astype(np.float32)
    return Segmentation(labels, probability, tuple(lesions), tuple(places), measures, warnings)


def _by_region(lesions: Sequence[Lesion], places: Sequence[LesionPlace]) -> dict[str, float]:
    """Volume and number of the lesions of each region, by the names of the summary's keys."""
    measures: dict[str, float] = {}
    for region in REGIONS:
        inside = [lesion for lesion, place in zip(lesions, places, strict=True) if place.region == region]
        measures[f"wmh_volume_ml_{region}"] = round(sum(lesion.volume_mm3 for lesion in inside) / 1000, 4)
        measures[f"lesion_count_{region}"] = len(inside)
    return measures
