"""Where lesions lie: periventricular, deep, juxtacortical or infratentorial, by stated rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from bids_wmh_uad.core.lesion.landmarks import Landmark, Spacing, distances

if TYPE_CHECKING:
    from numpy.typing import NDArray


REGIONS = ("periventricular", "deep", "juxtacortical", "infratentorial")
"""Names of the regions, in the order of the summary."""

CONTIGUOUS_MM = 3.0
"""Largest distance of a periventricular lesion from a ventricle, mm, the lesion as a whole (continuity rule). The 3 mm
bridge the ventricle's lining and partial volume (the juxtaventricular zone of Kim et al. 2008)."""
JUXTACORTICAL_MM = 2.0
"""Largest distance of a juxtacortical lesion, one that is not periventricular, from cortex, mm."""
DISTANCE_RULE_MM = 10.0
"""Largest distance of a periventricular voxel from a ventricle, mm (distance rule)."""


@dataclass(frozen=True)
class LesionPlace:
    """Where one lesion lies.

    Attributes
    ----------
    region : str
        One of `REGIONS`.
    ventricle_distance_mm : float
        Of its nearest voxel; infinite where there are no ventricles.
    """

    region: str
    ventricle_distance_mm: float


def place_lesions(
    labels: NDArray[np.int32], landmarks: NDArray[np.integer], spacing: Spacing
) -> tuple[list[LesionPlace], float]:
    """Name each lesion's region, and measure what lies within 10 mm of the ventricles.

    The first of these that holds: more than half of the lesion is *infratentorial* (atlas); it comes within
    3 mm of a ventricle, *periventricular*; within 2 mm of cortex, *juxtacortical*; else *deep*.

    Parameters
    ----------
    labels : (X, Y, Z) int32 array
        Lesions 1..n.
    landmarks : (X, Y, Z) integer array
        From `landmarks.map_landmarks`.
    spacing : three floats
        Voxel sizes, mm.

    Returns
    -------
    places : list of LesionPlace
        In the order of the labels.
    near_ml : float
        Volume of supratentorial lesion voxels within 10 mm of a ventricle, mL (DeCarli et al. 2005
        discuss such rules; the split is a convention).
    """
    inside = np.nonzero(labels)
    member = labels[inside]
    count = int(member.max()) if member.size else 0
    if count == 0:
        return [], 0.0
    rows = np.arange(1, count + 1)
    ventricle = distances(labels > 0, landmarks == Landmark.VENTRICLES, spacing)
    to_cortex = distances(labels > 0, (landmarks == Landmark.CORTEX) & (labels == 0), spacing)
    below = landmarks[inside] == Landmark.INFRATENTORIAL
    nearest, nearest_cortex = (ndimage.minimum(values, member, rows) for values in (ventricle, to_cortex))
    share = ndimage.mean(below.astype(float), member, rows)
    places = [
        LesionPlace(_region(part, float(first), float(second)), float(first))
        for part, first, second in zip(share, nearest, nearest_cortex, strict=True)
    ]
    near = int(np.count_nonzero((ventricle <= DISTANCE_RULE_MM) & ~below))
    return places, near * float(np.prod(spacing)) / 1000


def _region(infratentorial: float, ventricle_mm: float, cortex_mm: float) -> str:
    if infratentorial > 0.5:
        return "infratentorial"
    if ventricle_mm <= CONTIGUOUS_MM:
        return "periventricular"
    return "juxtacortical" if cortex_mm <= JUXTACORTICAL_MM else "deep"
