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
"""Reach of periventricular lesions from the ventricle above which grade 2, and at which grade 3 begins, mm."""
DEEP_MM = (10.0, 20.0)
"""Largest diameter of deep lesions in an axial slice at which grades 2 and 3 begin, mm."""
DIRECTIONS = 36
"""Directions in which a diameter is looked for: the largest is found to 0.1 %."""


def fazekas_estimate(
    labels: NDArray[np.int32],
    regions: Sequence[str],
    landmarks: NDArray[np.integer[Any]],
    affine: NDArray[np.float64],
) -> dict[str, int | None]:
    """Grade lesions from 0 to 3, periventricular and deep, by lengths that other scales give.

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
    * P. Scheltens et al., "A semiquantitative rating scale for the assessment of signal hyperintensities on magnetic
      resonance imaging", J Neurol Sci 114 (1993) 7-12: 5 and 10 mm of periventricular caps and bands.
    * L. Pantoni et al., "Impact of age-related cerebral white matter changes on the transition to disability: the
      LADIS study", Neuroepidemiology 24 (2005) 51-62: 10 and 20 mm of deep lesions.
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
        "fazekas_periventricular_estimate": _periventricular(reach) if known else None,
        "fazekas_deep_estimate": _deep(_largest_diameter(voxels, member[deep], affine)),
    }


def _periventricular(reach_mm: float) -> int:
    """The grade of a reach; a negative one stands for no lesion."""
    halo, irregular = PERIVENTRICULAR_MM
    return 0 if reach_mm < 0 else 1 + (reach_mm > halo) + (reach_mm >= irregular)


def _deep(diameter_mm: float) -> int:
    """The grade of a diameter; a negative one stands for no lesion."""
    return 0 if diameter_mm < 0 else 1 + sum(diameter_mm >= limit for limit in DEEP_MM)


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
