"""Measures of a result mask against a reference mask: the WMH challenge's five, and recall by lesion size.

The rules are those of the challenge's evaluation script (Kuijf et al. 2019;
github.com/hjkuijf/wmhchallenge). Masks are (X, Y, Z) arrays on one grid, slices along the last axis;
anything that converts to bool. nan where a measure is undefined.

References
----------
* H. J. Kuijf et al., "Standardized assessment of automatic segmentation of white matter hyperintensities
  and results of the WMH segmentation challenge", IEEE Trans Med Imaging 38 (2019) 2556-2568.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree

from bids_wmh_uad.core.image.morphology import and_what_touches
from bids_wmh_uad.core.image.volume import bounding_box
from bids_wmh_uad.core.lesion.components import connected_components

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

SIZE_EDGES_ML = (0.0, 0.01, 0.05, 0.2, 1.0, 5.0, inf)
"""Edges of the bands of reference lesion volume, mL: about a factor of four each, over what is seen."""


@dataclass(frozen=True)
class LesionDetection:
    """Lesions of the reference that were detected, and detections that are lesions.

    Parameters
    ----------
    recall : float
        As `lesion_recall`.
    precision : float
        As `lesion_precision`.
    f1 : float
        As `lesion_f1`.
    """

    recall: float
    precision: float
    f1: float

    @classmethod
    def of(cls, lesions: Components, findings: Components) -> LesionDetection:
        """From the reference's lesions, touched by the result, and the result's, touched by the reference."""
        recall, precision = lesions.share_touched, findings.share_touched
        total = recall + precision
        return cls(recall, precision, 2.0 * precision * recall / total if total else 0.0)


@dataclass(frozen=True, eq=False)
class Components:
    """26-connected components of a mask, and which of them another mask touches.

    Attributes
    ----------
    labels : (X, Y, Z) int32 array
        0 = none, 1..n in the order of first occurrence.
    sizes : (n,) int64 array
        Voxels.
    touched : (n,) bool array
        Whether the other mask has at least one of them.
    """

    labels: NDArray[np.int32]
    sizes: NDArray[np.int64]
    touched: NDArray[np.bool_]

    @classmethod
    def of(cls, mask: NDArray[Any], other: NDArray[Any]) -> Components:
        """Find the components of a mask; both convert to bool, on one grid."""
        inside, touching = np.asarray(mask, dtype=bool), np.asarray(other, dtype=bool)
        labels, count = connected_components(inside)
        sizes = np.bincount(labels[inside], minlength=count + 1)[1:]
        touched = np.bincount(labels[inside & touching], minlength=count + 1)[1:] > 0
        return cls(labels, sizes, touched)

    @property
    def share_touched(self) -> float:
        """Share of the components that the other mask touches; 1 when there is none."""
        return float(self.touched.mean()) if self.touched.size else 1.0

    def by_volume(
        self, voxel_volume_ml: float, edges_ml: Sequence[float] = SIZE_EDGES_ML
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count those that are touched, and all, by volume, as `lesion_recall_by_size`."""
        # Half a part in a billion forgives the rounding of determinants, as in label_lesions.
        band = np.searchsorted(edges_ml, self.sizes * voxel_volume_ml * (1 + 5e-10), side="right") - 1
        bands = len(edges_ml) - 1
        counted = (band >= 0) & (band < bands)
        touched, total = (
            np.bincount(band[kept], minlength=bands) for kept in (counted & self.touched, counted)
        )
        return touched, total


def dice(result: NDArray[Any], reference: NDArray[Any]) -> float:
    """Dice overlap ``2 |A & B| / (|A| + |B|)``; 1 = identical, 0 = disjoint.

    Parameters
    ----------
    result, reference : arrays of the same shape
        Anything that converts to bool.

    Returns
    -------
    float; nan when both are empty.

    See Also
    --------
    core.evaluation.ranking.best_dice : The largest Dice over all thresholds of a score.

    Examples
    --------
    >>> from bids_wmh_uad.core.evaluation.overlap import dice
    >>> dice([1, 1, 0, 0], [1, 0, 0, 0])
    0.6666666666666666
    """
    a, b = np.asarray(result, dtype=bool), np.asarray(reference, dtype=bool)
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else float("nan")


def h95_mm(result: NDArray[Any], reference: NDArray[Any], zooms: ArrayLike) -> float:
    """The larger of the two directed 95th-percentile boundary distances; 0 = same boundary.

    ``max(P95 of d(a, B) over a in A, P95 of d(b, A) over b in B)``, A and B the boundary voxels of
    `in_plane_boundary`, d the distance between voxel centres.

    Parameters
    ----------
    result, reference : (X, Y, Z) arrays of the same shape
        Masks.
    zooms : three floats
        Voxel edges, mm.

    Returns
    -------
    float
        mm; nan when either boundary is empty, as it is for an empty mask.

    See Also
    --------
    boundary_distances : The distances themselves.

    Notes
    -----
    The challenge's definition. Others pool the two lists of distances before taking one percentile
    (MedPy's ``hd95``) or find boundaries in 3-D; their values differ.

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.evaluation.overlap import h95_mm
    >>> reference = np.zeros((9, 9, 1), dtype=bool)
    >>> reference[2:5, 2:5] = True
    >>> h95_mm(np.roll(reference, 2, axis=0), reference, (1.0, 1.0, 3.0))
    2.0
    """
    lists = boundary_distances(result, reference, zooms)
    return max(float(np.percentile(one, 95)) if one.size else float("nan") for one in lists)


def boundary_distances(
    result: NDArray[Any], reference: NDArray[Any], zooms: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance of each boundary voxel of one mask to the nearest of the other, in both directions.

    Parameters
    ----------
    result, reference, zooms
        As in `h95_mm`.

    Returns
    -------
    from_result, from_reference : 1-D float64 arrays
        mm, in C order of the boundary voxels; both empty when either boundary is.
    """
    size = np.asarray(zooms, dtype=np.float64)
    a, b = (np.argwhere(in_plane_boundary(mask)) * size for mask in (result, reference))
    if not (len(a) and len(b)):
        return np.empty(0), np.empty(0)
    return cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]


def in_plane_boundary(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """Voxels of a mask that its in-plane erosion takes away: those with one of 8 neighbours outside.

    Parameters
    ----------
    mask : (X, Y, Z) array
        Anything that converts to bool.

    Returns
    -------
    (X, Y, Z) bool array. The image's border does not erode, so a mask that fills a slice has no
    boundary there.

    Notes
    -----
    What ``image - BinaryErode(image, (1, 1, 0))`` of SimpleITK gives: its ball of radius 1 is the
    3 x 3 square, and beyond the border it sees foreground.
    """
    inside = np.asarray(mask, dtype=bool)
    boundary = np.zeros(inside.shape, dtype=bool)
    box = bounding_box(inside, margin=1)
    part = inside[box]
    boundary[box] = part & and_what_touches(~part, axes=(0, 1))
    return boundary


def avd_percent(result: NDArray[Any], reference: NDArray[Any]) -> float:
    """Absolute volume difference ``100 |V_reference - V_result| / V_reference``; 0 = same volume.

    Parameters
    ----------
    result, reference : arrays on one grid
        Masks.

    Returns
    -------
    float
        Percent of the reference's volume, at least 0 and without upper bound; nan when the reference is empty.

    Examples
    --------
    >>> from bids_wmh_uad.core.evaluation.overlap import avd_percent
    >>> avd_percent([1, 1, 1, 0], [1, 1, 0, 0])
    50.0
    """
    voxels, expected = int(np.count_nonzero(result)), int(np.count_nonzero(reference))
    return 100.0 * abs(expected - voxels) / expected if expected else float("nan")


def lesion_recall(result: NDArray[Any], reference: NDArray[Any]) -> float:
    """Share of reference lesions that the result touches in at least one voxel.

    Parameters
    ----------
    result, reference : (X, Y, Z) arrays of the same shape
        Masks; lesions are their 26-connected components, of any size.

    Returns
    -------
    float in [0, 1]; 1 when the reference has no lesion (the challenge's rule).

    See Also
    --------
    lesion_precision, lesion_f1 : The other direction, and both in one number.
    lesion_recall_by_size : Recall in bands of lesion volume.

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.evaluation.overlap import lesion_recall
    >>> reference = np.array([1, 1, 0, 0, 1, 0]).reshape(6, 1, 1)  # two lesions
    >>> lesion_recall(np.array([1, 0, 0, 0, 0, 0]).reshape(6, 1, 1), reference)
    0.5
    """
    return Components.of(reference, result).share_touched


def lesion_precision(result: NDArray[Any], reference: NDArray[Any]) -> float:
    """Share of detected lesions that touch the reference in at least one voxel.

    Parameters
    ----------
    result, reference : (X, Y, Z) arrays of the same shape
        As in `lesion_recall`.

    Returns
    -------
    float in [0, 1]; 1 when nothing was detected (the challenge's rule).

    See Also
    --------
    lesion_recall, lesion_f1 : The other direction, and both in one number.

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.evaluation.overlap import lesion_precision
    >>> result = np.array([1, 1, 0, 0, 1, 0]).reshape(6, 1, 1)  # two findings
    >>> lesion_precision(result, np.array([1, 0, 0, 0, 0, 0]).reshape(6, 1, 1))
    0.5
    """
    return Components.of(result, reference).share_touched


def lesion_f1(result: NDArray[Any], reference: NDArray[Any]) -> float:
    """Harmonic mean ``2 P R / (P + R)`` of lesion precision and recall.

    Parameters
    ----------
    result, reference : (X, Y, Z) arrays of the same shape
        As in `lesion_recall`.

    Returns
    -------
    float in [0, 1]; 0 when both are 0, 1 when both masks are empty.

    See Also
    --------
    lesion_detection : Recall, precision and F1 at once.

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.evaluation.overlap import lesion_f1
    >>> result = np.array([1, 1, 0, 0, 1, 0]).reshape(6, 1, 1)  # precision 1/2, recall 1
    >>> round(lesion_f1(result, np.array([1, 0, 0, 0, 0, 0]).reshape(6, 1, 1)), 4)
    0.6667
    """
    return lesion_detection(result, reference).f1


def lesion_detection(result: NDArray[Any], reference: NDArray[Any]) -> LesionDetection:
    """Recall, precision and F1 of lesions, each mask labelled once.

    Parameters
    ----------
    result, reference : (X, Y, Z) arrays of the same shape
        As in `lesion_recall`.

    Returns
    -------
    LesionDetection
    """
    return LesionDetection.of(Components.of(reference, result), Components.of(result, reference))


def lesion_recall_by_size(
    result: NDArray[Any],
    reference: NDArray[Any],
    voxel_volume_ml: float,
    edges_ml: Sequence[float] = SIZE_EDGES_ML,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count reference lesions, and those that the result touches, by lesion volume.

    Parameters
    ----------
    result, reference : (X, Y, Z) arrays of the same shape
        As in `lesion_recall`.
    voxel_volume_ml : float
        Volume of a voxel, mL.
    edges_ml : increasing floats
        Band i holds the lesions of ``edges[i] <= volume < edges[i + 1]``, mL; others are not counted.

    Returns
    -------
    detected, total : int64 arrays, one entry a band
        Zeros where there is no lesion: the recall of a band, ``detected / total``, is then undefined.

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.evaluation.overlap import lesion_recall_by_size
    >>> reference = np.array([1, 1, 0, 0, 1, 0]).reshape(6, 1, 1)  # lesions of 2 and of 1 voxel
    >>> result = np.array([1, 0, 0, 0, 0, 0]).reshape(6, 1, 1)
    >>> lesion_recall_by_size(result, reference, 0.01, edges_ml=(0.0, 0.015, 1.0))
    (array([0, 1]), array([1, 1]))
    """
    return Components.of(reference, result).by_volume(voxel_volume_ml, edges_ml)
