"""Candidates for lesions, and what is known of each: how bright it is, how large, what surrounds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from bids_wmh_uad.core.image.morphology import and_across_faces, fill_slices
from bids_wmh_uad.core.image.volume import Orientation, bounding_box, voxel_sizes
from bids_wmh_uad.core.lesion.landmarks import Landmark

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_wmh_uad.core.lesion.landmarks import Spacing, Tissue

RIM_MM = 2.0
"""Depth of the rim that tells what surrounds a candidate, mm: beyond partial volume, within the same tissue."""
BETWEEN_MM = 12.0
"""Widest gap from ventricle to ventricle across the midline, mm: septum and fornix lie in it."""
TOP_VOXELS = 8
"""Voxels of a candidate whose latents are asked: the brightest, at whose patches' centres the lesion is."""
CLOSING_MM = 3.0
"""Half of the widest gap in the ventricles' fluid that is filled, mm: choroid plexus, septum and fornix lie in it."""
WALL_FLUID = 0.5
"""Share of fluid in a voxel of the ventricles' walls: anything from none to all of it, as the wall goes through."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What may surround a candidate.

    Attributes
    ----------
    filled : (X, Y, Z) bool array
        The ventricles with all that lies inside them (`fill_ventricles`).
    fluid : (X, Y, Z) float32 array
        Share of fluid, in [0, 1]: 1 in fluid anywhere, in the filled ventricles, and outside the brain; `WALL_FLUID` in their walls.
    white : (X, Y, Z) bool array
        White matter: brighter on T1w than halfway between grey and white matter.
    between : (X, Y, Z) bool array
        What has ventricles on its left and on its right, less than `BETWEEN_MM` apart: septum, fornix, and what lies
        under the corpus callosum.
    flair : (X, Y, Z) float32 array
        FLAIR z; NaN outside the brain.
    """

    filled: NDArray[np.bool_]
    fluid: NDArray[np.float32]
    white: NDArray[np.bool_]
    between: NDArray[np.bool_]
    flair: NDArray[np.float32]

    @classmethod
    def of(cls, tissue: Tissue, landmarks: NDArray[np.integer], affine: NDArray[np.float64]) -> Surroundings:
        """Find fluid and white matter of a scan.

        Parameters
        ----------
        tissue : Tissue
        landmarks : (X, Y, Z) integer array
            From `landmarks.map_landmarks`.
        affine : (4, 4) array
            Voxel to world, mm: the axis closest to left and right is the one across the midline.

        Raises
        ------
        BadDataError
            `errors.TOO_FEW_VOXELS`, when no grey matter lies in the brain.
        """
        _, darkest, white = tissue.levels()
        spacing, ventricles = voxel_sizes(affine), landmarks == Landmark.VENTRICLES
        filled = fill_ventricles(ventricles, spacing)
        bright = tissue.mask & (tissue.t1w_z > white) & ~filled
        whole = filled | ~tissue.mask | (tissue.t1w_z < darkest) & (tissue.flair_z < 0)
        fluid = np.where(
            find_walls(filled, bright) & ~whole, np.float32(WALL_FLUID), whole.astype(np.float32)
        )
        across = Orientation.from_affine(affine).axes[0]
        between = _between(ventricles, across, spacing[across])
        flair = np.where(tissue.mask, tissue.flair_z, np.float32(np.nan))
        return cls(filled, fluid, bright, between, flair)


def find_walls(filled: NDArray[np.bool_], white: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find the ventricles' walls: what shares a face with them and is not white matter.

    Such a voxel holds fluid and tissue at once. How much of it is fluid cannot be told from its brightness: dark fluid and a bright
    lining, plexus or lesion make the grey of tissue.

    Parameters
    ----------
    filled : (X, Y, Z) bool array
        The filled ventricles.
    white : (X, Y, Z) bool array
        White matter outside of them.

    Returns
    -------
    (X, Y, Z) bool array
    """
    walls: NDArray[np.bool_] = and_across_faces(filled) & ~filled & ~white
    return walls


def _between(ventricles: NDArray[np.bool_], axis: int, spacing: float) -> NDArray[np.bool_]:
    """What has ventricles on both sides along an axis, with at most `BETWEEN_MM` from one to the other."""
    gap = max(1, round(BETWEEN_MM / spacing))
    line = np.ones([gap + 1 if other == axis else 1 for other in range(3)])
    margin = [(gap + 1, gap + 1) if other == axis else (0, 0) for other in range(3)]
    between, box = ventricles.copy(), bounding_box(ventricles)
    closed = ndimage.binary_closing(np.pad(ventricles[box], margin), line)
    between[box] = closed[tuple(slice(low, -high if high else None) for low, high in margin)]
    return between


def fill_ventricles(ventricles: NDArray[np.bool_], spacing: Spacing) -> NDArray[np.bool_]:
    """Fill what lies inside the ventricles: choroid plexus, septum, fornix.

    Gaps of up to twice `CLOSING_MM` are closed (a morphological closing by a ball), then whatever is enclosed in any axial,
    coronal or sagittal slice is filled. Tissue that only adjoins a ventricle stays out.

    Parameters
    ----------
    ventricles : (X, Y, Z) bool array
    spacing : three floats
        Voxel sizes, mm.

    Returns
    -------
    (X, Y, Z) bool array
    """
    filled = ventricles.copy()
    if not ventricles.any():
        return filled
    sampling = np.asarray(spacing, dtype=float)
    margin = np.ceil(2 * CLOSING_MM / sampling).astype(int) + 1
    box = bounding_box(ventricles)
    inner = np.pad(ventricles[box], [(m, m) for m in margin])
    grown = ndimage.distance_transform_edt(~inner, sampling=sampling) <= CLOSING_MM
    closed = inner | (ndimage.distance_transform_edt(grown, sampling=sampling) > CLOSING_MM)
    for axis in range(3):
        closed = fill_slices(closed, axis)
    filled[box] = closed[tuple(slice(m, -m) for m in margin)]
    return filled


@dataclass(frozen=True)
class Candidate:
    """What is known of one candidate.

    Parameters
    ----------
    peak : float
        Its highest anomaly score, in thresholds.
    volume_mm3 : float
    thickness_mm : float
        Twice the largest distance of its voxels' centres from its outside.
    white : float
        Share of white matter in its rim, in [0, 1].
    fluid : float
        Share of fluid, and of what lies outside the brain, in its rim, in [0, 1].
    between : float
        Share of it that has ventricles on both sides, in [0, 1].
    contrast : float
        Its mean FLAIR z, less that of the brain in its rim; 1 speaks neither for nor against a lesion.
    latent : float
        What the latents of its highest `TOP_VOXELS` scores say of being a lesion, log-odds; 0 without a network.
    """

    peak: float
    volume_mm3: float
    thickness_mm: float
    white: float
    fluid: float
    between: float = 0.0
    contrast: float = 1.0
    latent: float = 0.0


def describe_candidates(
    labels: NDArray[np.int32],
    anomaly: NDArray[np.floating],
    threshold: float,
    around: Surroundings,
    spacing: Spacing,
    evidence: NDArray[np.float32] | None = None,
) -> list[Candidate]:
    """Measure every candidate.

    Parameters
    ----------
    labels : (X, Y, Z) int32 array
        Candidates 1..n, each there.
    anomaly : (X, Y, Z) array
    threshold : float
        Of the candidates, in units of the anomaly map.
    around : Surroundings
    spacing : three floats
        Voxel sizes, mm.
    evidence : (X, Y, Z) float32 array, optional
        The network's, voxel by voxel (`score.latent.AnomalyMap`).

    Returns
    -------
    list of Candidate, in the order of the labels
    """
    sampling = np.asarray(spacing, dtype=float)
    margin = np.ceil(RIM_MM / sampling).astype(int) + 1
    found = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        near = tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in zip(box, margin, strict=True))
        own = labels[near] == label
        scores = anomaly[near][own]
        # with a threshold of 0 whatever has a score stands out
        peak = float(scores.max()) / threshold if threshold > 0 else np.inf
        top = np.argsort(-scores, kind="stable")[:TOP_VOXELS]
        latent = 0.0 if evidence is None else float(evidence[near][own][top].mean())
        found.append(Candidate(peak=peak, latent=latent, **_place(own, near, around, sampling)))
    return found


def _place(
    own: NDArray[np.bool_], near: tuple[slice, ...], around: Surroundings, sampling: NDArray[np.float64]
) -> dict[str, float]:
    """What a `Candidate` has by its shape and surroundings, by the names there."""
    outside = ndimage.distance_transform_edt(~own, sampling=sampling)
    rim = (outside > 0) & (outside <= RIM_MM * (1 + 1e-6))
    depth = ndimage.distance_transform_edt(np.pad(own, 1), sampling=sampling).max()
    flair = around.flair[near]
    return {
        "volume_mm3": float(own.sum() * sampling.prod()),
        "thickness_mm": 2 * float(depth),
        "white": _mean(around.white[near][rim]),
        "fluid": _mean(around.fluid[near][rim]),
        "between": _mean(around.between[near][own]),
        "contrast": _mean(flair[own]) - _mean(flair[rim & ~np.isnan(flair)]),
    }


def _mean(values: NDArray[Any]) -> float:
    """Mean; 0 of nothing, which is no share, and white matter's FLAIR."""
    return float(values.mean()) if values.size else 0.0
