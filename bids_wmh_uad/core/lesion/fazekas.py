"""An estimate of the Fazekas grades from a mask: lengths in millimetres in place of a rater's eye."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from bids_wmh_uad.core.image.volume import Orientation, voxel_sizes
from bids_wmh_uad.core.lesion.landmarks import Landmark, distances
from bids_wmh_uad.core.lesion.regions import DISTANCE_RULE_MM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PERIVENTRICULAR_MM = (5.0, 10.0)
"""Reach of periventricular lesions from the ventricle at which grades 2 and 3 begin, mm."""
DEEP_MM = (10.0, 25.0)
"""Largest diameter of deep lesions in an axial slice at which grades 2 and 3 begin, mm."""
DIRECTIONS = 36
"""Directions in which a diameter is looked for: the largest is found to 0.1 %."""


def fazekas_estimate(
    labels: NDArray[np.int32],
    regions: Sequence[str],
    landmarks: NDArray[np.integer[Any]],
    affine: NDArray[np.float64],
) -> dict[str, int | None]:
    """Grade lesions from 0 to 3, periventricular and deep, by the lengths of the modified Fazekas scale.

    Parameters
    ----------
    labels : (X, Y, Z) int32 array
        Lesions 1..n.
    regions : sequence of str
        Of each lesion, in `regions.REGIONS`.
    landmarks : (X, Y, Z) integer array
        From `landmarks.map_landmarks`.
    affine : (4, 4) array
        Voxel to world, mm.

    Returns
    -------
    dict
        ``fazekas_periventricular_estimate``: 0 without a periventricular lesion, else by how far they reach from the
        ventricle; None where there are no ventricles. ``fazekas_deep_estimate``: 0 without a deep lesion, else by
        the largest diameter in an axial slice. Deep are the deep and juxtacortical lesions, and what lies further than
        10 mm from the ventricles of a periventricular one.

    References
    ----------
    * F. Fazekas et al., "MR signal abnormalities at 1.5 T in Alzheimer's dementia and normal aging", AJR 149 (1987)
      351-356: the grades, in words.
    * Y. Noh et al., "A new classification system for ischemia using a combination of deep and periventricular white
      matter hyperintensities", J Stroke Cerebrovasc Dis 23 (2014) 636-642: their lengths.
    """
    spacing = voxel_sizes(affine)
    inside = np.nonzero(labels)
    member, above = labels[inside], landmarks[inside] != Landmark.INFRATENTORIAL
    from_ventricle = distances(labels > 0, landmarks == Landmark.VENTRICLES, spacing)
    own = np.array(["", *regions])[member]
    beside = above & (own == "periventricular")
    deep = above & (np.isin(own, ("deep", "juxtacortical")) | beside & (from_ventricle > DISTANCE_RULE_MM))
    voxels = np.stack(inside, axis=1)[deep]
    reach = float(from_ventricle[beside].max(initial=-1.0))
    known = bool((landmarks == Landmark.VENTRICLES).any())
    return {
        "fazekas_periventricular_estimate": _grade(reach, PERIVENTRICULAR_MM) if known else None,
        "fazekas_deep_estimate": _grade(_largest_diameter(voxels, member[deep], affine), DEEP_MM),
    }


def _grade(length_mm: float, limits: tuple[float, float]) -> int:
    """0 for a negative length, which stands for no lesion; else 1 to 3."""
    return 0 if length_mm < 0 else 1 + sum(length_mm >= limit for limit in limits)


def _largest_diameter(
    voxels: NDArray[np.integer[Any]], member: NDArray[np.int32], affine: NDArray[np.float64]
) -> float:
    """Largest diameter of a lesion's part in an axial slice, from edge to edge, mm; -1 without voxels."""
    if not len(voxels):
        return -1.0
    spacing = voxel_sizes(affine)
    axis = Orientation.from_affine(affine).axes[2]
    plane = [other for other in range(3) if other != axis]
    angles = np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    directions = np.stack([np.cos(angles), np.sin(angles)])
    along = (voxels[:, plane] * spacing[plane]) @ directions
    _, part = np.unique(np.stack([member, voxels[:, axis]], axis=1), axis=0, return_inverse=True)
    part = part.ravel()
    rows = np.arange(part.max() + 1)
    extents = [
        ndimage.maximum(values, part, rows) - ndimage.minimum(values, part, rows) for values in along.T
    ]
    voxel = spacing[plane] @ np.abs(directions)  # a voxel's own extent in each direction
    return float((np.array(extents).max(axis=1) + voxel).max())
