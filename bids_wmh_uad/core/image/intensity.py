"""Robust intensity normalisation against white matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_wmh_uad.errors import EMPTY_IMAGE, TOO_FEW_VOXELS, BadDataError, BadImageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


MINIMUM_VOXELS = 1000
"""Fewer usable reference voxels than this cannot carry a mode (a litre of brain has 10^5 to 10^6)."""

MAD_TO_SD = 1.482602218505602
"""Median absolute deviation of a normal variable to its standard deviation: 1 / Phi^-1(3/4)."""


@dataclass(frozen=True)
class Scaling:
    """What turned intensities into z-scores: ``z = (intensity - location) / scale``.

    Parameters
    ----------
    location : float
        Mode of the reference tissue, in image units.
    scale : float
        1.4826 x median absolute deviation about the mode, image units, > 0.
    n_voxels : int
        Reference voxels used.
    """

    location: float
    scale: float
    n_voxels: int


def half_sample_mode(values: NDArray[Any], max_rounds: int = 64) -> float:
    """Mode of a sample by repeatedly keeping its densest half.

    No bin width to choose, breakdown point 1/2 (Bickel and Fruehwirth, Comput
    Stat Data Anal 2006). Halving stops at about ``n ** 0.8`` values, whose median
    is returned: the classical rule goes down to two values and is then at
    the mercy of rounding in integer images.

    Parameters
    ----------
    values : (n,) array
        Finite values, n >= 1.
    max_rounds : int
        Upper bound on halvings.

    Returns
    -------
    float, in units of `values`.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64).ravel())
    stop = max(2, int(ordered.size**0.8))
    for _ in range(max_rounds):
        half = (ordered.size + 1) // 2
        if ordered.size <= stop:
            break
        widths = ordered[half - 1 :] - ordered[: ordered.size - half + 1]
        # The middle one of equally narrow halves: no drift to one side on ties.
        narrowest = np.flatnonzero(widths <= widths.min())
        start = int(narrowest[narrowest.size // 2])
        ordered = ordered[start : start + half]
    return float(np.median(ordered))


def robust_zscore(
    image: NDArray[Any],
    brain_mask: NDArray[np.bool_],
    reference_mask: NDArray[np.bool_] | None = None,
    *,
    name: str = "image",
) -> tuple[NDArray[np.float32], Scaling]:
    """Robust z-score against the white-matter mode.

    ``z = (I - mode) / (1.4826 median|I - mode|)``, mode and spread taken over the
    reference voxels (white matter, from a registered prior). Lesions inside the
    reference move neither as long as they are a minority.

    Parameters
    ----------
    image : (X, Y, Z) array
        Intensities; NaN and infinities are ignored and become 0 in z.
    brain_mask : (X, Y, Z) bool array
        Where z is wanted.
    reference_mask : (X, Y, Z) bool array, optional
        White matter; the whole brain when not given.
    name : str
        What to call the image in messages.

    Returns
    -------
    z : (X, Y, Z) float32 array
        0 outside the brain mask and where the image is not finite.
    scaling : Scaling
        Location and scale in image units.

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`: fewer than 1,000 finite reference voxels.
    BadImageError
        `errors.EMPTY_IMAGE`: the reference voxels all have one value.
    """
    finite = np.isfinite(image)
    brain = brain_mask.astype(bool) & finite
    reference = brain if reference_mask is None else brain & reference_mask.astype(bool)
    values = image[reference].astype(np.float64)
    if values.size < MINIMUM_VOXELS:
        raise BadDataError(TOO_FEW_VOXELS.format(what=name, n=values.size, needed=MINIMUM_VOXELS))
    location = half_sample_mode(values)
    deviation = np.abs(values - location)
    scale = MAD_TO_SD * float(np.median(deviation))
    if scale <= 0.0:  # more than half of the voxels share one value
        scale = float(deviation.mean())
    if not scale > 1e-12 * max(1.0, abs(location)):
        raise BadImageError(EMPTY_IMAGE.format(path=name, value=location))
    z = np.zeros(image.shape, dtype=np.float32)
    z[brain] = (image[brain].astype(np.float64) - location) / scale
    return z, Scaling(location, scale, int(values.size))


def noise_sd(z: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Estimate the noise of a scan from second differences within slices, blind to edges that few voxels have.

    Parameters
    ----------
    z : (X, Y, Z) float32 array
        Noise is taken to be white within slices.
    mask : (X, Y, Z) bool array
        Its first two axes span the slices; the outermost voxels are left out.

    Returns
    -------
    float, in units of `z`; 0 when the mask has no inside.

    Notes
    -----
    The difference operator is that of Immerkær, "Fast noise variance estimation", Comput Vis Image
    Underst 1996; here with 1.4826 MAD.
    """
    differences = z
    for axis in (0, 1):
        differences = ndimage.correlate1d(differences, [1.0, -2.0, 1.0], axis=axis, mode="nearest")
    inside = differences[ndimage.binary_erosion(mask, np.ones((3, 3, 1), dtype=bool))] / np.float32(6)
    return MAD_TO_SD * float(np.median(np.abs(inside))) if inside.size else 0.0


def smooth_inside(
    values: NDArray[np.float32], mask: NDArray[np.bool_], zooms: ArrayLike, sigma_mm: float = 0.7
) -> NDArray[np.float32]:
    """Smooth within the mask; of FLAIR z, at the default width, this is the baseline score.

    Normalised convolution ``G*(v m) / G*m``, so that the brain's edge is not
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
    inside = mask.astype(np.float32)
    sigma = sigma_mm / np.asarray(zooms, dtype=float)
    numerator = ndimage.gaussian_filter(values * inside, sigma, mode="constant")
    weight = ndimage.gaussian_filter(inside, sigma, mode="constant")
    smoothed = np.zeros(values.shape, dtype=np.float32)
    np.divide(numerator, weight, out=smoothed, where=mask.astype(bool) & (weight > 0))
    return smoothed


def zscore(data: NDArray[Any], scaling: dict[str, float]) -> NDArray[np.float32]:
    """Robust z of a whole field of view, from white matter's ``mode`` and ``scale``."""
    return ((data - scaling["mode"]) / scaling["scale"]).astype(np.float32)
