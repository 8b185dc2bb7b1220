"""Robust intensity normalisation against white matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from bids_wmh_uad.core.image.robust import MAD_TO_SD, half_sample_mode
from bids_wmh_uad.errors import EMPTY_IMAGE, TOO_FEW_VOXELS, BadDataError, BadImageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

MINIMUM_VOXELS = 1000
"""Smallest number of reference voxels that can carry a mode (a litre of brain has 10^5 to 10^6)."""


@dataclass(frozen=True)
class Scaling:
    """What turns intensities into z-scores: ``z = (intensity - mode) / scale``.

    Parameters
    ----------
    mode : float
        Mode of the reference tissue, in image units.
    scale : float
        1.4826 x median absolute deviation about the mode, image units, > 0.
    """

    mode: float
    scale: float

    def apply(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Robust z-score of a whole field of view.

        Parameters
        ----------
        image : (X, Y, Z) array
            In the units of `mode`; where it is not finite, neither is z.

        Returns
        -------
        (X, Y, Z) float32 array
        """
        return ((image - self.mode) / self.scale).astype(np.float32)


def fit_scaling(image: NDArray[Any], reference: NDArray[np.bool_], *, name: str = "image") -> Scaling:
    """Estimate the scaling of an image from its reference tissue: mode, and 1.4826 MAD about it.

    Lesions inside the reference move neither as long as they are a minority.

    Parameters
    ----------
    image : (X, Y, Z) array
        Intensities; NaN and infinities are ignored.
    reference : (X, Y, Z) bool array
        White matter, from a registered prior.
    name : str
        What to call the image in messages.

    Returns
    -------
    Scaling

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`: fewer than `MINIMUM_VOXELS` finite reference voxels.
    BadImageError
        `errors.EMPTY_IMAGE`: the reference voxels all have one value.
    """
    values = image[reference & np.isfinite(image)].astype(np.float64)
    if values.size < MINIMUM_VOXELS:
        raise BadDataError(TOO_FEW_VOXELS.format(what=name, n=values.size, needed=MINIMUM_VOXELS))
    mode = half_sample_mode(values)
    deviation = np.abs(values - mode)
    scale = MAD_TO_SD * float(np.median(deviation))
    if scale <= 0.0:  # more than half of the voxels share one value
        scale = float(deviation.mean())
    if not scale > 1e-12 * max(1.0, abs(mode)):
        raise BadImageError(EMPTY_IMAGE.format(path=name, value=mode))
    return Scaling(mode, scale)


def smooth_inside(
    values: NDArray[np.float32], mask: NDArray[np.bool_], zooms: ArrayLike, sigma_mm: float
) -> NDArray[np.float32]:
    """Smooth within the mask.

    Normalised convolution ``G*(v m) / G*m`` (Knutsson and Westin, CVPR 1993), so that the brain's edge is not
    pulled towards the background. In millimetres: thick slices are not mixed.

    Parameters
    ----------
    values : (X, Y, Z) float32 array
    mask : (X, Y, Z) bool array
    zooms : three floats
        Voxel edges, mm.
    sigma_mm : float
        Gaussian standard deviation, mm.

    Returns
    -------
    (X, Y, Z) float32 array, 0 outside the mask.
    """
    return smooth_each_inside([values], mask, zooms, sigma_mm)[0]


def smooth_each_inside(
    images: Iterable[NDArray[np.float32]], mask: NDArray[np.bool_], zooms: ArrayLike, sigma_mm: float
) -> list[NDArray[np.float32]]:
    """Smooth several images within one mask: as `smooth_inside`, with one look at the mask.

    Parameters
    ----------
    images : iterable of (X, Y, Z) float32 arrays
    mask, zooms, sigma_mm
        As there.

    Returns
    -------
    list of (X, Y, Z) float32 arrays
    """
    inside = mask.astype(np.float32)
    sigma = sigma_mm / np.asarray(zooms, dtype=float)
    weight = ndimage.gaussian_filter(inside, sigma, mode="constant")
    known = mask.astype(bool) & (weight > 0)
    out = []
    for image in images:
        numerator = ndimage.gaussian_filter(image * inside, sigma, mode="constant")
        out.append(np.divide(numerator, weight, out=np.zeros(image.shape, np.float32), where=known))
    return out
