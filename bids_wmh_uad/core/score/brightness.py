"""How bright FLAIR is against what is usual in this scan: the default score before any network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_wmh_uad.core.image.intensity import smooth_inside
from bids_wmh_uad.core.image.morphology import and_across_faces
from bids_wmh_uad.core.image.noise import noise_sd
from bids_wmh_uad.core.image.volume import bounding_box
from bids_wmh_uad.core.lesion.threshold import tail_point
from bids_wmh_uad.core.parallel import parallel_map
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.core.score.expected import expected_flair, rim_weight, tissue_weight

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_wmh_uad.core.score.scan import Scan


@dataclass(frozen=True, eq=False)
class Brightness:
    """How bright FLAIR is, before any network.

    Attributes
    ----------
    flair : (X, Y, Z) float32 array
        Smoothed z-score against white matter.
    score : (X, Y, Z) float32 array
        B of `anomaly.anomaly_map`: geometric mean of how far FLAIR is above white matter and above what is expected,
        the brain's rim and grey matter weighing less; 0 where it is not above both.
    upper : (X, Y, Z) float32 array
        Upper bound of usual FLAIR, z (`expected.ExpectedFlair.upper`).
    sigma_mm : float
        How far FLAIR was smoothed, mm (`smoothing_mm`).
    """

    flair: NDArray[np.float32]
    score: NDArray[np.float32]
    upper: NDArray[np.float32]
    sigma_mm: float


def smoothing_mm(scan: Scan, params: DetectionParameters) -> float:
    """Gaussian standard deviation that leaves `noise` of FLAIR's noise.

    White noise of standard deviation s falls to ``s / (2 sqrt(pi) sigma)`` within a slice. Never less
    than `sigma_mm`, never more than `sigma_max_mm`.

    Returns
    -------
    float, mm
    """
    noise = noise_sd(scan.flair_z, scan.mask, order=2, axes=(0, 1))
    noise = 0.0 if math.isnan(noise) else noise  # the mask has no inside
    in_plane = scan.zooms[0] * noise / (2 * math.sqrt(math.pi) * params.noise)
    return min(max(in_plane, params.sigma_mm), max(params.sigma_max_mm, params.sigma_mm))


def brightness_maps(scan: Scan, params: DetectionParameters) -> Brightness:
    """How bright FLAIR is, and how bright it may usually be.

    What is usual is learnt twice: the second time without what the first one calls lesions at the default
    `tail` (a user's threshold does not change the score), and the voxels around them (`first_margin`).

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`, when the brain or its grey matter is empty.
    """
    box = bounding_box(scan.mask)
    parts = _brightness(scan.inside(box), params)

    def whole(part: NDArray[np.float32]) -> NDArray[np.float32]:
        volume = np.zeros(scan.mask.shape, dtype=np.float32)
        volume[box] = part
        return volume

    return Brightness(whole(parts.flair), whole(parts.score), whole(parts.upper), parts.sigma_mm)


def _brightness(scan: Scan, params: DetectionParameters) -> Brightness:
    """The same of a scan that ends where the brain does: half of a field of view is air."""
    sigma_mm = smoothing_mm(scan, params)

    def smooth(contrast: NDArray[Any]) -> NDArray[np.float32]:
        return smooth_inside(contrast.astype(np.float32, copy=False), scan.mask, scan.zooms, sigma_mm)

    pieces = (partial(smooth, scan.flair_z), partial(smooth, scan.t1w_z), partial(_weight, scan, params))
    flair, t1w, weight = parallel_map(lambda make: make(), pieces)

    def against(reference: NDArray[np.bool_]) -> Brightness:
        expected = expected_flair(flair, t1w, scan.mask, scan.zooms, params, reference=reference)
        even = flair - expected.local
        above = np.maximum(even, 0) * np.maximum((even - expected.level) / expected.spread, 0)
        score = np.asarray(weight * np.sqrt(above), dtype=np.float32)
        return Brightness(flair, score, expected.upper(params.upper_spreads), sigma_mm)

    first = against(scan.mask)
    point = tail_point(first.score, scan.mask, scan.grey_matter, DetectionParameters.tail, edge=0.0)
    lesions = point.apply(first.score, scan.mask)
    rest = scan.mask & ~and_across_faces(lesions, params.first_margin)
    return against(rest) if rest.any() else first


def _weight(scan: Scan, params: DetectionParameters) -> NDArray[np.float32]:
    """What a voxel counts: less at the brain's rim and in grey matter; 0 outside the brain."""
    weight = scan.mask * rim_weight(scan.mask, scan.zooms, params)
    if scan.grey_matter is not None:
        weight *= tissue_weight(scan.grey_matter, scan.mask, scan.zooms, params)
    return weight
