"""Where lesions lie: periventricular, deep, juxtacortical or infratentorial, by stated rules.

Ventricles and cortex are found in the scan itself, near where an affinely registered atlas has them:
an affine is some millimetres off, and atrophy moves ventricles further.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from bids_wmh_uad.errors import TOO_FEW_VOXELS, BadDataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Spacing: TypeAlias = "Sequence[float] | NDArray[np.float64]"
VENTRICLES, INFRATENTORIAL, CORTEX = 1, 2, 3
"""Labels of a map of regions; 0 is everything else."""
REGIONS = ("periventricular", "deep", "juxtacortical", "infratentorial")

CONTIGUOUS_MM = 3.0
"""A lesion that comes this near to a ventricle is periventricular, whole (continuity rule). The 3 mm
bridge the ventricle's lining and partial volume (the juxtaventricular zone of Kim et al. 2008)."""
JUXTACORTICAL_MM = 2.0
"""A lesion that comes this near to cortex, and is not periventricular, is juxtacortical."""
DISTANCE_RULE_MM = 10.0
"""A voxel this near to a ventricle is periventricular (distance rule)."""
SEARCH_MM = 12.0
"""How far from the atlas's ventricles the scan's own may reach."""
SMALLEST_VENTRICLES_ML = 2.0
"""Less than this was not found: the smallest lateral ventricles of young adults hold more."""
VENTRICLE_RIM_MM = 5.0
CORTEX_PRIOR = 0.3
SMALLEST_CORTEX_MM3 = 200.0


@dataclass(frozen=True)
class Tissue:
    """One session on one grid.

    Parameters
    ----------
    flair_z, t1w_z : (X, Y, Z) array
        Robust z-scores against white matter.
    mask : (X, Y, Z) bool array
        Brain.
    grey : (X, Y, Z) array
        Prior of grey matter in [0, 1], from an affinely registered template.
    """

    flair_z: NDArray[np.float32]
    t1w_z: NDArray[np.float32]
    mask: NDArray[np.bool_]
    grey: NDArray[np.float32]

    def levels(self) -> tuple[float, float, float]:
        """Fluid's highest FLAIR z, its highest T1w z, and the T1w z between grey and white matter.

        Halfway between the darkest two hundredths of the brain, which are fluid, and white matter (FLAIR) or
        grey matter (T1w). White matter is at 0.

        Raises
        ------
        BadDataError
            `errors.TOO_FEW_VOXELS`, when no grey matter lies in the brain.
        """
        likely = self.mask & (self.grey > 0.7)
        if not likely.any():
            raise BadDataError(TOO_FEW_VOXELS.format(what="grey matter", n=0, needed=1))
        grey = min(float(np.median(self.t1w_z[likely])), 0.0)
        dark = [float(np.percentile(z[self.mask], 0.5)) for z in (self.flair_z, self.t1w_z)]
        return dark[0] / 2, (dark[1] + grey) / 2, grey / 2


def find_ventricles(
    tissue: Tissue, atlas: NDArray[np.bool_], spacing: Spacing
) -> tuple[NDArray[np.bool_], bool]:
    """Find the lateral and third ventricles: dark on FLAIR and T1w, joined to the atlas's, and near them.

    Parameters
    ----------
    tissue : Tissue
    atlas : (X, Y, Z) bool array
        The atlas's ventricles on the scan's grid.
    spacing : three floats
        Voxel sizes, mm.

    Returns
    -------
    ventricles : (X, Y, Z) bool array
        The atlas's, where less than 2 mL was found.
    found : bool
        Whether they are the scan's own.
    """
    darkest_flair, darkest_t1w, _ = tissue.levels()
    fluid = tissue.mask & (tissue.flair_z < darkest_flair) & (tissue.t1w_z < darkest_t1w)
    fluid[fluid] = distances(fluid, atlas, spacing, SEARCH_MM) <= SEARCH_MM
    labels, count = ndimage.label(fluid)
    inside = np.bincount(labels[atlas], minlength=count + 1)
    inside[0] = 0
    voxel_ml = float(np.prod(spacing)) / 1000
    # a part that only brushes the atlas's ventricles is a fissure
    kept = inside * voxel_ml >= 0.1
    ventricles: NDArray[np.bool_] = kept[labels]
    if np.count_nonzero(ventricles) * voxel_ml < SMALLEST_VENTRICLES_ML:
        return atlas & tissue.mask, False
    return ventricles, True


def find_cortex(
    tissue: Tissue, excluded: NDArray[np.bool_], ventricles: NDArray[np.bool_], spacing: Spacing
) -> NDArray[np.bool_]:
    """Find the cortex: grey on T1w where the atlas has at least some grey matter, not at the ventricles.

    Parameters
    ----------
    tissue : Tissue
    excluded : (X, Y, Z) bool array
        Deep nuclei, cerebellum and brainstem, from the atlas.
    ventricles : (X, Y, Z) bool array
        Their rim, half fluid and half white matter, is grey too.
    spacing : three floats
        Voxel sizes, mm.
    """
    _, darkest, brightest = tissue.levels()
    grey = tissue.mask & (tissue.t1w_z > darkest) & (tissue.t1w_z < brightest)
    grey &= (tissue.grey > CORTEX_PRIOR) & ~excluded
    grey[grey] = distances(grey, ventricles, spacing, VENTRICLE_RIM_MM) > VENTRICLE_RIM_MM
    labels, _ = ndimage.label(grey)
    sizes = np.bincount(labels.ravel()) * float(np.prod(spacing))
    sizes[0] = 0
    cortex: NDArray[np.bool_] = (sizes >= SMALLEST_CORTEX_MM3)[labels]
    return cortex


def distances(
    points: NDArray[np.bool_], targets: NDArray[np.bool_], spacing: Spacing, bound: float = np.inf
) -> NDArray[np.float64]:
    """Distance from each voxel of one mask to the nearest voxel of another, between centres.

    A k-d tree: with few points it is much quicker than a distance transform of the whole volume.

    Parameters
    ----------
    points, targets : (X, Y, Z) bool array
    spacing : three floats
        Voxel sizes, mm.
    bound : float
        Farther ones need not be told apart, mm.

    Returns
    -------
    (n,) float64 array, mm
        In the order of ``np.nonzero(points)``; infinite beyond `bound`, or without targets.
    """
    scale = np.asarray(spacing, dtype=np.float64)
    # the nearest voxel of a mask is one of its rim, or the point itself
    rim = targets & ~ndimage.binary_erosion(targets)
    where = np.argwhere(points) * scale
    found = np.full(len(where), np.inf)
    if rim.any() and len(where):
        tree = cKDTree(np.argwhere(rim) * scale)
        found = np.asarray(tree.query(where, distance_upper_bound=bound * (1 + 1e-9))[0])
    found[targets[points]] = 0.0
    return found


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
    labels: NDArray[np.int32], regions: NDArray[np.integer], spacing: Spacing
) -> tuple[list[LesionPlace], float]:
    """Name each lesion's region, and measure what lies within 10 mm of the ventricles.

    The first of these that holds: more than half of the lesion is *infratentorial* (atlas); it comes within
    3 mm of a ventricle, *periventricular*; within 2 mm of cortex, *juxtacortical*; else *deep*.

    Parameters
    ----------
    labels : (X, Y, Z) int32 array
        Lesions 1..n.
    regions : (X, Y, Z) integer array
        `VENTRICLES`, `INFRATENTORIAL`, `CORTEX`.
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
    ventricle = distances(labels > 0, regions == VENTRICLES, spacing)
    to_cortex = distances(labels > 0, (regions == CORTEX) & (labels == 0), spacing)
    below = regions[inside] == INFRATENTORIAL
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
