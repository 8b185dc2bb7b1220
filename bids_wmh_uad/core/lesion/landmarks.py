"""Ventricles, posterior fossa and cortex of a scan, by which lesions are placed.

Ventricles and cortex are found in the scan itself, near where an affinely registered atlas has them:
an affine is some millimetres off, and atrophy moves ventricles further.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from bids_wmh_uad.core.image.morphology import and_across_faces
from bids_wmh_uad.core.image.template import GM_LIKELY
from bids_wmh_uad.core.image.volume import bounding_box
from bids_wmh_uad.errors import TOO_FEW_VOXELS, BadDataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


Spacing: TypeAlias = "Sequence[float] | NDArray[np.float64]"


class Landmark(IntEnum):
    """Labels of the atlas and of a session's own map of landmarks; 0 is everything else."""

    VENTRICLES = 1
    """Lateral and third ventricles."""
    INFRATENTORIAL = 2
    """Cerebellum and brainstem."""
    CORTEX = 3
    """In a session's map only."""
    DEEP_GREY = 4
    """Basal nuclei and thalamus, in the atlas only."""


SEARCH_MM = 12.0
"""Largest distance of the scan's ventricles from the atlas's, mm."""

SMALLEST_VENTRICLES_ML = 2.0
"""Least volume of ventricles that were found, mL: the smallest lateral ventricles of young adults hold more."""

VENTRICLE_RIM_MM = 5.0
"""Depth of the ventricles' rim, mm: half fluid and half white matter, it is as grey on T1w as cortex."""

CORTEX_PRIOR = 0.3
"""Least prior of grey matter in cortex, in [0, 1]."""

SMALLEST_CORTEX_MM3 = 200.0
"""Volume of the smallest connected part of cortex, mm3: less is noise."""


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

    @property
    def likely_grey(self) -> NDArray[np.bool_]:
        """Where grey matter is more likely than not, (X, Y, Z) bool: in the template, not in this brain."""
        return self.grey > GM_LIKELY

    def inside(self, box: tuple[slice, ...]) -> Tissue:
        """The part inside a box; views."""
        return Tissue(self.flair_z[box], self.t1w_z[box], self.mask[box], self.grey[box])

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
    box = bounding_box(targets, margin=1)
    rim = targets[box] & and_across_faces(~targets[box])
    centres = np.argwhere(points) * scale
    nearest = np.full(len(centres), np.inf)
    if rim.any() and len(centres):
        # such a tree is built sooner, and the cortex's rim has hundreds of thousands of voxels
        places = np.argwhere(rim) + [side.start for side in box]
        tree = cKDTree(places * scale, balanced_tree=False, compact_nodes=False)
        nearest = np.asarray(tree.query(centres, distance_upper_bound=bound * (1 + 1e-9))[0])
    nearest[targets[points]] = 0.0
    return nearest


def map_landmarks(
    tissue: Tissue, atlas: Mapping[Landmark, NDArray[np.bool_]], spacing: Spacing
) -> tuple[NDArray[np.uint8], bool]:
    """Label ventricles, posterior fossa and cortex.

    Parameters
    ----------
    tissue : Tissue
    atlas : mapping of Landmark to (X, Y, Z) bool array
        Where the registered atlas has each.
    spacing : three floats
        Voxel sizes, mm.

    Returns
    -------
    labels : (X, Y, Z) uint8 array
        `Landmark`; 0 = none of them.
    found : bool
        Whether the ventricles are the scan's own.
    """
    below = atlas[Landmark.INFRATENTORIAL]
    ventricles, found = find_ventricles(tissue, atlas[Landmark.VENTRICLES], spacing)
    labels = np.zeros(tissue.mask.shape, dtype=np.uint8)
    cortex = find_cortex(tissue, below | atlas[Landmark.DEEP_GREY], ventricles, spacing)
    labels[cortex] = Landmark.CORTEX
    labels[tissue.mask & below] = Landmark.INFRATENTORIAL
    labels[ventricles & ~below] = Landmark.VENTRICLES
    return labels, found
